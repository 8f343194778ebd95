//! `floe group`: resource groups, with and without containers in them.

pub(crate) mod account;
mod apply;
mod book;
mod change;
mod create;
mod definition;
mod delegate;
mod keys;
mod ls;
mod process;
mod rm;
mod set;
mod state;
mod stats;

use anyhow::{Result, anyhow, bail};
use cgroup::vocabulary::Assignment;
use cgroup::{Group, Layout, Name};
use clap::{Args, Subcommand};

use crate::store::Store;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Command,
}

macro_rules! commands {
    ($($(#[$attribute:meta])* $variant:ident => $run:path, $flags:ty);* $(;)?) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($(#[$attribute])* $variant($flags)),*
        }

        pub(crate) fn run(flags: &Flags) -> Result<u8> {
            match &flags.command {
                $(Command::$variant(flags) => $run(flags)),*
            }
        }
    };
}

commands! {
    /// Make groups, with those above them that are missing
    Create => create::run, create::Flags;
    /// List groups
    Ls => ls::run, ls::Flags;
    /// Show groups as a tree
    Tree => ls::tree, ls::TreeFlags;
    /// Set values of a group: all of them, or on any failure none
    Set => set::run, set::Flags;
    /// Show values of groups: asked for and effective
    Get => set::get, set::GetFlags;
    /// Make groups as files describe them: all of them, or on any failure none
    Apply => apply::run, apply::Flags;
    /// Show how groups differ from what files describe; the status is 1 if they do
    Diff => apply::diff, apply::DiffFlags;
    /// List the keys that groups have
    Keys => keys::run, keys::Flags;
    /// Show what groups use
    Stats => stats::run, stats::Flags;
    /// Show what groups and containers have used, also after their end
    Account => account::run, account::Flags;
    /// Move processes into a group
    Move => process::run_move, process::MoveFlags;
    /// Run a program in a group
    Run => process::run, process::Flags;
    /// Hold all processes of groups
    Freeze => state::freeze, state::Flags;
    /// Let the processes of frozen groups go on
    Thaw => state::thaw, state::Flags;
    /// Send a signal to all processes of groups
    Kill => state::kill, state::KillFlags;
    /// Let a user make groups below a group, but not change its values
    Delegate => delegate::run, delegate::Flags;
    /// Remove groups
    Rm => rm::run, rm::Flags;
}

/// This host's groups, as far as the caller has a say in them.
#[derive(Debug)]
struct Groups {
    layout: Layout,
    store: Store,
    rootless: bool,
}

impl Groups {
    /// Finds the groups, and repairs what a floe left that was killed while it changed them.
    fn open() -> Result<Self> {
        let groups = Self {
            layout: Layout::detect()?,
            store: Store::open()?,
            rootless: !is_host_root(),
        };
        let writable = |found: &cgroup::layout::Hierarchy| !found.read_only;
        if !groups
            .layout
            .v1
            .iter()
            .chain(&groups.layout.v2)
            .any(writable)
        {
            bail!("find groups: no cgroup file system is mounted that may be written");
        }
        change::repair(&groups)?;
        Ok(groups)
    }

    /// Where a group is or would be.
    fn named(&self, name: &Name) -> Group {
        Group::named(&self.layout, name, self.rootless)
    }

    /// A group that exists.
    fn find(&self, name: &Name) -> Result<Group> {
        let found = Group::find(&self.layout, name, self.rootless);
        found.ok_or_else(|| anyhow!("no group `{name}`\n`floe group ls` lists them"))
    }

    fn exists(&self, name: &Name) -> bool {
        Group::find(&self.layout, name, self.rootless).is_some()
    }

    /// The groups below one, or below floe's base, each after the one above it.
    fn below(&self, name: Option<&Name>) -> Vec<Name> {
        let mut all = Vec::new();
        for child in Group::children(&self.layout, name, self.rootless) {
            let deeper = self.below(Some(&child));
            all.push(child);
            all.extend(deeper);
        }
        all
    }

    /// The group, and with `recursive` those below it, without containers'.
    fn chosen(&self, name: &Name, recursive: bool) -> Result<Vec<Name>> {
        self.find(name)?;
        let mut all = vec![name.clone()];
        if recursive {
            all.extend(
                self.below(Some(name))
                    .into_iter()
                    .filter(|name| !is_containers(name)),
            );
        }
        Ok(all)
    }
}

/// Root of the host, not of a user namespace, whose root may do with groups what its user may.
fn is_host_root() -> bool {
    let whole = |text: String| {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        fields == ["0", "0", "4294967295"]
    };
    rustix::process::geteuid().is_root()
        && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}

/// Whether a group, or one above it, is a container's: those are named by ids.
fn is_containers(name: &Name) -> bool {
    let is_id = |part: &str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    name.as_str().split('/').any(is_id)
}

fn names(texts: &[String]) -> Result<Vec<Name>> {
    Ok(texts
        .iter()
        .map(|text| Name::parse(text))
        .collect::<Result<_, _>>()?)
}

/// `KEY=VALUE` words; devices may be given by their paths.
fn assignments(texts: &[String]) -> Result<Vec<Assignment>> {
    texts.iter().map(|text| assignment(text)).collect()
}

fn assignment(text: &str) -> Result<Assignment> {
    let words: Result<Vec<String>> = text.split(' ').map(device_number).collect();
    Ok(Assignment::parse(&words?.join(" "))?)
}

/// `/dev/sda` as `8:0`, also after `io.max=`; other words as they are.
fn device_number(word: &str) -> Result<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let (before, path) = match word.split_once('=') {
        Some((key, path)) if path.starts_with("/dev/") => (format!("{key}="), path),
        _ if word.starts_with("/dev/") => (String::new(), word),
        _ => return Ok(word.to_owned()),
    };
    let metadata = std::fs::metadata(path).map_err(|error| anyhow!("device `{path}`: {error}"))?;
    if !metadata.file_type().is_block_device() {
        bail!("device `{path}`: not a block device");
    }
    let (major, minor) = (
        rustix::fs::major(metadata.rdev()),
        rustix::fs::minor(metadata.rdev()),
    );
    Ok(format!("{before}{major}:{minor}"))
}
