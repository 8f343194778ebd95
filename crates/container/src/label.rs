//! Security labels of the program to be executed: AppArmor and SELinux.

use std::path::Path;

use crate::error::{During, Result};
use crate::spec;

/// Sets the labels for the next exec. A label for a security module that the kernel does not run
/// is ignored, as peers do: engines give the same configuration to every host.
pub(crate) fn set_for_exec(process: &spec::Process) -> Result<()> {
    let profile = process
        .apparmor_profile
        .as_deref()
        .filter(|name| !name.is_empty());
    if let Some(profile) = profile.filter(|_| apparmor_is_on()) {
        write(apparmor_file(), &format!("exec {profile}"))
            .map_err(|error| error.within(format!("process.apparmorProfile: `{profile}`")))?;
    }
    let label = process
        .selinux_label
        .as_deref()
        .filter(|label| !label.is_empty());
    if let Some(label) = label.filter(|_| selinux_is_on()) {
        write(Path::new("self/attr/exec"), label)
            .map_err(|error| error.within(format!("process.selinuxLabel: `{label}`")))?;
    }
    Ok(())
}

/// Whether the kernel runs AppArmor.
#[must_use]
pub(crate) fn apparmor_is_on() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// Whether the kernel runs SELinux: its file system is registered then.
#[must_use]
pub(crate) fn selinux_is_on() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\tselinuxfs\n"))
}

/// Since Linux 5.8 AppArmor has files of its own, which do not clash with another module's.
fn apparmor_file() -> &'static Path {
    let own = Path::new("/proc/self/attr/apparmor/exec");
    if own.exists() {
        Path::new("self/attr/apparmor/exec")
    } else {
        Path::new("self/attr/exec")
    }
}

/// The write must reach procfs, or the program would run unconfined (CVE-2019-16884).
fn write(file: &Path, value: &str) -> Result<()> {
    let proc = sys::procfs::Procfs::private().during(|| "mount a private /proc")?;
    proc.write(file, value.as_bytes())
        .during(|| format!("write `/proc/{}`", file.display()))
}
