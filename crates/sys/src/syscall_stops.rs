//! A child that stops at each of its system calls, for tests that end a program at every step:
//! ptrace(2).
//!
//! SAFETY, once for the module: the requests used here take integers and no pointers; `status`
//! outlives the wait.

use rustix::process::Pid;

use crate::{Errno, Result, result};

/// Why a child of [`trace_me`] is not running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It enters or leaves a system call.
    Call,
    /// It is about to see this signal.
    Signal(i32),
    /// It exited with this status, or was killed by that signal.
    Exited(i32),
    Killed(i32),
}

/// Makes the thread that started the calling process its tracer. The next exec stops it.
pub fn trace_me() -> Result<()> {
    request(libc::PTRACE_TRACEME, 0, 0)
}

/// Tells system call stops apart from signals, and has the child die with its tracer. For a
/// stopped child.
pub fn prepare(child: Pid) -> Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    request(
        libc::PTRACE_SETOPTIONS,
        child.as_raw_nonzero().get(),
        i64::from(options),
    )
}

/// Lets a stopped child run to where it next enters or leaves a system call; it sees `signal` first
/// unless that is 0.
pub fn go_on(child: Pid, signal: i32) -> Result<()> {
    request(
        libc::PTRACE_SYSCALL,
        child.as_raw_nonzero().get(),
        i64::from(signal),
    )
}

/// Waits for the child's next stop or its end, which is then reaped.
pub fn wait(child: Pid) -> Result<Stop> {
    let mut status = 0;
    // SAFETY: see the head of the module.
    let waited = unsafe { libc::waitpid(child.as_raw_nonzero().get(), &raw mut status, 0) };
    match result(waited.into()) {
        Err(Errno::INTR) => wait(child),
        Err(errno) => Err(errno),
        Ok(_) if libc::WIFEXITED(status) => Ok(Stop::Exited(libc::WEXITSTATUS(status))),
        Ok(_) if libc::WIFSIGNALED(status) => Ok(Stop::Killed(libc::WTERMSIG(status))),
        Ok(_) => Ok(match libc::WSTOPSIG(status) {
            CALL => Stop::Call,
            signal => Stop::Signal(signal),
        }),
    }
}

/// SIGTRAP as `PTRACE_O_TRACESYSGOOD` marks it.
const CALL: i32 = libc::SIGTRAP | 0x80;

fn request(request: libc::c_uint, pid: i32, data: i64) -> Result<()> {
    // SAFETY: see the head of the module.
    result(unsafe { libc::syscall(libc::SYS_ptrace, libc::c_long::from(request), pid, 0, data) })
        .map(drop)
}
