//! `floed monitor`: what stays beside a running container.
//!
//! It is the parent of the container's first process (as a subreaper: the runtime's own parent of
//! it ends with the runtime), so it alone learns the exit status. It holds the other ends of the
//! standard streams or the terminal, copies them to the log and to attached clients, and starts
//! the container again where its policy says so. One thread, one epoll set, one match.

mod account;
mod clients;
mod machine;
mod options;
mod output;
mod runtime;
mod watch;

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;

use monitor::files::LOCK;
use rustix::fs::{FlockOperation, flock};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitStatus, setsid};
use sys::clone::{Clone, Side, clone};
use sys::fd::{Standard, replace_standard};

use machine::Machine;
use options::Options;

/// Makes the container, leaves a process that holds it, and returns once it waits for `Start`.
///
/// # Errors
/// Why there is no container: a text for the user. The runtime's own words are in its log.
pub(crate) fn main(arguments: &[OsString]) -> Result<u8, String> {
    let options = Options::parse(arguments)?;
    let (ready, report) = pipe_with(PipeFlags::CLOEXEC).map_err(told("make pipe"))?;
    match clone(&Clone::default()).map_err(told("fork"))? {
        Side::Parent { .. } => {
            drop(report);
            wait_ready(ready)
        }
        Side::Child => {
            drop(ready);
            Ok(stay(options, report))
        }
    }
}

/// The launcher's half: it lives until the monitor has made the container.
fn wait_ready(ready: OwnedFd) -> Result<u8, String> {
    let mut text = String::new();
    std::fs::File::from(ready)
        .read_to_string(&mut text)
        .map_err(|error| format!("wait for monitor: {error}"))?;
    match text.strip_prefix("ready") {
        Some(_) => Ok(0),
        None if text.is_empty() => Err("the monitor ended before its container was made".into()),
        None => Err(text),
    }
}

/// The monitor's half.
fn stay(options: Options, report: OwnedFd) -> u8 {
    let say = |text: &str| {
        // The launcher may have been killed: the container is held all the same.
        let _ = rustix::io::write(&report, text.as_bytes());
    };
    let machine = match prepare(&options).and_then(|lock| Machine::create(options, lock)) {
        Ok(machine) => machine,
        Err(message) => {
            say(&message);
            return 125;
        }
    };
    say("ready");
    drop(report);
    let (code, remover) = machine.run();
    if let Some(mut remover) = remover {
        // Replaces this process; on return the container is left for `floe rm`.
        let _ = remover.exec();
    }
    code
}

/// Cuts the ties with whoever called and takes the container's lock.
fn prepare(options: &Options) -> Result<OwnedFd, String> {
    setsid().map_err(told("leave session"))?;
    std::env::set_current_dir(&options.run_dir)
        .map_err(|error| format!("enter `{}`: {error}", options.run_dir.display()))?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|error| format!("open `/dev/null`: {error}"))?;
    for standard in [Standard::Input, Standard::Output, Standard::Error] {
        replace_standard(null.as_fd(), standard).map_err(told("replace standard stream"))?;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(told("become subreaper"))?;
    let lock = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)
        .map_err(|error| format!("open `{LOCK}`: {error}"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| "another monitor holds this container".to_owned())?;
    Ok(lock.into())
}

/// An exit status as a shell tells it: 128 + signal if killed.
pub(crate) fn code_of(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    u8::try_from(code).unwrap_or(255)
}

/// For `map_err`: the operation and the kernel's words.
fn told(operation: &'static str) -> impl Fn(sys::Errno) -> String {
    move |errno| format!("{operation}: {}", sys::errno::describe(errno))
}

/// A process that may already be gone is no error.
fn signal(pid: Pid, signal: i32) {
    if let Some(signal) = sys::signal::from_number(signal) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
