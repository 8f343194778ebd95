//! Do two tasks share a kernel object? kcmp(2), since Linux 3.5.

use std::cmp::Ordering;

use rustix::process::Pid;

use crate::{Errno, Result};

/// The object of two tasks that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The open file descriptions behind two file descriptors.
    File(u32, u32),
    /// The address space.
    Memory,
    /// The table of file descriptors.
    Files,
    /// Root, working directory and umask.
    FileSystem,
    /// The table of signal handlers.
    SignalHandlers,
    /// The list of System V semaphore undos.
    SemaphoreUndo,
}

/// A registration in an epoll set, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The set's descriptor.
    pub set: u32,
    /// The number that the file had when it was registered.
    pub number: u32,
    /// Which one, of several under the same number.
    pub offset: u32,
}

/// Whether descriptor `number` of `task` is the registered file (since Linux 4.13).
///
/// # Errors
/// ENOENT: no such registration.
pub fn is_registered(task: Pid, number: u32, registration: Registration) -> Result<bool> {
    let pid = task.as_raw_nonzero().get();
    // SAFETY: `registration` has the layout of `struct kcmp_epoll_slot` and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            pid,
            pid,
            7,
            libc::c_ulong::from(number),
            &raw const registration,
        )
    };
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    Ok(result == 0)
}

/// Compares; `Equal` means the same object, and the order of different ones is stable.
///
/// # Errors
/// EPERM: no right to trace one of them. EBADF: no such descriptor.
pub fn compare(left: Pid, right: Pid, kind: Kind) -> Result<Ordering> {
    let (number, a, b) = match kind {
        Kind::File(a, b) => (0, a, b),
        Kind::Memory => (1, 0, 0),
        Kind::Files => (2, 0, 0),
        Kind::FileSystem => (3, 0, 0),
        Kind::SignalHandlers => (4, 0, 0),
        Kind::SemaphoreUndo => (6, 0, 0),
    };
    // SAFETY: integers only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            left.as_raw_nonzero().get(),
            right.as_raw_nonzero().get(),
            number,
            libc::c_ulong::from(a),
            libc::c_ulong::from(b),
        )
    };
    match result {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 | 3 => Ok(Ordering::Greater),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}
