//! `spec`: an example to begin with.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use container::spec::{sample, sample_rootless};

use crate::flags::Spec;

pub(crate) fn spec(flags: &Spec) -> anyhow::Result<ExitCode> {
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let example = if flags.rootless {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        sample_rootless(unified, uid.as_raw(), gid.as_raw())
    } else {
        sample(unified)
    };
    let path = flags.bundle.join("config.json");
    let named = || format!("write `{}`", path.display());
    let file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&path);
    let mut file = file.with_context(named)?;
    let text = serde_json::to_string_pretty(&example)?;
    file.write_all(text.as_bytes()).with_context(named)?;
    Ok(ExitCode::SUCCESS)
}
