//! Namespaces: joining and telling them apart.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::{Result, result};

/// A kind of namespace; the value is its `CLONE_NEW*` flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u64)]
pub enum Kind {
    Time = libc::CLONE_NEWTIME as u64,
    Mount = libc::CLONE_NEWNS as u64,
    Cgroup = libc::CLONE_NEWCGROUP as u64,
    Uts = libc::CLONE_NEWUTS as u64,
    Ipc = libc::CLONE_NEWIPC as u64,
    User = libc::CLONE_NEWUSER as u64,
    Pid = libc::CLONE_NEWPID as u64,
    Network = libc::CLONE_NEWNET as u64,
}

impl Kind {
    /// Every kind, in the order in which a process should join them: the user namespace first,
    /// for its capabilities allow the others; the mount namespace last, for paths change with it.
    pub const ALL: [Kind; 8] = [
        Kind::User,
        Kind::Ipc,
        Kind::Uts,
        Kind::Network,
        Kind::Pid,
        Kind::Cgroup,
        Kind::Time,
        Kind::Mount,
    ];

    /// The flag that clone3, unshare and setns take.
    #[must_use]
    pub fn flag(self) -> u64 {
        self as u64
    }

    /// The file's name under `/proc/PID/ns`.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Kind::Time => "time",
            Kind::Mount => "mnt",
            Kind::Cgroup => "cgroup",
            Kind::Uts => "uts",
            Kind::Ipc => "ipc",
            Kind::User => "user",
            Kind::Pid => "pid",
            Kind::Network => "net",
        }
    }
}

/// Joins the namespace behind `fd`, which must be of this kind (setns(2)).
///
/// # Errors
/// `EINVAL`: another kind, or the caller's own user namespace. `EPERM`: no capability there.
pub fn join(fd: BorrowedFd<'_>, kind: Kind) -> Result<()> {
    set(fd, kind.flag())
}

/// Joins several namespaces of a process at once (setns(2) on a pidfd, since Linux 5.8).
pub fn join_process(pidfd: impl AsFd, flags: u64) -> Result<()> {
    set(pidfd.as_fd(), flags)
}

fn set(fd: BorrowedFd<'_>, flags: u64) -> Result<()> {
    // SAFETY: no pointers.
    result(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), flags) }).map(drop)
}

/// Leaves for new namespaces (unshare(2)); `flags` holds `CLONE_NEW*` bits only.
pub fn unshare(flags: u64) -> Result<()> {
    if flags & !Kind::ALL.iter().fold(0, |all, kind| all | kind.flag()) != 0 {
        return Err(crate::Errno::INVAL);
    }
    // SAFETY: no pointers; bits that would unshare tables of the process are refused above.
    result(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}
