//! fanotify(7): notification groups and their marks.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::{Result, result};

/// Adds to a mark's mask; remove is the opposite.
pub const MARK_ADD: u32 = 1;
/// The mask says which events are left out.
pub const MARK_IGNORED_MASK: u32 = 0x20;
/// The mark is on a mount, not on an inode.
pub const MARK_MOUNT: u32 = 0x10;
/// The mark is on a file system (since Linux 4.20).
pub const MARK_FILESYSTEM: u32 = 0x100;

/// A new group; `flags` as fanotify_init(2) takes them, `event_flags` for the files that it opens.
///
/// # Errors
/// EPERM: no CAP_SYS_ADMIN for what the flags ask for. EMFILE: too many groups.
pub fn create(flags: u32, event_flags: u32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = result(unsafe { libc::syscall(libc::SYS_fanotify_init, flags, event_flags) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Changes the group's mark on what `path` leads to.
///
/// # Errors
/// EINVAL: the kernel does not know a bit. ENOENT: no such file. EXDEV, ENODEV: a file system that
/// cannot be watched in this way.
pub fn mark(group: impl AsFd, flags: u32, mask: u64, path: &std::ffi::CStr) -> Result<()> {
    // SAFETY: the path outlives the call.
    result(unsafe {
        libc::syscall(
            libc::SYS_fanotify_mark,
            group.as_fd().as_raw_fd(),
            flags,
            mask,
            libc::AT_FDCWD,
            path.as_ptr(),
        )
    })
    .map(drop)
}
