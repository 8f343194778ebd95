//! `run`: create, start, wait, delete.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use container::{ContainerId, Created, Force};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::terminal::{self, Foreground};
use super::{create, terminal_wanted};
use crate::flags::{Global, Run};
use crate::log::Log;

pub(crate) fn run(global: &Global, flags: Run, log: &Log) -> anyhow::Result<ExitCode> {
    let root = super::root(global);
    let id = super::id(&flags.create.id)?;
    let given = flags
        .create
        .console_socket
        .as_deref()
        .map(create::connect_to)
        .transpose();
    let given = given.context("--console-socket")?;
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
    let own = (given.is_none() && !flags.detach && terminal_wanted(&flags.create.bundle))
        .then(sys::message::pair)
        .transpose()?;
    let (ours, theirs) = own.map_or((None, given), |(ours, theirs)| (Some(ours), Some(theirs)));
    let created = create::make(global, flags.create, theirs)?;
    let result = start_and_wait(&root, &id, &created, (ours, signals.as_ref()), log);
    if (signals.is_none() || flags.keep) && result.is_ok() {
        return result;
    }
    for error in container::delete(&root, &id, Force::Yes)? {
        log.warn(&error.to_string());
    }
    result
}

fn start_and_wait(
    root: &Path,
    id: &ContainerId,
    created: &Created,
    (console, signals): (Option<OwnedFd>, Option<&OwnedFd>),
    log: &Log,
) -> anyhow::Result<ExitCode> {
    for warning in &created.warnings {
        log.warn(warning);
    }
    let terminal = console.as_ref().map(terminal::receive).transpose()?;
    for error in container::start(root, id).with_context(|| format!("start `{id}`"))? {
        log.warn(&error.to_string());
    }
    let Some(signals) = signals else {
        return Ok(ExitCode::SUCCESS);
    };
    let (pid, pidfd) = (created.pid, &created.pidfd);
    terminal::attend(&Foreground {
        pidfd,
        signals,
        terminal,
    })?;
    reap(pid)
}

/// The exit code of a process: its own, or 128 and the signal that killed it.
pub(crate) fn reap(pid: Pid) -> anyhow::Result<ExitCode> {
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
