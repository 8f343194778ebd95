//! `events`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use super::query::print;
use crate::flags::{Events, Global};

pub(crate) fn events(global: &Global, flags: &Events) -> anyhow::Result<ExitCode> {
    let root = super::root(global);
    let id = super::id(&flags.id)?;
    if flags.stats {
        return print(&format!("{}\n", container::stats(&root, &id)?));
    }
    let interval = duration(&flags.interval).context("--interval")?;
    container::follow(&root, &id, interval, |event| {
        print(&format!("{event}\n"))
            .map(drop)
            .map_err(|error| container::Error::new("report", error))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `5s`, `500ms`, `1m`, as Go writes durations of one unit.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let wanted = humantime::parse_duration(text).with_context(|| format!("`{text}`"))?;
    if wanted.is_zero() {
        bail!("`{text}` is no time");
    }
    Ok(wanted)
}
