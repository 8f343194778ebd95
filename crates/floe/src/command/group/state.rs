//! `floe group freeze`, `thaw`, `kill`: all processes of groups, and of the groups below them.

use anyhow::{Context, Result};
use cgroup::{Group, Name};
use clap::Args;
use rustix::process::Signal;

use super::Groups;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KillFlags {
    /// Signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(crate) fn freeze(flags: &Flags) -> Result<u8> {
    each(&flags.names, |group| Ok(group.freeze()?))
}

pub(crate) fn thaw(flags: &Flags) -> Result<u8> {
    each(&flags.names, |group| Ok(group.thaw()?))
}

pub(crate) fn kill(flags: &KillFlags) -> Result<u8> {
    let number = crate::parse::signal(&flags.signal)?;
    let signal = Signal::from_named_raw(number)
        .with_context(|| format!("signal `{}`: not one with a name", flags.signal))?;
    each(&flags.names, |group| Ok(group.kill(signal)?))
}

/// Does something to each group; one that fails does not stop the others.
pub(super) fn each(texts: &[String], mut act: impl FnMut(&Group) -> Result<()>) -> Result<u8> {
    let groups = Groups::open()?;
    let mut code = 0;
    for text in texts {
        let done = Name::parse(text)
            .map_err(Into::into)
            .and_then(|name| groups.find(&name))
            .and_then(|group| act(&group));
        if let Err(error) = done {
            output::error(&error);
            code = 1;
        }
    }
    Ok(code)
}
