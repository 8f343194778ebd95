//! `floe ps`

use anyhow::{Result, bail};
use clap::Args;
use monitor::clock::Moment;
use serde_json::{Value, json};

use crate::output::{self, Format};
use crate::store::Store;
use crate::store::container::{Container, State, Word};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only those with name=…, id=…, status=… or label=KEY[=VALUE] (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    store.sweep();
    let filters = flags
        .filter
        .iter()
        .map(|text| Filter::parse(text))
        .collect::<Result<Vec<_>>>()?;
    let any_state = flags.all
        || filters
            .iter()
            .any(|filter| matches!(filter, Filter::Status(_)));
    let mut shown = Vec::new();
    for container in store.all()? {
        // One that is being removed is not worth an error for all.
        let Ok(state) = container.state(&store) else {
            continue;
        };
        let wanted = any_state || state.word.is_live();
        if wanted
            && filters
                .iter()
                .all(|filter| filter.matches(&container, state.word))
        {
            shown.push((container, state));
        }
    }
    shown.sort_by(|a, b| b.0.record.created.cmp(&a.0.record.created));
    if flags.quiet {
        for (container, _) in &shown {
            let id = &container.record.id;
            output::line(if flags.no_trunc {
                id
            } else {
                container.short_id()
            })?;
        }
        return Ok(0);
    }
    match flags.format {
        Format::Json => output::json(&shown.iter().map(|(c, s)| entry(c, s)).collect::<Vec<_>>())?,
        Format::Table => {
            let now = Moment::now();
            let rows: Vec<_> = shown
                .iter()
                .map(|(c, s)| row(c, s, now, flags.no_trunc))
                .collect();
            let head = [
                "CONTAINER ID",
                "IMAGE",
                "COMMAND",
                "CREATED",
                "STATUS",
                "NAME",
            ];
            output::print(&text::table(&head, &rows))?;
        }
    }
    Ok(0)
}

#[derive(Debug)]
enum Filter {
    Name(String),
    Id(String),
    Status(String),
    Label(String, Option<String>),
}

impl Filter {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text.split_once('=') {
            Some(("name", name)) => Self::Name(name.to_owned()),
            Some(("id", id)) => Self::Id(id.to_owned()),
            Some(("status", status)) => Self::Status(status.to_owned()),
            Some(("label", label)) => match label.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(label.to_owned(), None),
            },
            _ => bail!("--filter `{text}`: name=…, id=…, status=… or label=…"),
        })
    }

    fn matches(&self, container: &Container, word: Word) -> bool {
        let record = &container.record;
        match self {
            Self::Name(name) => record.name.contains(name.as_str()),
            Self::Id(id) => record.id.starts_with(id.as_str()),
            Self::Status(status) => word.name() == status,
            Self::Label(key, value) => record
                .labels
                .get(key)
                .is_some_and(|label| value.as_ref().is_none_or(|value| value == label)),
        }
    }
}

/// A container for programs.
pub(super) fn entry(container: &Container, state: &State) -> Value {
    let record = &container.record;
    json!({
        "id": record.id,
        "name": record.name,
        "image": record.image,
        "command": record.command,
        "created": record.created,
        "status": state.word.name(),
        "pid": state.pid,
        "started": state.started,
        "restarts": state.restarts,
        "exitCode": state.exit.as_ref().filter(|_| !state.word.is_live()).map(|exit| exit.code),
        "labels": record.labels,
    })
}

fn row(container: &Container, state: &State, now: Moment, whole: bool) -> Vec<String> {
    let record = &container.record;
    let mut command = record.command.join(" ");
    if !whole && command.chars().count() > 30 {
        command = command.chars().take(29).chain(['…']).collect();
    }
    let ago =
        |text: &str| Moment::parse(text).map(|then| text::span(now.seconds() - then.seconds()));
    let status = match (state.word, &state.exit) {
        (Word::Running | Word::Paused, _) => {
            let up = format!("Up {}", ago(&state.started).unwrap_or_default());
            if state.word == Word::Paused {
                format!("{up} (paused)")
            } else {
                up
            }
        }
        (Word::Restarting, Some(exit)) => format!("Restarting ({})", exit.code),
        (Word::Exited, Some(exit)) => format!(
            "Exited ({}) {} ago",
            exit.code,
            ago(&exit.finished).unwrap_or_default()
        ),
        (Word::Created | Word::Restarting | Word::Exited, _) => "Created".to_owned(),
    };
    vec![
        if whole {
            record.id.clone()
        } else {
            container.short_id().to_owned()
        },
        record.image.clone(),
        command,
        ago(&record.created)
            .map(|ago| format!("{ago} ago"))
            .unwrap_or_default(),
        status,
        record.name.clone(),
    ]
}
