//! `floe group ls`, `floe group tree`

use anyhow::Result;
use cgroup::Name;
use clap::Args;
use serde_json::json;

use super::book::{Book, Record};
use super::change::user_name;
use super::{Groups, is_containers};
use crate::output::{self, Format};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Also the groups of containers
    #[arg(short, long)]
    all: bool,
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only this group and those below it
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TreeFlags {
    /// Also the groups of containers
    #[arg(short, long)]
    all: bool,
    /// Only this group and those below it
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// One group as it is listed.
#[derive(Debug)]
struct Line {
    name: Name,
    processes: usize,
    user: Option<u32>,
    frozen: bool,
    values: Vec<(String, String)>,
    container: Option<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let lines = lines(flags.name.as_deref(), flags.all)?;
    if flags.quiet {
        for line in &lines {
            output::line(line.name.as_str())?;
        }
        return Ok(0);
    }
    match flags.format {
        Format::Json => output::json(&lines.iter().map(Line::json).collect::<Vec<_>>())?,
        Format::Table => {
            let rows: Vec<_> = lines.iter().map(Line::row).collect();
            let head = ["NAME", "PROCESSES", "USER", "STATE", "VALUES"];
            output::print(&text::table(&head, &rows))?;
        }
    }
    Ok(0)
}

pub(crate) fn tree(flags: &TreeFlags) -> Result<u8> {
    let lines = lines(flags.name.as_deref(), flags.all)?;
    let top = lines
        .iter()
        .map(|line| depth(&line.name))
        .min()
        .unwrap_or(0);
    for line in &lines {
        let part = line.name.as_str().rsplit('/').next().unwrap_or_default();
        let shown = line.container.as_deref().unwrap_or(part);
        let indent = "  ".repeat(depth(&line.name) - top);
        let name = if depth(&line.name) == top {
            line.name.as_str()
        } else {
            shown
        };
        let mut words = vec![format!("{indent}{}", text::plain(name))];
        if line.processes > 0 {
            let plural = if line.processes == 1 { "" } else { "es" };
            words.push(format!("({} process{plural})", line.processes));
        }
        if line.frozen {
            words.push("frozen".to_owned());
        }
        words.push(line.values());
        output::line(words.join(" ").trim_end())?;
    }
    Ok(0)
}

fn depth(name: &Name) -> usize {
    name.as_str().matches('/').count()
}

fn lines(name: Option<&str>, all: bool) -> Result<Vec<Line>> {
    let groups = Groups::open()?;
    let book = Book::read(&groups.store)?;
    let containers = groups.store.all()?;
    let mut names = match name {
        Some(text) => {
            let name = Name::parse(text)?;
            groups.find(&name)?;
            let below = groups.below(Some(&name));
            std::iter::once(name).chain(below).collect()
        }
        None => groups.below(None),
    };
    names.retain(|name| all || !is_containers(name));
    let line = |name: Name| {
        let group = groups.find(&name).ok()?;
        let record = book.record(name.as_str(), group.identity());
        let part = name.as_str().rsplit('/').next().unwrap_or_default();
        let container = containers.iter().find(|found| found.record.id == part);
        Some(Line {
            processes: group.procs().map_or(0, |pids| pids.len()),
            user: record.and_then(|record| record.user),
            frozen: group
                .frozen()
                .is_ok_and(|state| state == cgroup::group::Frozen::Yes),
            values: record.map(values).unwrap_or_default(),
            container: container.map(|container| container.record.name.clone()),
            name,
        })
    };
    // One that has gone meanwhile is not listed.
    let mut lines: Vec<Line> = names.into_iter().filter_map(line).collect();
    // v1 says so of the groups below a frozen one too, v2 does not.
    let frozen: Vec<Name> = lines
        .iter()
        .filter(|line| line.frozen)
        .map(|line| line.name.clone())
        .collect();
    for line in &mut lines {
        line.frozen |= frozen.iter().any(|above| line.name.is_below(above));
    }
    Ok(lines)
}

fn values(record: &Record) -> Vec<(String, String)> {
    let values = record.values.iter();
    values
        .map(|(key, asked)| (key.clone(), asked.requested.clone()))
        .collect()
}

impl Line {
    fn values(&self) -> String {
        let words: Vec<String> = self
            .values
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        words.join(" ")
    }

    fn json(&self) -> serde_json::Value {
        let values: std::collections::BTreeMap<_, _> = self.values.iter().cloned().collect();
        json!({
            "name": self.name.as_str(),
            "processes": self.processes,
            "user": self.user,
            "frozen": self.frozen,
            "container": self.container,
            "values": values,
        })
    }

    fn row(&self) -> Vec<String> {
        let mut values = self.values();
        if let Some(container) = &self.container {
            values = format!("container {container}");
        }
        vec![
            self.name.to_string(),
            self.processes.to_string(),
            self.user.map_or("-".to_owned(), user_name),
            if self.frozen { "frozen" } else { "-" }.to_owned(),
            values,
        ]
    }
}
