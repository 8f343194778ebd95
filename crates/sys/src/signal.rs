//! Signals: blocking them, and reading them from a descriptor.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::{Errno, Result, result};

/// The highest signal number there is.
pub const MAX: i32 = 64;

/// Blocks these signals, or all of them, and gives a descriptor that reads them (signalfd(2)).
pub fn block_to_fd(signals: Option<&[i32]>) -> Result<OwnedFd> {
    let set = set_of(signals)?;
    mask(libc::SIG_BLOCK, &set)?;
    // SAFETY: the set outlives the call.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    let fd = i32::try_from(result(fd.into())?).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next pending signal's number, or `None` if there is none.
pub fn next(fd: impl AsFd) -> Result<Option<i32>> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has the size that is passed.
    let read = unsafe { libc::read(fd.as_fd().as_raw_fd(), info.as_mut_ptr().cast(), size) };
    match result(read as libc::c_long) {
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
        // SAFETY: zeroed at first and filled by the kernel: every bit pattern is a value.
        Ok(_) => Ok(i32::try_from(unsafe { info.assume_init() }.ssi_signo).ok()),
    }
}

/// Unblocks every signal and gives each its default action: the state in which a program expects
/// to be started.
pub fn reset() -> Result<()> {
    for signal in 1..=MAX {
        // SAFETY: SIG_DFL is no function. Signals that cannot be changed are refused, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    mask(libc::SIG_UNBLOCK, &set_of(None)?)
}

fn set_of(signals: Option<&[i32]>) -> Result<libc::sigset_t> {
    // SAFETY: a signal set is plain bits; all zero is the empty set.
    let mut set: libc::sigset_t = unsafe { MaybeUninit::zeroed().assume_init() };
    if signals.is_none() {
        // SAFETY: the set is initialised.
        unsafe { libc::sigfillset(&raw mut set) };
    }
    for signal in signals.unwrap_or_default() {
        // SAFETY: the set is initialised.
        result(unsafe { libc::sigaddset(&raw mut set, *signal) }.into())?;
    }
    Ok(set)
}

fn mask(how: libc::c_int, set: &libc::sigset_t) -> Result<()> {
    // SAFETY: the set outlives the call; the old mask is not asked for.
    result(unsafe { libc::sigprocmask(how, set, std::ptr::null_mut()) }.into()).map(drop)
}
