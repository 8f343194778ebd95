//! `floe events`

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use clap::Args;
use monitor::clock::Moment;
use serde_json::Value;

use crate::output::{self, Format};
use crate::store::Store;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Also those since a time (2026-11-22T03:04:05Z) or a span back (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End at this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only those with container=…, event=… (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show those there are and end
    #[arg(long)]
    no_stream: bool,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let path = store.events();
    let since = match &flags.since {
        Some(text) => super::logs::moment(text)?,
        None if flags.no_stream => Moment(0),
        None => Moment::now(),
    };
    let until = flags
        .until
        .as_deref()
        .map(super::logs::moment)
        .transpose()?;
    let filters = flags
        .filter
        .iter()
        .map(|text| filter(&store, text))
        .collect::<Result<Vec<_>>>()?;
    let mut text = std::fs::read(path.with_extension("1")).unwrap_or_default();
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(&path)
        .with_context(|| format!("open `{}`", path.display()))?;
    loop {
        file.read_to_end(&mut text).context("read events")?;
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        for line in text[..whole].split(|byte| *byte == b'\n') {
            let Ok(event) = serde_json::from_slice::<Value>(line) else {
                continue;
            };
            let time = event["time"].as_str().and_then(Moment::parse);
            let in_time =
                time.is_some_and(|time| time >= since && until.is_none_or(|until| time < until));
            if in_time
                && filters
                    .iter()
                    .all(|(key, value)| matches(&event, key, value))
            {
                show(&event, flags.format)?;
            }
        }
        text.drain(..whole);
        if flags.no_stream || until.is_some_and(|until| Moment::now() >= until) {
            return Ok(0);
        }
        // One look per tenth of a second costs nothing, and needs no watch that can be lost when
        // the file is begun anew.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let named = std::fs::metadata(&path).map(|metadata| metadata.ino());
        if named.is_ok_and(|ino| file.metadata().is_ok_and(|open| open.ino() != ino)) {
            file.read_to_end(&mut text).context("read events")?;
            file = File::open(&path).with_context(|| format!("open `{}`", path.display()))?;
        }
    }
}

fn filter(store: &Store, text: &str) -> Result<(&'static str, String)> {
    Ok(match text.split_once('=') {
        // One that is gone has no id any more to look up; its name or id is compared as given.
        Some(("container", name)) => match store.find(name) {
            Ok(container) => ("id", container.record.id),
            Err(_) => ("container", name.to_owned()),
        },
        Some(("event", action)) => ("action", action.to_owned()),
        _ => bail!("--filter `{text}`: container=… or event=…"),
    })
}

fn matches(event: &Value, key: &str, value: &str) -> bool {
    match key {
        "container" => {
            event["name"] == value || event["id"].as_str().is_some_and(|id| id.starts_with(value))
        }
        _ => event[key] == value,
    }
}

fn show(event: &Value, format: Format) -> Result<()> {
    if format == Format::Json {
        return output::json_line(event);
    }
    let field = |key: &str| event[key].as_str().unwrap_or("");
    let id = field("id");
    let more: Vec<String> = event
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !["time", "id", "action"].contains(&key.as_str()))
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    let line = format!(
        "{} {} {} {}",
        field("time"),
        field("action"),
        id.get(..12).unwrap_or(id),
        more.join(" ")
    );
    output::line(crate::text::plain(&line).trim_end())
}
