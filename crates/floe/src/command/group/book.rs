//! What floe remembers of groups: `groups` in its runtime directory, one file for all.
//!
//! The file holds what was asked for, and while a command changes groups, how to take its work
//! back. It is replaced by renaming, so the command's last rename both remembers the new values
//! and forgets the way back: at that moment, and not before, the change has happened.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use monitor::files::replace;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::store::Store;

/// The groups' memory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Book {
    pub(super) groups: BTreeMap<String, Record>,
    /// What to undo, the last first; empty but while a command is at work.
    pub(super) journal: Vec<Undo>,
}

/// What is remembered of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    /// Tells the group from a later one of the same name.
    pub(super) identity: u64,
    /// RFC 3339.
    pub(super) created: String,
    /// Who made it.
    pub(super) creator: u32,
    /// To whom it is delegated.
    pub(super) user: Option<u32>,
    /// A definition file describes it.
    pub(super) defined: bool,
    pub(super) values: BTreeMap<String, Asked>,
}

/// A value that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Asked {
    pub(super) requested: String,
    /// What the kernel made of it.
    pub(super) set: String,
    /// By a definition file.
    pub(super) defined: bool,
}

/// One step back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "undo")]
pub(super) enum Undo {
    /// The group was made.
    Made { name: String },
    /// A file had this value. `place` is `v2`, or v1's controller.
    Wrote {
        name: String,
        place: String,
        file: String,
        value: String,
    },
    /// The group was this user's.
    Owned { name: String, user: Option<u32> },
    /// Not undone but finished: the group was being removed.
    Removing { name: String },
}

impl Book {
    /// Reads the book; one that is not there is empty.
    pub(super) fn read(store: &Store) -> Result<Self> {
        let path = path(store);
        match std::fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("read `{}`", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read `{}`", path.display())),
        }
    }

    pub(super) fn write(&self, store: &Store) -> Result<()> {
        let path = path(store);
        let text = serde_json::to_vec(self)?;
        replace(&path, &text).with_context(|| format!("write `{}`", path.display()))
    }

    /// What is remembered of this very group, not of an earlier one of its name.
    pub(super) fn record(&self, name: &str, identity: Option<u64>) -> Option<&Record> {
        let record = self.groups.get(name)?;
        (identity == Some(record.identity)).then_some(record)
    }
}

/// Keeps other commands from changing groups until it is dropped; `None` if one is at work and
/// `wait` is not wanted.
pub(super) fn lock(store: &Store, wait: bool) -> Result<Option<OwnedFd>> {
    let path = path(store).with_extension("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .with_context(|| format!("open `{}`", path.display()))?;
    let operation = if wait {
        FlockOperation::LockExclusive
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match flock(&fd, operation) {
        Ok(()) => Ok(Some(fd)),
        Err(rustix::io::Errno::WOULDBLOCK) if !wait => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("lock `{}`", path.display())),
    }
}

fn path(store: &Store) -> PathBuf {
    store.run.join("groups")
}
