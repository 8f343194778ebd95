//! `start`.

use std::process::ExitCode;

use anyhow::Context;

use crate::flags::{Global, Id};
use crate::log::Log;

pub(crate) fn start(global: &Global, flags: &Id, log: &Log) -> anyhow::Result<ExitCode> {
    let id = super::id(&flags.id)?;
    let failed_hooks =
        container::start(&super::root(global), &id).with_context(|| format!("start `{id}`"))?;
    for error in failed_hooks {
        log.warn(&error.to_string());
    }
    Ok(ExitCode::SUCCESS)
}
