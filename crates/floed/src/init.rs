//! `floed init`: the first process of a container that asked for one (`floe run --init`).
//!
//! It starts the program as its child, passes every signal on to it, and waits for all orphans,
//! which the kernel hands to pid 1. It ends with the program's status.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, kill_process};

/// Runs `-- PROGRAM ARGUMENTS`.
///
/// # Errors
/// A text for the user when the arguments are wrong or the kernel refuses.
pub(crate) fn main(arguments: &[OsString]) -> Result<u8, String> {
    let program = match arguments {
        [dashes, program @ ..] if dashes == "--" && !program.is_empty() => program,
        _ => return Err("init wants -- PROGRAM [ARGUMENTS]".to_owned()),
    };
    let signals = sys::signal::block_to_fd(None).map_err(|errno| told("block signals", errno))?;
    // A group of its own: the terminal's signals reach it directly, not through us as well.
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).process_group(0);
    let child = match sys::child::unblock_signals(&mut command).spawn() {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            let code = if error.kind() == std::io::ErrorKind::NotFound {
                127
            } else {
                126
            };
            crate::tell(&format!("exec `{}`: {error}", program[0].display()));
            return Ok(code);
        }
    };
    // No terminal, or it is not ours: then there is nothing to hand over.
    if rustix::termios::tcsetpgrp(std::io::stdin(), child).is_ok() {
        // It may have stopped on a read before it was in the foreground.
        let _ = kill_process(child, Signal::CONT);
    }
    loop {
        wait_readable(&signals)?;
        while let Ok(Some(signal)) = sys::signal::next(&signals) {
            if signal == Signal::CHILD.as_raw() {
                if let Some(code) = reap(child) {
                    return Ok(code);
                }
            } else if let Some(signal) = sys::signal::from_number(signal) {
                // It may be gone already: its SIGCHLD follows.
                let _ = kill_process(child, signal);
            }
        }
    }
}

/// Waits for all that have ended; the program's own status if it is among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == child {
            code = Some(crate::monitor::code_of(status));
        }
    }
    code
}

fn wait_readable(fd: &std::os::fd::OwnedFd) -> Result<(), String> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, None))
        .map(drop)
        .map_err(|errno| told("wait for signals", errno))
}

fn told(operation: &str, errno: sys::Errno) -> String {
    format!("{operation}: {}", sys::errno::describe(errno))
}
