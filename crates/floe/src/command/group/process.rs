//! `floe group move`, `floe group run`

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use cgroup::Name;
use clap::Args;
use rustix::process::{Pid, getpid};

use super::change::{Change, Wish};
use super::{Groups, set};

#[derive(Debug, Args)]
pub(crate) struct MoveFlags {
    /// Also their children, and those of their children
    #[arg(short, long)]
    recursive: bool,
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// Numbers of processes; their threads go with them
    #[arg(required = true, value_name = "PID")]
    pids: Vec<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Make the group if it is missing
    #[arg(short, long)]
    create: bool,
    /// Set a value of the group first (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

pub(crate) fn run_move(flags: &MoveFlags) -> Result<u8> {
    let groups = Groups::open()?;
    let name = Name::parse(&flags.name)?;
    set::refuse_containers(&name)?;
    let group = groups.find(&name)?;
    let mut code = 0;
    for number in &flags.pids {
        let moved = Pid::from_raw(*number)
            .filter(|_| *number > 0)
            .with_context(|| format!("`{number}` is not the number of a process"))
            .and_then(|pid| {
                group.admit(pid)?;
                if flags.recursive {
                    admit_children(&group, *number)?;
                }
                Ok(())
            });
        if let Err(error) = moved {
            crate::output::error(&error);
            code = 1;
        }
    }
    Ok(code)
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let groups = Groups::open()?;
    let name = Name::parse(&flags.name)?;
    set::refuse_containers(&name)?;
    if !flags.create {
        groups.find(&name)?;
    }
    if flags.create && !groups.exists(&name) || !flags.set.is_empty() {
        let wish = Wish::new(name.clone(), super::assignments(&flags.set)?);
        Change::begin(&groups)?.carry_out(&[wish])?;
    }
    groups.find(&name)?.admit(getpid())?;
    crate::command::ns::replace_by(&flags.command)
}

/// Moves all that descend from a process. A child that was born in the old group while its
/// parent was moved is found by the next look: once a look finds nobody new, every parent was in
/// the new group before that look began, and so is who is born after it.
fn admit_children(group: &cgroup::Group, ancestor: i32) -> Result<()> {
    let mut family = BTreeSet::from([ancestor]);
    loop {
        let parents = parents();
        let children: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| family.contains(parent) && !family.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if children.is_empty() {
            return Ok(());
        }
        for number in children {
            family.insert(number);
            let Some(pid) = Pid::from_raw(number) else {
                continue;
            };
            if let Err(error) = group.admit(pid)
                && error.errno() != Some(sys::Errno::SRCH)
            {
                return Err(error.into());
            }
        }
    }
}

/// Each process and its parent.
fn parents() -> Vec<(i32, i32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent = |pid: i32| {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // A name may contain anything, also a parenthesis: the last one ends it.
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = String::from_utf8_lossy(text.get(end + 1..)?).into_owned();
        let parent = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent))
    };
    pids.filter_map(parent).collect()
}
