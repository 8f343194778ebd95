//! The commands, a file for each group of them.

pub(crate) mod checkpoint;
pub(crate) mod control;
pub(crate) mod create;
pub(crate) mod criu;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod query;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod terminal;
pub(crate) mod update;
pub(crate) mod version;

use std::path::PathBuf;

use anyhow::Context;
use container::ContainerId;

use crate::flags::Global;

/// The directory of all containers' state.
pub(crate) fn root(global: &Global) -> PathBuf {
    if let Some(root) = &global.root {
        return root.clone();
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/floe-oci");
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let own = || {
        PathBuf::from(format!(
            "/tmp/floe-oci-{}",
            rustix::process::geteuid().as_raw()
        ))
    };
    runtime.map_or_else(own, |directory| directory.join("floe-oci"))
}

/// A container's id as given on the command line.
pub(crate) fn id(text: &str) -> anyhow::Result<ContainerId> {
    ContainerId::new(text).context("id")
}

/// Whether a bundle's process wants a terminal. What is wrong with the bundle is said later.
pub(crate) fn terminal_wanted(bundle: &std::path::Path) -> bool {
    let directory = std::fs::File::open(bundle).ok();
    let spec = directory.and_then(|directory| container::spec::load(directory).ok());
    spec.and_then(|spec| spec.process)
        .is_some_and(|process| process.terminal)
}
