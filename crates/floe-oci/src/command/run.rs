//! `run`: create, start, wait, delete.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use container::{ContainerId, Created, Force};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};

use super::create;
use crate::flags::{Global, Run};
use crate::log::Log;

pub(crate) fn run(global: &Global, flags: Run, log: &Log) -> anyhow::Result<ExitCode> {
    let root = super::root(global);
    let id = super::id(&flags.create.id)?;
    let socket = flags
        .create
        .console_socket
        .as_deref()
        .map(create::connect_to)
        .transpose();
    let socket = socket.context("--console-socket")?;
    if !flags.no_subreaper {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    // Blocked before the container exists: none may be lost, and the container's process starts
    // with none blocked all the same.
    let signals = if flags.detach {
        None
    } else {
        Some(sys::signal::block_to_fd(None)?)
    };
    let created = create::make(global, flags.create, socket)?;
    let result = start_and_wait(&root, &id, &created, signals.as_ref(), log);
    if signals.is_none() && result.is_ok() {
        return Ok(ExitCode::SUCCESS);
    }
    if !flags.keep || result.is_err() {
        for error in container::delete(&root, &id, Force::Yes)? {
            log.warn(&error.to_string());
        }
    }
    result
}

fn start_and_wait(
    root: &Path,
    id: &ContainerId,
    created: &Created,
    signals: Option<&OwnedFd>,
    log: &Log,
) -> anyhow::Result<ExitCode> {
    for warning in &created.warnings {
        log.warn(warning);
    }
    for error in container::start(root, id).with_context(|| format!("start `{id}`"))? {
        log.warn(&error.to_string());
    }
    match signals {
        None => Ok(ExitCode::SUCCESS),
        Some(signals) => wait(created.pid, &created.pidfd, signals),
    }
}

/// Forwards signals to the process until it ends; its status as a shell tells it.
pub(crate) fn wait(pid: Pid, pidfd: &OwnedFd, signals: &OwnedFd) -> anyhow::Result<ExitCode> {
    loop {
        let (process, pending) = (pidfd.as_fd(), signals.as_fd());
        let mut fds = [
            PollFd::new(&process, PollFlags::IN),
            PollFd::new(&pending, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).context("wait")?;
        if !fds[0].revents().is_empty() {
            return reap(pid);
        }
        while let Some(number) = sys::signal::next(signals)? {
            forward(number, pidfd);
        }
    }
}

/// A terminal's own matters and the ends of children are not the container's.
fn forward(number: i32, pidfd: &OwnedFd) {
    let ours = [Signal::CHILD, Signal::URG, Signal::TTIN, Signal::TTOU];
    if let Some(signal) = sys::signal::from_number(number).filter(|one| !ours.contains(one)) {
        // A process that has just ended needs no signal.
        let _gone = pidfd_send_signal(pidfd, signal);
    }
}

/// The exit code of a process: its own, or 128 and the signal that killed it.
fn reap(pid: Pid) -> anyhow::Result<ExitCode> {
    let waited = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
    let Some((_, status)) = waited.context("wait for the process")? else {
        bail!("wait for the process: it is still there");
    };
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
