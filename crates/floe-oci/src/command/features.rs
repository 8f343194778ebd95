//! `features`: what engines ask before they configure a container.

use std::process::ExitCode;

use crate::flags::Global;

use container::spec::{Facts, features as document};

use super::query::print;
use super::version::COMMIT;

pub(crate) fn features(global: &Global) -> anyhow::Result<ExitCode> {
    let options = container::known_options();
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION"),
        commit: COMMIT,
        mount_options: options.iter().map(String::as_str).collect(),
        capabilities: container::capabilities::of_kernel(),
        seccomp_flags: container::seccomp::supported_flags(),
        systemd: true,
        intel_rdt: true,
        checkpoint: super::criu::is_there(global),
    };
    print(&format!(
        "{}\n",
        serde_json::to_string_pretty(&document(&facts))?
    ))
}
