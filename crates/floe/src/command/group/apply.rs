//! `floe group apply`, `floe group diff`

use std::path::PathBuf;

use anyhow::{Result, bail};
use cgroup::vocabulary::{Assignment, Key, Reading, Unit};
use cgroup::{Group, Name};
use clap::Args;
use serde_json::{Value, json};

use super::book::Book;
use super::change::{Change, Wish, user, user_name};
use super::definition::{Definition, Difference, differences, directory, read};
use super::{Groups, is_containers};
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Directory with definitions, *.toml
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only look whether all could be done
    #[arg(long)]
    check: bool,
    /// Leave out, with a note, what this host lacks
    #[arg(long)]
    lenient: bool,
    /// Remove groups that are no longer defined, if no process is in them
    #[arg(long)]
    prune: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffFlags {
    /// Directory with definitions, *.toml
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave out what this host lacks
    #[arg(long)]
    lenient: bool,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

type Differences = Vec<(Name, Difference)>;

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let groups = Groups::open()?;
    let definitions = read(&directory(flags.dir.as_deref(), groups.rootless))?;
    if flags.check {
        let book = Book::read(&groups.store)?;
        let found = all(&groups, &book, &definitions, flags.lenient)?;
        if !flags.lenient {
            possible(&groups, &definitions)?;
        }
        prunable(&groups, &found, flags.prune)?;
        return show(&found, Format::Table).map(|()| 0);
    }
    let change = Change::begin(&groups)?;
    let found = all(&groups, &change.book, &definitions, flags.lenient)?;
    let undefined = prunable(&groups, &found, flags.prune)?;
    let mut wishes = wishes(&found)?;
    for wish in &mut wishes {
        wish.lenient = flags.lenient;
    }
    change.carry_out(&wishes)?;
    if !undefined.is_empty() {
        let change = Change::begin(&groups)?;
        super::account::write_down(&groups, &change.book, &undefined);
        change.remove(&undefined)?;
    }
    show(&found, Format::Table)?;
    Ok(0)
}

pub(crate) fn diff(flags: &DiffFlags) -> Result<u8> {
    let groups = Groups::open()?;
    let definitions = read(&directory(flags.dir.as_deref(), groups.rootless))?;
    let book = Book::read(&groups.store)?;
    let found = all(&groups, &book, &definitions, flags.lenient)?;
    show(&found, flags.format)?;
    Ok(u8::from(!found.is_empty()))
}

fn all(
    groups: &Groups,
    book: &Book,
    definitions: &[Definition],
    lenient: bool,
) -> Result<Differences> {
    let mut found = Vec::new();
    for definition in definitions {
        let name = &definition.name;
        super::set::refuse_containers(name)?;
        let group = groups.find(name).ok();
        if group.is_none() {
            found.push((name.clone(), Difference::Missing));
        }
        let identity = group.as_ref().and_then(Group::identity);
        let record = book.record(name.as_str(), identity);
        let user = definition.delegate.as_deref().map(user).transpose()?;
        let present = |assignment: &Assignment| {
            let unit = assignment
                .key
                .entry()
                .map_or(Unit::Text, |entry| entry.unit);
            match group.as_ref()?.value(&assignment.key) {
                Reading::Has { value, .. } => Some(value.print(unit)),
                Reading::Lacks(_) => None,
            }
        };
        let mut own = differences(definition, user, record, present);
        // What a new group lacks is seen when it is there.
        own.retain(|difference| match difference {
            Difference::Value { from, .. } => !lenient || group.is_none() || from.is_some(),
            _ => true,
        });
        found.extend(own.into_iter().map(|difference| (name.clone(), difference)));
        // Also a group without values is remembered as defined.
        if group.is_some() && record.is_none_or(|record| !record.defined) {
            found.push((name.clone(), Difference::Unclaimed));
        }
    }
    for (text, record) in &book.groups {
        let name = Name::parse(text)?;
        let defined = definitions.iter().any(|definition| definition.name == name);
        let exists = groups
            .find(&name)
            .is_ok_and(|group| group.identity() == Some(record.identity));
        if record.defined && exists && !defined {
            found.push((name, Difference::Undefined));
        }
    }
    Ok(found)
}

/// Looks whether the host has all that is defined. A group that is not there yet is judged by
/// the nearest one above it.
fn possible(groups: &Groups, definitions: &[Definition]) -> Result<()> {
    for definition in definitions {
        let mut name = Some(definition.name.clone());
        while let Some(at) = name {
            if let Ok(group) = groups.find(&at) {
                group.plan_values(&definition.assignments)?;
                break;
            }
            name = at.parent();
        }
    }
    Ok(())
}

/// The groups that are no longer defined, if they are to go; one with processes is in the way of
/// all, and so is one with groups below it that stay.
fn prunable(groups: &Groups, found: &Differences, prune: bool) -> Result<Vec<Name>> {
    if !prune {
        return Ok(Vec::new());
    }
    let undefined = found
        .iter()
        .filter(|(_, difference)| *difference == Difference::Undefined);
    let undefined: Vec<Name> = undefined.map(|(name, _)| name.clone()).collect();
    for name in &undefined {
        if !groups.find(name)?.procs_recursive()?.is_empty() {
            bail!("remove group `{name}`: it has processes");
        }
        if let Some(below) = groups
            .below(Some(name))
            .iter()
            .find(|below| !undefined.contains(below))
        {
            let what = if is_containers(below) {
                "container's group"
            } else {
                "group"
            };
            bail!("remove group `{name}`: the {what} `{below}` is below it");
        }
    }
    Ok(undefined)
}

fn wishes(found: &Differences) -> Result<Vec<Wish>> {
    let mut wishes: Vec<Wish> = Vec::new();
    for (name, difference) in found {
        if *difference == Difference::Undefined {
            continue;
        }
        let at = match wishes.iter().position(|wish| wish.name == *name) {
            Some(at) => at,
            None => {
                wishes.push(Wish {
                    defined: true,
                    ..Wish::new(name.clone(), Vec::new())
                });
                wishes.len() - 1
            }
        };
        let wish = &mut wishes[at];
        match difference {
            Difference::Missing | Difference::Unclaimed | Difference::Undefined => {}
            Difference::Value { assignment, .. } => wish.assignments.push(assignment.clone()),
            Difference::NoValue { key, .. } => {
                wish.assignments
                    .push(Assignment::new(Key::parse(key)?, "default")?);
            }
            Difference::User { to, .. } => wish.user = Some(*to),
        }
    }
    Ok(wishes)
}

fn show(found: &Differences, format: Format) -> Result<()> {
    if format == Format::Json {
        return output::json(&found.iter().map(json).collect::<Vec<_>>());
    }
    for (name, difference) in found {
        output::line(&line(name, difference))?;
    }
    Ok(())
}

fn line(name: &Name, difference: &Difference) -> String {
    let owner = |user: &Option<u32>| user.map_or("root".to_owned(), user_name);
    match difference {
        Difference::Missing => format!("+ {name}"),
        Difference::Unclaimed => format!("~ {name} (was made by hand)"),
        Difference::Value { assignment, from } => match from {
            None => format!("+ {name} {assignment}"),
            Some(from) => format!("~ {name} {assignment} (is {from})"),
        },
        Difference::NoValue { key, from } => format!("- {name} {key} (is {from})"),
        Difference::User { from, to } => {
            format!("~ {name} delegate={} (is {})", owner(to), owner(from))
        }
        Difference::Undefined => format!("- {name}"),
    }
}

fn json((name, difference): &(Name, Difference)) -> Value {
    let name = name.as_str();
    match difference {
        Difference::Missing => json!({ "group": name, "change": "create" }),
        Difference::Unclaimed => json!({ "group": name, "change": "claim" }),
        Difference::Value { assignment, from } => json!({
            "group": name, "change": "set", "key": assignment.key.to_string(),
            "to": assignment.text(), "from": from,
        }),
        Difference::NoValue { key, from } => json!({
            "group": name, "change": "reset", "key": key, "from": from,
        }),
        Difference::User { from, to } => json!({
            "group": name, "change": "delegate", "to": to, "from": from,
        }),
        Difference::Undefined => json!({ "group": name, "change": "remove" }),
    }
}
