//! What is kept about a container on disk: one directory below the runtime's root.
//!
//! `state.json` begins with the names that runc gives to the same facts, for tools that read them.
//! `config.json` is the configuration as it was at `create`: later changes of the bundle have no
//! effect (runtime.md, "Lifecycle"). `start.sock` is where `start` reaches the waiting process; it
//! is gone once the container was started.
//!
//! Files appear by rename, so a reader sees all of one or nothing. Nothing is synced: the directory
//! lies on a tmpfs and ends with the host.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Result};
use crate::id::ContainerId;
use crate::{resctrl, spec};

/// The name of a group below the one with the limits (annotation [`crate::INNER_GROUP`]).
pub(crate) const INNER_GROUP: &str = "payload";

/// The content of `state.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// 0 until the process exists.
    pub(crate) init_process_pid: i32,
    /// Clock ticks since boot.
    pub(crate) init_process_start: u64,
    /// RFC 3339 with nanoseconds.
    pub(crate) created: String,
    /// The group's directory by controller; v2's has the empty name.
    pub(crate) cgroup_paths: BTreeMap<String, PathBuf>,
    pub(crate) namespace_paths: BTreeMap<String, String>,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// Directories of `cgroup_paths` that were there before.
    pub(crate) adopted_cgroups: Vec<String>,
    /// `CLONE_NEW*` flags of the namespaces that are the container's own.
    pub(crate) namespaces: u64,
    /// Where systemd makes the groups: `cgroupsPath` as it was given, or empty.
    pub(crate) systemd_unit: Option<String>,
    /// Groups of the resctrl file system.
    pub(crate) resctrl: Option<resctrl::Groups>,
    pub(crate) owner: u32,
    /// Whether the configuration has `poststart` or `poststop` hooks: `start` and `delete` read it
    /// again only then.
    pub(crate) late_hooks: bool,
    /// The pid namespace is the container's own: with its first process all others end.
    pub(crate) own_pids: bool,
    /// The processes are in a group below the one that has the limits.
    pub(crate) inner_group: bool,
}

/// One container's directory, locked while this value lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory of a new container.
    ///
    /// # Errors
    /// A container of this id exists.
    pub(crate) fn create(root: &Path, id: &ContainerId) -> Result<Directory> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let path = root.join(id.as_str());
        let made = builder.create(&path).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                builder.recursive(true).create(root)?;
                builder.recursive(false).create(&path)
            }
            _ => Err(error),
        });
        match made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(taken(id)),
            Err(error) => Err(error).during(|| format!("make `{}`", path.display())),
            Ok(()) => Self::lock(path, FlockOperation::NonBlockingLockExclusive),
        }
    }

    /// Opens and locks the directory of an existing container; another command that changes it is
    /// waited for.
    pub(crate) fn open(root: &Path, id: &ContainerId) -> Result<Directory> {
        Self::lock(existing(root, id)?, FlockOperation::LockExclusive)
    }

    /// As [`Directory::open`], but without waiting for a command that hangs.
    pub(crate) fn seize(root: &Path, id: &ContainerId) -> Result<Directory> {
        let path = existing(root, id)?;
        let lock = File::open(&path).during(|| format!("open `{}`", path.display()))?;
        let _held_by_another = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        Ok(Directory { path, _lock: lock })
    }

    fn lock(path: PathBuf, operation: FlockOperation) -> Result<Directory> {
        let lock = File::open(&path).during(|| format!("open `{}`", path.display()))?;
        rustix::io::retry_on_intr(|| flock(&lock, operation))
            .during(|| format!("lock `{}`", path.display()))?;
        // Whoever held the lock may have removed the directory, and another `create` made it anew:
        // then the lock is one of nothing.
        let same = |held: &std::fs::Metadata, named: &std::fs::Metadata| {
            (held.dev(), held.ino()) == (named.dev(), named.ino())
        };
        match (lock.metadata(), std::fs::symlink_metadata(&path)) {
            (Ok(held), Ok(named)) if same(&held, &named) => Ok(Directory { path, _lock: lock }),
            _ => Err(Error::not_found(
                &path.file_name().unwrap_or_default().to_string_lossy(),
            )),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `state.json`.
    pub(crate) fn store(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| Error::new("state.json", error))?;
        self.write("state.json", &text)
    }

    /// Writes a file as a whole.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        write_atomically(&path, content, PRIVATE)
    }

    /// Removes the directory and what is in it. The state file goes last: as long as it is there,
    /// the container can be deleted again. What another `delete --force` removes meanwhile is gone
    /// as well.
    pub(crate) fn remove(self) -> Result<()> {
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.during(|| "read the state directory")?,
        };
        for entry in entries {
            let entry = entry.during(|| "read the state directory")?;
            if entry.file_name() != "state.json" {
                remove_any(&entry.path())?;
            }
        }
        remove_any(&self.path.join("state.json"))?;
        match std::fs::remove_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.during(|| format!("remove `{}`", self.path.display())),
        }
    }
}

fn remove_any(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).during(|| format!("remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// The mode of files of the state directory: the environment of a program may hold secrets.
pub(crate) const PRIVATE: u32 = 0o600;
/// The mode of files that engines read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Writes a file under a temporary name and renames it into place. The temporary one is always a
/// new file: in a directory of others it could be a link to anything.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let during = || format!("write `{}`", path.display());
    let mut options = File::options();
    options.write(true).create_new(true).mode(mode);
    let _stale = std::fs::remove_file(&temporary);
    let written = options
        .open(&temporary)
        .and_then(|mut file| file.write_all(content));
    let placed = written.and_then(|()| std::fs::rename(&temporary, path));
    if placed.is_err() {
        let _left = std::fs::remove_file(&temporary);
    }
    placed.during(during)
}

/// Refuses an id that is in use, before anything else of the new container is looked at: that its
/// groups are in use too is not what is wrong.
pub(crate) fn refuse_taken(root: &Path, id: &ContainerId) -> Result<()> {
    match std::fs::symlink_metadata(root.join(id.as_str())) {
        Ok(_) => Err(taken(id)),
        Err(_) => Ok(()),
    }
}

fn taken(id: &ContainerId) -> Error {
    Error::plain(format!("container with id `{id}` already exists"))
}

/// Whether a container of this id has a directory; its path.
///
/// One that another user made or may write is refused: root would signal the processes and empty
/// the groups that are written there.
fn existing(root: &Path, id: &ContainerId) -> Result<PathBuf> {
    let path = root.join(id.as_str());
    let refused = |cause: &str| Err(Error::new(format!("state in `{}`", path.display()), cause));
    let Ok(found) = std::fs::symlink_metadata(&path) else {
        return Err(Error::not_found(id.as_str()));
    };
    if !found.is_dir() {
        return refused("not a directory");
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&found.uid()) {
        return refused("another user is its owner");
    }
    if found.mode() & 0o022 != 0 {
        return refused("other users may write to it");
    }
    Ok(path)
}

/// Reads a container's record without a lock; `None` while `create` has not written it.
pub(crate) fn read(root: &Path, id: &ContainerId) -> Result<Option<Record>> {
    let path = existing(root, id)?.join("state.json");
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.during(|| format!("read `{}`", path.display()))?,
    };
    let named = || format!("read `{}`", path.display());
    let record: Record =
        spec::document("state.json", &text).map_err(|error| Error::new(named(), error))?;
    record.cgroup_paths.values().try_for_each(|group| {
        is_group(group).map_err(|error| error.within(format!("{}: cgroup_paths", named())))
    })?;
    Ok(Some(record))
}

/// Refuses a path that is no group below a hierarchy's root. Were it a directory of another kind, a
/// `delete` would signal whom its `cgroup.procs` lists and remove what is in it.
fn is_group(path: &Path) -> Result<()> {
    let named = || format!("`{}`", path.display());
    let plain = |part: Component| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        return Err(Error::new(named(), "not a plain path"));
    }
    // The parent of a hierarchy's root is on another file system.
    for place in path.ancestors().take(2) {
        match rustix::fs::statfs(place) {
            Ok(found) if [CGROUP, CGROUP2].contains(&found.f_type) => {}
            Err(sys::Errno::NOENT | sys::Errno::NODEV) => {}
            Ok(_) => return Err(Error::new(named(), "not a group below a hierarchy's root")),
            Err(errno) => return Err(errno).during(named),
        }
    }
    Ok(())
}

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP: rustix::fs::FsWord = 0x0027_e0eb;
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;

/// Reads the configuration as it was at `create`.
pub(crate) fn read_config(root: &Path, id: &ContainerId) -> Result<spec::Spec> {
    let path = existing(root, id)?.join("config.json");
    let text = std::fs::read(&path).during(|| format!("read `{}`", path.display()))?;
    spec::parse(&text).map_err(|error| Error::new(format!("read `{}`", path.display()), error))
}

/// The ids of all containers, sorted.
pub(crate) fn list(root: &Path) -> Result<Vec<ContainerId>> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.during(|| format!("read `{}`", root.display()))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids: Vec<_> = names
        .filter_map(|name| ContainerId::new(&name).ok())
        .collect();
    ids.sort();
    Ok(ids)
}

impl Record {
    /// The container's first process, if it still is the one that was recorded.
    pub(crate) fn process(&self) -> Option<sys::process::Process> {
        let pid = Pid::from_raw(self.init_process_pid)?;
        sys::process::Process::open(pid, self.init_process_start).ok()
    }

    /// The container's group.
    pub(crate) fn group(&self) -> cgroup::Group {
        let mut group = cgroup::Group::open(&self.cgroup_paths);
        group.keep(&self.adopted_cgroups);
        group
    }

    /// The group that holds the container's processes.
    pub(crate) fn process_group(&self) -> cgroup::Group {
        let group = self.group();
        if self.inner_group {
            group.inner(INNER_GROUP)
        } else {
            group
        }
    }
}
