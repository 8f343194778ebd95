//! Signals: blocking them, and reading them from a descriptor.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::{Errno, Result, result};

/// The highest signal number there is.
pub const MAX: i32 = 64;

/// Names without `SIG`, as kill(1) takes them.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// The number of a signal by its name without `SIG`: `TERM`, `RTMIN+3`.
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    let known = |name: &str| {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|entry| entry.1)
    };
    if let Some((base, offset)) = name.split_once(['+', '-']) {
        let sign = if name.contains('+') { 1 } else { -1 };
        let offset = offset.parse::<i32>().ok()?;
        let number = known(base).filter(|_| base.starts_with("RT"))? + sign * offset;
        return (34..=MAX).contains(&number).then_some(number);
    }
    known(name)
}

/// The signal of a number that the kernel knows, real-time ones included.
#[must_use]
pub fn from_number(number: i32) -> Option<rustix::process::Signal> {
    if !(1..=MAX).contains(&number) {
        return None;
    }
    // SAFETY: the signals that libc keeps to itself (32, 33) are only sent here, to other programs,
    // and never given a handler or waited for in this process.
    Some(unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}

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
