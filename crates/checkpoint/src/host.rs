//! Programs of the host, wherever the engine is.
//!
//! Problem: the inner half of the engine lives in the tree's mount namespace, where every path is
//! the tenant's. A program that is started by its name there would be one of the container's, with
//! the engine's rights. Solution: the caller's mount namespace is remembered before, and a program
//! enters it before it is looked up and executed.

use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Result};
use crate::procfs;

/// Set in the inner half only.
static MOUNTS: OnceLock<OwnedFd> = OnceLock::new();

/// The mount namespace of the caller.
pub(crate) fn mounts() -> Result<OwnedFd> {
    let path = format!("{}/self/ns/mnt", procfs::root());
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during("open", path)
}

/// Remembers what [`mounts`] gave, for a process that will leave there.
pub(crate) fn remember(mounts: OwnedFd) {
    let _first_wins = MOUNTS.set(mounts);
}

/// A program of the host.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    if let Some(mounts) = MOUNTS.get() {
        sys::child::in_mount_namespace(&mut command, mounts);
    }
    command
}
