//! `floe group account`: what groups and containers have used, also after their end.
//!
//! An entry is written when a group is removed and when a run of a container ends, and holds the
//! whole of it. A group's numbers contain those of all groups below it, so a sum by user leaves
//! out what lies within another entry of the same user.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use cgroup::stats::Totals;
use cgroup::{Group, Name};
use clap::{Args, ValueEnum};
use monitor::account::{Entry, append};
use monitor::clock::Moment;
use serde::{Deserialize, Serialize};

use super::book::Book;
use super::change::user_name;
use super::stats::cpu_time;
use super::{Groups, is_containers};
use crate::output::{self, Format};
use crate::store::Store;
use crate::store::container::Container;
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Leave out what ended before: a time span such as 24h or 7d, or a moment such as
    /// 2026-11-22T03:04:05Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Add up
    #[arg(long, value_enum, value_name = "WHAT")]
    by: Option<By>,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What the sums are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// For each user: all groups and containers
    User,
    /// For each group name
    Group,
    /// For each container
    Container,
}

/// A line of the account, or a sum of several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    kind: String,
    name: String,
    id: String,
    path: String,
    user: u32,
    started: String,
    /// `None` = it still exists.
    ended: Option<String>,
    /// How many entries are in a sum.
    entries: u64,
    cpu_nanoseconds: u64,
    user_nanoseconds: u64,
    system_nanoseconds: u64,
    memory_peak_bytes: u64,
    oom_kills: u64,
    read_bytes: u64,
    written_bytes: u64,
    reads: u64,
    writes: u64,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let since = flags.since.as_deref().map(moment).transpose()?;
    let groups = Groups::open()?;
    let mut lines = ended(&groups)?;
    lines.extend(living(&groups)?);
    if let Some(since) = since {
        let late = |text: &String| Moment::parse(text).is_none_or(|ended| ended >= since);
        lines.retain(|line| line.ended.as_ref().is_none_or(late));
    }
    let lines = match flags.by {
        None => lines,
        Some(by) => sums(lines, by),
    };
    match flags.format {
        Format::Json => output::json(&lines)?,
        Format::Table => output::print(&table(&lines, flags.by))?,
    }
    Ok(0)
}

/// Writes down what groups have used that are about to be removed.
pub(super) fn write_down(groups: &Groups, book: &Book, names: &[Name]) {
    for name in names {
        let Ok(group) = groups.find(name) else {
            continue;
        };
        let Some((line, totals)) = living_group(book, name, &group) else {
            continue;
        };
        let entry = Entry {
            kind: "group",
            name: &line.name,
            id: &line.id,
            path: &line.path,
            user: line.user,
            started: &line.started,
            numbers: &totals.named(),
        };
        // A full disk does not keep a group from being removed.
        if let Err(error) = append(&groups.store.account(), &entry) {
            output::note(&format!("account of group `{name}`: {error}"));
        }
    }
}

/// Writes down what a container has used whose monitor was killed before it could.
pub(crate) fn write_down_container(container: &Container, store: &Store, started: &str) {
    let find = || {
        let name = Name::parse(&container.record.id).ok()?;
        let rootless = !super::is_host_root();
        let group = Group::find(&cgroup::Layout::detect().ok()?, &name, rootless)?;
        let totals = Totals::of(&group.stats().ok()?);
        Some((group.path()?.display().to_string(), totals))
    };
    // Where the group is elsewhere, or gone, this run has no entry.
    let Some((path, totals)) = find() else { return };
    let entry = Entry {
        kind: "container",
        name: &container.record.name,
        id: &container.record.id,
        path: &path,
        user: rustix::process::geteuid().as_raw(),
        started,
        numbers: &totals.named(),
    };
    // Accounts are for onlookers: a full disk keeps no container from being repaired.
    let _ = append(&store.account(), &entry);
}

/// A time span before now, or a moment.
fn moment(text: &str) -> Result<Moment> {
    let whole_day = || Moment::parse(&format!("{text}T00:00:00Z"));
    if let Some(moment) = Moment::parse(text).or_else(whole_day) {
        return Ok(moment);
    }
    let span = crate::parse::nanoseconds(text).map_err(|_| {
        anyhow!("--since `{text}`: a span such as 24h, or a moment such as 2026-11-22T03:04:05Z")
    })?;
    Ok(Moment(Moment::now().0 - i128::from(span)))
}

/// The entries of the account, the oldest first; twice the same (a removal that was repeated)
/// counts once.
fn ended(groups: &Groups) -> Result<Vec<Line>> {
    let path = groups.store.account();
    let mut lines: Vec<Line> = Vec::new();
    for path in [path.with_extension("1"), path] {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read `{}`", path.display())),
        };
        // A line that the machine's end cut short is passed over.
        for line in text
            .lines()
            .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        {
            let again = |other: &Line| {
                other.kind == line.kind && other.id == line.id && other.started == line.started
            };
            match lines.iter_mut().rev().take(1000).find(|other| again(other)) {
                Some(other) => *other = line,
                None => lines.push(line),
            }
        }
    }
    for line in &mut lines {
        line.entries = 1;
    }
    Ok(lines)
}

/// What exists now: groups, and containers that run.
fn living(groups: &Groups) -> Result<Vec<Line>> {
    let book = Book::read(&groups.store)?;
    let containers = groups.store.all()?;
    let mut lines = Vec::new();
    for name in groups.below(None) {
        let Ok(group) = groups.find(&name) else {
            continue;
        };
        let Some((mut line, _)) = living_group(&book, &name, &group) else {
            continue;
        };
        if is_containers(&name) {
            let id = name.as_str().rsplit('/').next().unwrap_or_default();
            // What a container has below its group is in its own numbers.
            let Some(container) = containers.iter().find(|found| found.record.id == id) else {
                continue;
            };
            let state = container.state(&groups.store)?;
            line.kind = "container".to_owned();
            line.name.clone_from(&container.record.name);
            id.clone_into(&mut line.id);
            line.started = state.started;
            line.user = rustix::process::geteuid().as_raw();
        }
        lines.push(line);
    }
    Ok(lines)
}

fn living_group(book: &Book, name: &Name, group: &Group) -> Option<(Line, Totals)> {
    let totals = Totals::of(&group.stats().ok()?);
    let identity = group.identity();
    let record = book.record(name.as_str(), identity);
    let owner = record.map_or(0, |record| record.user.unwrap_or(record.creator));
    let line = Line {
        kind: "group".to_owned(),
        name: name.to_string(),
        id: identity.unwrap_or_default().to_string(),
        path: group.path()?.display().to_string(),
        user: owner,
        started: record
            .map(|record| record.created.clone())
            .unwrap_or_default(),
        ended: None,
        entries: 1,
        cpu_nanoseconds: totals.cpu,
        user_nanoseconds: totals.cpu_user,
        system_nanoseconds: totals.cpu_system,
        memory_peak_bytes: totals.memory_peak,
        oom_kills: totals.oom_kills,
        read_bytes: totals.read,
        written_bytes: totals.written,
        reads: totals.reads,
        writes: totals.writes,
    };
    Some((line, totals))
}

fn sums(mut lines: Vec<Line>, by: By) -> Vec<Line> {
    match by {
        By::Container => lines.retain(|line| line.kind == "container"),
        By::Group => lines.retain(|line| line.kind == "group"),
        By::User => {
            let all = lines.clone();
            lines.retain(|line| !all.iter().any(|outer| contains(outer, line)));
        }
    }
    let mut sums: BTreeMap<String, Line> = BTreeMap::new();
    for line in lines {
        let key = match by {
            By::User => line.user.to_string(),
            By::Group => line.name.clone(),
            By::Container => line.id.clone(),
        };
        let sum = sums.entry(key).or_insert_with(|| Line {
            kind: line.kind.clone(),
            name: line.name.clone(),
            id: line.id.clone(),
            path: line.path.clone(),
            user: line.user,
            started: line.started.clone(),
            ended: line.ended.clone(),
            ..Line::default()
        });
        sum.add(&line);
        if by == By::User {
            sum.kind = "user".to_owned();
            sum.name = user_name(line.user);
            sum.id = line.user.to_string();
            sum.path = String::new();
        }
    }
    sums.into_values().collect()
}

/// Whether what one entry counted is in the other's numbers, and the other is the same user's.
fn contains(outer: &Line, inner: &Line) -> bool {
    let below = inner.path.strip_prefix(&outer.path);
    let lasted = match (&outer.ended, &inner.ended) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => inner <= outer,
    };
    outer.user == inner.user
        && below.is_some_and(|rest| rest.starts_with('/'))
        && outer.started <= inner.started
        && lasted
}

impl Line {
    fn add(&mut self, other: &Self) {
        self.entries += 1;
        self.started = self.started.clone().min(other.started.clone());
        self.ended = match (&self.ended, &other.ended) {
            (Some(own), Some(other)) => Some(own.max(other).clone()),
            _ => None,
        };
        // A peak of several is not their sum: they need not have been at the same time.
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
        for (own, other) in [
            (&mut self.cpu_nanoseconds, other.cpu_nanoseconds),
            (&mut self.user_nanoseconds, other.user_nanoseconds),
            (&mut self.system_nanoseconds, other.system_nanoseconds),
            (&mut self.oom_kills, other.oom_kills),
            (&mut self.read_bytes, other.read_bytes),
            (&mut self.written_bytes, other.written_bytes),
            (&mut self.reads, other.reads),
            (&mut self.writes, other.writes),
        ] {
            *own = own.saturating_add(other);
        }
    }

    fn row(&self) -> Vec<String> {
        let time = |text: &str| text.get(..19).unwrap_or(text).replace('T', " ");
        vec![
            self.name.clone(),
            self.kind.clone(),
            user_name(self.user),
            time(&self.started),
            self.ended.as_deref().map_or("-".to_owned(), time),
            cpu_time(self.cpu_nanoseconds),
            text::size(self.memory_peak_bytes),
            format!(
                "{} / {}",
                text::size(self.read_bytes),
                text::size(self.written_bytes)
            ),
            self.entries.to_string(),
        ]
    }
}

fn table(lines: &[Line], by: Option<By>) -> String {
    let mut head = vec![
        "NAME",
        "KIND",
        "USER",
        "STARTED",
        "ENDED",
        "CPU TIME",
        "PEAK",
        "READ / WRITTEN",
    ];
    let mut rows: Vec<Vec<String>> = lines.iter().map(Line::row).collect();
    if by.is_some() {
        head.push("ENTRIES");
    } else {
        for row in &mut rows {
            row.pop();
        }
    }
    text::table(&head, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str, user: u32, started: &str, ended: Option<&str>, cpu: u64) -> Line {
        Line {
            kind: "group".to_owned(),
            name: path.trim_start_matches('/').to_owned(),
            path: path.to_owned(),
            user,
            started: started.to_owned(),
            ended: ended.map(str::to_owned),
            entries: 1,
            cpu_nanoseconds: cpu,
            memory_peak_bytes: cpu,
            ..Line::default()
        }
    }

    #[test]
    fn what_lies_within_another_entry_of_the_user_counts_once() {
        let lines = vec![
            line("/a", 1, "1", None, 100),
            // In the numbers of /a, as long as it is the same user's and the same /a.
            line("/a/b", 1, "2", Some("3"), 10),
            line("/a/c", 2, "2", Some("3"), 7),
            line("/a/old", 1, "0", Some("1"), 5),
            line("/ab", 1, "2", Some("3"), 3),
        ];
        let sums = sums(lines.clone(), By::User);
        let numbers: Vec<(u32, u64, u64, u64)> = sums
            .iter()
            .map(|sum| {
                (
                    sum.user,
                    sum.cpu_nanoseconds,
                    sum.memory_peak_bytes,
                    sum.entries,
                )
            })
            .collect();
        assert_eq!(numbers, [(1, 108, 100, 3), (2, 7, 7, 1)]);
        assert_eq!(super::sums(lines, By::Group).len(), 5);
    }

    #[test]
    fn moments_are_spans_days_or_times() {
        assert!(moment("24h").unwrap() < Moment::now());
        assert_eq!(
            moment("2026-11-22").unwrap(),
            Moment::parse("2026-11-22T00:00:00Z").unwrap()
        );
        assert!(moment("yesterday").is_err());
    }
}
