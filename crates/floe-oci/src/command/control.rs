//! `kill`, `delete`, `pause` and `resume`.

use std::process::ExitCode;

use anyhow::Context;
use container::{Force, Target};
use rustix::process::Signal;

use crate::flags::{Delete, Global, Id, Kill};
use crate::log::Log;

pub(crate) fn kill(global: &Global, flags: &Kill) -> anyhow::Result<ExitCode> {
    let signal = signal(&flags.signal)?;
    let target = if flags.all { Target::All } else { Target::Init };
    container::kill(&super::root(global), &super::id(&flags.id)?, signal, target)?;
    Ok(ExitCode::SUCCESS)
}

/// A signal by number, or by name with or without `SIG`, in any case. Real-time ones too.
fn signal(text: &str) -> anyhow::Result<Signal> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let number = text.parse().ok().or_else(|| sys::signal::number(name));
    number
        .and_then(sys::signal::from_number)
        .with_context(|| format!("signal {text:?}: unknown"))
}

pub(crate) fn delete(global: &Global, flags: &Delete, log: &Log) -> anyhow::Result<ExitCode> {
    let force = if flags.force { Force::Yes } else { Force::No };
    let failed_hooks = container::delete(&super::root(global), &super::id(&flags.id)?, force)?;
    for error in failed_hooks {
        log.warn(&error.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn pause(global: &Global, flags: &Id) -> anyhow::Result<ExitCode> {
    container::pause(&super::root(global), &super::id(&flags.id)?)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn resume(global: &Global, flags: &Id) -> anyhow::Result<ExitCode> {
    container::resume(&super::root(global), &super::id(&flags.id)?)?;
    Ok(ExitCode::SUCCESS)
}
