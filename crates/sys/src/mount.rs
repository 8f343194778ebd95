//! The mount interface by descriptors: what rustix lacks of it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::{Result, result};

/// Attributes of one mount (`MOUNT_ATTR_*`, mount_setattr(2)).
pub mod attribute {
    pub const READ_ONLY: u64 = 0x1;
    pub const NO_SUID: u64 = 0x2;
    pub const NO_DEV: u64 = 0x4;
    pub const NO_EXEC: u64 = 0x8;
    /// The field that holds one of the three access-time modes.
    pub const ATIME_FIELD: u64 = 0x70;
    pub const REL_ATIME: u64 = 0x0;
    pub const NO_ATIME: u64 = 0x10;
    pub const STRICT_ATIME: u64 = 0x20;
    pub const NO_DIR_ATIME: u64 = 0x80;
    pub const ID_MAP: u64 = 0x10_0000;
    pub const NO_SYMFOLLOW: u64 = 0x20_0000;
}

/// Changes to a mount.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Bits of [`attribute`] to set.
    pub set: u64,
    /// Bits of [`attribute`] to clear, before the others are set.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0 for no change.
    pub propagation: u64,
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct RawAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl Attributes {
    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes the mount behind `fd`, or every mount below it too (mount_setattr(2), since Linux 5.12).
///
/// # Errors
/// `EPERM`: an attribute is locked by a more privileged user namespace. `EBUSY`: read-only was
/// asked for while a file is open for writing.
pub fn set_attributes(fd: impl AsFd, attributes: &Attributes, scope: Scope) -> Result<()> {
    let Attributes {
        set,
        clear,
        propagation,
    } = *attributes;
    set_raw(
        fd.as_fd(),
        &RawAttributes {
            set,
            clear,
            propagation,
            user_namespace: 0,
        },
        scope,
    )
}

/// Maps the owners of files seen through a detached mount by a user namespace's id maps.
///
/// # Errors
/// `EINVAL`: the file system cannot, or the mount is already mapped or attached. `EPERM`: the user
/// namespace is the initial one, or lacks maps.
pub fn set_id_map(fd: impl AsFd, user_namespace: BorrowedFd<'_>, scope: Scope) -> Result<()> {
    let attributes = RawAttributes {
        set: attribute::ID_MAP,
        clear: 0,
        propagation: 0,
        user_namespace: user_namespace.as_raw_fd().unsigned_abs().into(),
    };
    set_raw(fd.as_fd(), &attributes, scope)
}

fn set_raw(fd: BorrowedFd<'_>, attributes: &RawAttributes, scope: Scope) -> Result<()> {
    let recursive = match scope {
        Scope::One => 0,
        Scope::Tree => libc::AT_RECURSIVE,
    };
    // SAFETY: the attributes outlive the call and their size is passed.
    result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(attributes),
            size_of::<RawAttributes>(),
        )
    })
    .map(drop)
}

/// Whether a call concerns one mount or the tree of mounts below it as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    One,
    Tree,
}

/// A detached copy of the mount behind `fd` (open_tree(2), since Linux 5.2).
pub fn clone_tree(fd: impl AsFd, scope: Scope) -> Result<OwnedFd> {
    open_tree(fd, c"", tree_flags(scope) | OpenTreeFlags::AT_EMPTY_PATH)
}

/// A detached copy of the mount at a path of the caller's own choice.
pub fn clone_tree_at(path: &std::path::Path, scope: Scope) -> Result<OwnedFd> {
    open_tree(rustix::fs::CWD, path, tree_flags(scope))
}

fn tree_flags(scope: Scope) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match scope {
        Scope::One => flags,
        Scope::Tree => flags | OpenTreeFlags::AT_RECURSIVE,
    }
}

/// Attaches a detached mount on top of the file or directory behind `target` (move_mount(2)).
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}
