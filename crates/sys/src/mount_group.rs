//! Peer groups of mounts.

use std::os::fd::AsFd;

use rustix::mount::{MoveMountFlags, move_mount};

use crate::Result;

/// Makes `mount` a peer of `other`, a mount of the same file system that shows all that it shows
/// (`MOVE_MOUNT_SET_GROUP`, since Linux 5.15). A slave's master is handed on too.
///
/// # Errors
/// EINVAL: `mount` is in a group already, or `other` in none, or they are of two file systems.
pub fn join(other: impl AsFd, mount: impl AsFd) -> Result<()> {
    const SET_GROUP: u32 = 0x100;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH
        | MoveMountFlags::from_bits_retain(SET_GROUP);
    move_mount(other, c"", mount, c"", flags)
}
