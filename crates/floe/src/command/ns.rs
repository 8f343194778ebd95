//! `floe ns`: namespaces without containers.

mod enter;
mod keep;
mod kept;
mod ls;
mod run;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use sys::namespace::Kind;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List namespaces: who owns them, who is inside
    Ls(ls::Flags),
    /// Run a program in namespaces of a container, a process or a kept name
    Enter(enter::Flags),
    /// Keep namespaces of a process under a name after its end
    Keep(keep::Flags),
    /// Run a program in new namespaces, with a chosen pid
    Run(run::Flags),
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    match &flags.command {
        Command::Ls(flags) => ls::run(flags),
        Command::Enter(flags) => enter::run(flags),
        Command::Keep(flags) => keep::run(flags),
        Command::Run(flags) => run::run(flags),
    }
}

/// Kinds by the names of their files or in full.
fn kind(text: &str) -> Result<Kind> {
    let text = match text {
        "mount" => "mnt",
        "network" => "net",
        other => other,
    };
    match Kind::ALL.into_iter().find(|kind| kind.file() == text) {
        Some(kind) => Ok(kind),
        None => bail!("namespace `{text}`: user, ipc, uts, net, pid, cgroup, time or mnt"),
    }
}

fn kinds(texts: &[String]) -> Result<Vec<Kind>> {
    texts.iter().map(|text| kind(text)).collect()
}

/// Runs a program in place of this one.
pub(super) fn replace_by(program: &[String]) -> Result<u8> {
    use std::os::unix::process::CommandExt;
    let Some((name, arguments)) = program.split_first() else {
        bail!("no program")
    };
    sys::signal::reset().ok();
    let error = std::process::Command::new(name).args(arguments).exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    let message = match sys::Errno::from_io_error(&error) {
        Some(errno) => format!("exec `{name}`: {}", sys::errno::describe(errno)),
        None => format!("exec `{name}`: {error}"),
    };
    Err(crate::runtime::WithCode { code, message }.into())
}

/// Waits for a child; its status as a shell tells it.
fn wait_for(pid: rustix::process::Pid) -> Result<u8> {
    use anyhow::Context;
    use rustix::process::{WaitOptions, waitpid};
    let status = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))
        .context("wait for the program")?;
    let Some((_, status)) = status else {
        bail!("the program's status is lost")
    };
    let code = status
        .exit_status()
        .or(status.terminating_signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}
