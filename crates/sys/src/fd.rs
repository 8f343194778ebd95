//! File descriptors: which are open, and which survive exec.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use rustix::io::FdFlags;

use crate::{Result, result};

/// Marks every descriptor from `first` on close-on-exec (close_range(2), since Linux 5.11).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor in `first..=last` (close_range(2), since Linux 5.9).
///
/// The caller gives up whatever owned values stood for them; it is for the last steps before exec.
pub fn close_all(first: u32, last: u32) -> Result<()> {
    if first > last {
        Ok(())
    } else {
        close_range(first, last, 0)
    }
}

/// Closes a descriptor in a process that was just cloned, whose copy of the owner is never used.
pub fn close_copy(fd: BorrowedFd<'_>) -> Result<()> {
    let number = fd.as_raw_fd().unsigned_abs();
    close_range(number, number, 0)
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> Result<()> {
    // SAFETY: no pointers. Owners of closed descriptors are the caller's matter, as documented.
    result(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Closes every descriptor from `first` on but those in `keep`.
pub fn close_all_but(first: u32, keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .collect();
    keep.sort_unstable();
    let mut next = first;
    for number in keep.into_iter().filter(|number| *number >= first) {
        if let Some(last) = number.checked_sub(1) {
            close_all(next, last)?;
        }
        next = number + 1;
    }
    close_all(next, u32::MAX)
}

/// Moves a descriptor to a number of at least `floor`, close-on-exec.
pub fn move_above(fd: OwnedFd, floor: RawFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() >= floor {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, floor)
}

/// Lets a descriptor survive exec.
pub fn keep_on_exec(fd: impl AsFd) -> Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::empty())
}

/// Makes `target` (0, 1 or 2) a copy of `fd`.
pub fn replace_standard(fd: BorrowedFd<'_>, target: Standard) -> Result<()> {
    // SAFETY: dup2 takes no pointers; the standard descriptors belong to the process as a whole.
    result(libc::c_long::from(unsafe {
        libc::dup2(fd.as_raw_fd(), target as RawFd)
    }))
    .map(drop)
}

/// The three standard descriptors.
#[derive(Debug, Clone, Copy)]
pub enum Standard {
    Input = 0,
    Output = 1,
    Error = 2,
}

/// Whether a caller left this descriptor open for us to hand on: open, and not close-on-exec, as
/// everything is that we open ourselves.
#[must_use]
pub fn is_inherited(number: RawFd) -> bool {
    // SAFETY: no pointers; any number may be asked about.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Takes over a descriptor number that a parent process or a protocol promised us.
///
/// # Errors
/// `EBADF` where no such descriptor is open.
pub fn adopt(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: the number is checked by fcntl below before it is used for anything else.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC) {
        Ok(()) => Ok(fd),
        Err(errno) => {
            let _not_open = fd.into_raw_fd();
            Err(errno)
        }
    }
}
