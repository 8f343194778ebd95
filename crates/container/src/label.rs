//! Security labels of the program to be executed: AppArmor and SELinux.

use std::path::Path;

use crate::error::{During, Result};
use crate::spec;

/// Which security modules the kernel runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Modules {
    apparmor: bool,
    selinux: bool,
}

impl Modules {
    /// Asks the host's files. Not to be called in the container: its `/sys` and `/proc` are the
    /// tenant's, who would say that there is no module and run unconfined.
    pub(crate) fn of_host() -> Modules {
        Modules {
            apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.first() == Some(&b'Y')),
            selinux: std::fs::read_to_string("/proc/filesystems")
                .is_ok_and(|text| text.contains("\tselinuxfs\n")),
        }
    }
}

/// Sets the labels for the next exec. A label for a security module that the kernel does not run
/// is ignored, as peers do: engines give the same configuration to every host.
pub(crate) fn set_for_exec(process: &spec::Process, modules: Modules) -> Result<()> {
    let named = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(profile) = named(&process.apparmor_profile).filter(|_| modules.apparmor) {
        // Since Linux 5.8 AppArmor has files of its own, which do not clash with another module's.
        let value = format!("exec {profile}");
        let proc = private_proc()?;
        let written = match proc.write(Path::new("self/attr/apparmor/exec"), value.as_bytes()) {
            Err(sys::Errno::NOENT) => proc.write(Path::new("self/attr/exec"), value.as_bytes()),
            other => other,
        };
        written.during(|| format!("process.apparmorProfile: set `{profile}`"))?;
    }
    if let Some(label) = named(&process.selinux_label).filter(|_| modules.selinux) {
        private_proc()?
            .write(Path::new("self/attr/exec"), label.as_bytes())
            .during(|| format!("process.selinuxLabel: set `{label}`"))?;
    }
    Ok(())
}

/// The write must reach procfs, or the program would run unconfined (CVE-2019-16884).
fn private_proc() -> Result<sys::procfs::Procfs> {
    sys::procfs::Procfs::private().during(|| "mount a private /proc")
}
