//! `floe group set`, `floe group get`

use anyhow::{Result, bail};
use cgroup::vocabulary::{Key, Reading, Unit, entries};
use cgroup::{Group, Name};
use clap::Args;
use serde_json::{Map, Value, json};

use super::book::{Asked, Book};
use super::change::{Change, Wish};
use super::{Groups, is_containers};
use crate::output::{self, Format};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Also the groups below it
    #[arg(short, long)]
    recursive: bool,
    /// Leave out, with a note, what this host lacks
    #[arg(long)]
    lenient: bool,
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// Values, such as memory.max=512M or cpu.max=default; `floe group keys` lists the keys
    #[arg(required = true, value_name = "KEY=VALUE")]
    values: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let groups = Groups::open()?;
    let name = Name::parse(&flags.name)?;
    let assignments = super::assignments(&flags.values)?;
    let change = Change::begin(&groups)?;
    let mut wishes = Vec::new();
    for name in groups.chosen(&name, flags.recursive)? {
        refuse_containers(&name)?;
        wishes.push(Wish {
            lenient: flags.lenient,
            ..Wish::new(name, assignments.clone())
        });
    }
    change.carry_out(&wishes)?;
    Ok(0)
}

/// A container's values are the runtime's; changed here, its next start would not know of them.
pub(super) fn refuse_containers(name: &Name) -> Result<()> {
    if is_containers(name) {
        bail!("group `{name}` is a container's\n`floe update` changes its limits");
    }
    Ok(())
}

#[derive(Debug, Args)]
pub(crate) struct GetFlags {
    /// Also the groups below it
    #[arg(short, long)]
    recursive: bool,
    /// Also what this host lacks
    #[arg(short, long)]
    all: bool,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// Keys, such as memory.max; all if none is given
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
}

/// A key of a group: what was asked for, what there is, and why they differ.
#[derive(Debug)]
struct Line {
    group: String,
    key: String,
    requested: Option<String>,
    value: Option<String>,
    effective: Option<String>,
    note: String,
}

pub(crate) fn get(flags: &GetFlags) -> Result<u8> {
    let groups = Groups::open()?;
    let book = Book::read(&groups.store)?;
    let name = Name::parse(&flags.name)?;
    let mut lines = Vec::new();
    for name in groups.chosen(&name, flags.recursive)? {
        let group = groups.find(&name)?;
        for key in keys(&group, &flags.keys)? {
            let record = book.record(name.as_str(), group.identity());
            let asked = record.and_then(|record| record.values.get(&key.to_string()));
            let line = Line::of(&name, &group, &key, asked);
            if line.effective.is_some() || flags.all || !flags.keys.is_empty() {
                lines.push(line);
            }
        }
    }
    if flags.format == Format::Json {
        output::json(&json(&lines))?;
        return Ok(0);
    }
    let several = flags.recursive;
    let rows = lines
        .into_iter()
        .map(|line| line.row(several))
        .collect::<Vec<_>>();
    let head = ["GROUP", "KEY", "REQUESTED", "EFFECTIVE", "NOTE"];
    let head = if several { &head[..] } else { &head[1..] };
    output::print(&text::table(head, &rows))?;
    Ok(0)
}

/// The keys asked for, or all, with one for each size of huge pages.
fn keys(group: &Group, texts: &[String]) -> Result<Vec<Key>> {
    if !texts.is_empty() {
        return Ok(texts
            .iter()
            .map(|text| Key::parse(text))
            .collect::<Result<_, _>>()?);
    }
    let sizes = group.page_sizes();
    let mut all = Vec::new();
    for entry in entries() {
        if !entry.name.contains('*') {
            all.push(Key::parse(entry.name)?);
            continue;
        }
        for size in &sizes {
            all.push(Key::parse(&entry.name.replace('*', size))?);
        }
    }
    Ok(all)
}

impl Line {
    fn of(name: &Name, group: &Group, key: &Key, asked: Option<&Asked>) -> Self {
        let unit = key.entry().map_or(Unit::Text, |entry| entry.unit);
        let mut line = Self {
            group: name.to_string(),
            key: key.to_string(),
            requested: asked.map(|asked| asked.requested.clone()),
            value: None,
            effective: None,
            note: String::new(),
        };
        match group.value(key) {
            Reading::Lacks(why) => line.note = why,
            Reading::Has {
                value,
                effective,
                bounded_by,
            } => {
                let value = value.print(unit);
                line.note = note(asked, &value);
                if let Some(level) = bounded_by {
                    line.note = format!("bounded by `{}`", above(name, level));
                }
                line.value = Some(value);
                line.effective = Some(effective.print(unit));
            }
        }
        line
    }

    fn row(self, several: bool) -> Vec<String> {
        let dash = || "-".to_owned();
        let mut row = vec![
            self.key,
            self.requested.unwrap_or_else(dash),
            self.effective.unwrap_or_else(dash),
            self.note,
        ];
        if several {
            row.insert(0, self.group);
        }
        row
    }
}

/// Why the group's own value is not the one that was asked for.
fn note(asked: Option<&Asked>, value: &str) -> String {
    let Some(asked) = asked.filter(|asked| asked.requested != value) else {
        return String::new();
    };
    let inherited = asked.requested == "inherit";
    if asked.set == value && inherited {
        "as the group above it".to_owned()
    } else if asked.set == value || inherited {
        "as near as the kernel has it".to_owned()
    } else {
        format!("was {}, and was changed since", asked.set)
    }
}

fn above(name: &Name, level: usize) -> String {
    let mut at = Some(name.clone());
    for _ in 0..level {
        at = at.and_then(|name| name.parent());
    }
    at.map_or("the groups above floe's".to_owned(), |name| {
        name.to_string()
    })
}

fn json(lines: &[Line]) -> Value {
    let mut groups = Map::new();
    for line in lines {
        let group = groups
            .entry(line.group.clone())
            .or_insert_with(|| json!({}));
        group[&line.key] = json!({
            "requested": line.requested,
            "value": line.value,
            "effective": line.effective,
            "note": (!line.note.is_empty()).then_some(&line.note),
        });
    }
    groups.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_explained() {
        let asked = |requested: &str, set: &str| Asked {
            requested: requested.to_owned(),
            set: set.to_owned(),
            defined: false,
        };
        for (asked, value, expected) in [
            (None, "1M", ""),
            (Some(asked("1M", "1M")), "1M", ""),
            (
                Some(asked("1000000", "976K")),
                "976K",
                "as near as the kernel has it",
            ),
            (
                Some(asked("1M", "1M")),
                "2M",
                "was 1M, and was changed since",
            ),
            (
                Some(asked("inherit", "0-3")),
                "0-3",
                "as the group above it",
            ),
        ] {
            assert_eq!(note(asked.as_ref(), value), expected, "{asked:?} {value}");
        }
    }

    #[test]
    fn the_group_that_bounds_has_a_name() {
        let name = Name::parse("web/api").unwrap();
        assert_eq!(above(&name, 1), "web");
        assert_eq!(above(&name, 2), "the groups above floe's");
    }
}
