//! `floe group rm`

use anyhow::{Result, bail};
use cgroup::Name;
use clap::Args;
use rustix::process::Signal;

use super::change::Change;
use super::{Groups, is_containers};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Also the groups below it
    #[arg(short, long)]
    recursive: bool,
    /// Kill the processes that are in it
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let groups = Groups::open()?;
    let mut code = 0;
    for name in super::names(&flags.names)? {
        if let Err(error) = remove(&groups, &name, flags) {
            output::error(&error);
            code = 1;
        }
    }
    Ok(code)
}

/// Looks first: what cannot be removed in whole is not begun.
fn remove(groups: &Groups, name: &Name, flags: &Flags) -> Result<()> {
    let change = Change::begin(groups)?;
    let group = groups.find(name)?;
    let below = groups.below(Some(name));
    if let Some(container) = std::iter::once(name)
        .chain(&below)
        .find(|name| is_containers(name))
    {
        bail!("remove group `{name}`: `{container}` is a container's\n`floe rm` removes it");
    }
    if !below.is_empty() && !flags.recursive {
        bail!(
            "remove group `{name}`: it has groups below it ({})\n`--recursive` removes those too",
            below.len()
        );
    }
    let living = group.procs_recursive()?.len();
    if living > 0 && !flags.force {
        bail!("remove group `{name}`: it has processes ({living})\n`--force` kills them");
    }
    // Also processes that are in one hierarchy's group only.
    if flags.force {
        group.kill(Signal::KILL)?;
    }
    let mut all = vec![name.clone()];
    all.extend(below);
    super::account::write_down(groups, &change.book, &all);
    change.remove(&all)
}
