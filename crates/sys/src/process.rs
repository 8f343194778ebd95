//! Processes by pid and pidfd: identity, priority of being killed, limits, waiting.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{Errno, Result, result};

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug)]
pub struct Process {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

impl Process {
    /// Opens the process with this number if it is the one that started then
    /// (pidfd_open(2), since Linux 5.3).
    ///
    /// `start` is field 22 of `/proc/PID/stat`, clock ticks since boot.
    ///
    /// # Errors
    /// `ESRCH`: it is gone, or its number belongs to another process now.
    pub fn open(pid: Pid, start: u64) -> Result<Process> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        match Status::read(pid) {
            // Read after the open: were the number taken over in between, the start would differ.
            Ok(status) if status.start == start => Ok(Process { pid, pidfd }),
            _ => Err(Errno::SRCH),
        }
    }

    /// Sends a signal (pidfd_send_signal(2), since Linux 5.1).
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.pidfd, signal)
    }

    /// Waits until the process has exited; `None` waits for ever. Whether it has.
    pub fn wait_exit(&self, timeout: Option<std::time::Duration>) -> Result<bool> {
        wait_exit(&self.pidfd, timeout)
    }
}

/// Waits until the process of a pidfd has exited, at most this long; whether it has.
pub fn wait_exit(pidfd: impl AsFd, timeout: Option<std::time::Duration>) -> Result<bool> {
    let pidfd = pidfd.as_fd();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref())).map(|ready| ready > 0)
}

/// What `/proc/PID/stat` tells that identifies a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The state's letter: `R`, `S`, `D`, `T`, `Z`, `X`…
    pub state: u8,
    /// Clock ticks since boot.
    pub start: u64,
}

impl Status {
    /// Reads it from the host's `/proc`.
    pub fn read(pid: Pid) -> Result<Status> {
        let text = std::fs::read(format!("/proc/{pid}/stat"))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Status::parse(&text).ok_or(Errno::PROTO)
    }

    /// Parses the line. The name may hold spaces and parentheses, so fields count from the last `)`.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Status> {
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let fields = std::str::from_utf8(line.get(end + 1..)?).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        // The state is field 3, the start field 22.
        Some(Status {
            state,
            start: fields.nth(18)?.parse().ok()?,
        })
    }

    /// Whether the process has ended and waits for its parent.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Ends the process at once, without the exit handlers of the program it is a copy of (_exit(2)).
pub fn leave(status: i32) -> ! {
    // SAFETY: no pointers, and nothing of this process is used afterwards.
    unsafe { libc::_exit(status) }
}

/// A resource limit; `u64::MAX` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// Reads and, where `new` is given, sets a limit of a process; `None` is the caller (prlimit64(2)).
///
/// `resource` is one of `RLIMIT_*`.
///
/// # Errors
/// `EPERM`: the hard limit would grow and CAP_SYS_RESOURCE is missing.
pub fn limit(pid: Option<Pid>, resource: u32, new: Option<&Limit>) -> Result<Limit> {
    let mut old = Limit { soft: 0, hard: 0 };
    // SAFETY: both structures outlive the call and have the layout of struct rlimit64.
    result(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            Pid::as_raw(pid),
            resource,
            new.map_or(std::ptr::null(), std::ptr::from_ref),
            &raw mut old,
        )
    })?;
    Ok(old)
}

/// Makes the process's memory and `/proc` files private to its user namespace's owner, or not
/// (prctl(2), `PR_SET_DUMPABLE`).
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    let value: libc::c_ulong = dumpable.into();
    // SAFETY: no pointers.
    result(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, value, 0, 0, 0)
    }))
    .map(drop)
}

/// Sets the execution domain (personality(2)); the value is one of `PER_*` with flags.
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: no pointers.
    result(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 0";
        for name in ["sh", "a) R (b", ") Z 1 2"] {
            let line = format!("7 ({name}){tail}");
            let status = Status::parse(line.as_bytes()).unwrap();
            assert_eq!((status.state, status.start), (b'S', 4242), "{name}");
        }
        assert_eq!(Status::parse(b"7 (sh"), None);
    }
}
