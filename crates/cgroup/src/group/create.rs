//! Making a group's directories.

use std::path::{Path, PathBuf};

use sys::Errno;

use super::{Directory, Group};
use crate::controller::{Controller, Controllers};
use crate::error::{Error, Result};
use crate::file;

/// How often a parent may vanish between being made and being used before we give up.
const ATTEMPTS: usize = 8;

impl Group {
    /// Makes the group in every hierarchy, enables the v2 controllers along its path and fills
    /// in v1's cpuset from its parent.
    ///
    /// # Errors
    /// A hierarchy refuses; what was made until then is removed again. With `rootless`, a
    /// hierarchy that refuses for lack of rights is left out of the group instead.
    pub fn create(&mut self) -> Result<()> {
        let mut made = Vec::new();
        let result = self.create_all(&mut made);
        self.fresh = result.is_ok() && self.directories().all(|directory| !directory.adopted);
        if result.is_err() {
            for path in made.iter().rev() {
                // Best effort: the error that brought us here is the one to report.
                let _ = rustix::fs::rmdir(path);
            }
        }
        result
    }

    fn create_all(&mut self, made: &mut Vec<PathBuf>) -> Result<()> {
        let rootless = self.rootless;
        let refused = |error: &Error| {
            rootless
                && matches!(
                    error.errno(),
                    Some(Errno::ACCESS | Errno::PERM | Errno::ROFS)
                )
        };
        let mut kept = Vec::with_capacity(self.v1.len());
        for mut directory in std::mem::take(&mut self.v1) {
            match directory.create(made) {
                Err(error) if refused(&error) => {}
                created => {
                    kept.push(directory);
                    created?;
                }
            }
        }
        self.v1 = kept;
        if let Some(directory) = &mut self.v2 {
            match directory
                .create(made)
                .and_then(|()| directory.enable_controllers())
            {
                Err(error) if refused(&error) => self.v2 = None,
                created => created?,
            }
        }
        Ok(())
    }
}

impl Directory {
    fn create(&mut self, made: &mut Vec<PathBuf>) -> Result<()> {
        let first = made.len();
        self.adopted = !make_directory(&self.path, &self.base, made)?;
        if self.controllers.contains(Controller::Cpuset) && !self.names.is_empty() {
            for path in made
                .iter()
                .skip(first)
                .chain(self.adopted.then_some(&self.path))
            {
                inherit_cpuset(path, &self.base, self.noprefix)?;
            }
        }
        Ok(())
    }

    /// Lets v2's controllers reach the group: top-down, only along its path, and no write where
    /// they already do. A controller that cannot be enabled (its parent has processes, the cpu
    /// controller with real-time tasks about) is missed only by who sets its resources.
    fn enable_controllers(&mut self) -> Result<()> {
        if self.controllers.is_empty() {
            return Ok(());
        }
        let read = |directory: &Path| -> Result<String> {
            Ok(file::read_optional(&directory.join("cgroup.controllers"))?.unwrap_or_default())
        };
        let reached = |text: &str| Controllers::of(text.split_ascii_whitespace());
        // The layout knows what the root has: one read tells that all of it is here already.
        let present = reached(&read(&self.path)?);
        if present.covers(self.controllers) {
            return Ok(());
        }
        let parents = self.path.ancestors().skip(1);
        let mut parents: Vec<_> = parents
            .take_while(|at| at.starts_with(&self.base))
            .collect();
        parents.reverse();
        for parent in parents {
            if !enable(parent, &read(parent)?)? {
                self.blocked.get_or_insert(parent.to_path_buf());
            }
        }
        self.controllers = reached(&read(&self.path)?);
        Ok(())
    }
}

fn contains_all(present: &str, wanted: &str) -> bool {
    wanted
        .split_ascii_whitespace()
        .all(|name| present.split_ascii_whitespace().any(|p| p == name))
}

/// Enables controllers for the groups below one. Tells whether nothing was in the way.
fn enable(group: &Path, available: &str) -> Result<bool> {
    let control = group.join("cgroup.subtree_control");
    let enabled = file::read_optional(&control)?.unwrap_or_default();
    let missing: Vec<String> = available
        .split_ascii_whitespace()
        .filter(|name| !contains_all(&enabled, name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(true);
    }
    // Below a group with processes v2 enables no controller but those that know threads, and
    // with those makes it the root of a threaded tree, where the new group is of no use. Only the
    // hierarchy's own root, which has no type, may have both.
    let typed = file::read_optional(&group.join("cgroup.type"))?.is_some();
    let procs = file::read_optional(&group.join("cgroup.procs"))?.unwrap_or_default();
    if typed && !procs.is_empty() {
        return Ok(false);
    }
    // All in one write, which fails as a whole; then each for itself, as far as it goes.
    if file::write(&control, &missing.join(" ")).is_err() {
        for name in &missing {
            let _ = file::write(&control, name);
        }
    }
    Ok(true)
}

/// Makes a directory and its parents below `base`; tells whether it was new.
fn make_directory(path: &Path, base: &Path, made: &mut Vec<PathBuf>) -> Result<bool> {
    let fails = |at: &Path, errno| Error::kernel("create group", at, errno);
    for _ in 0..ATTEMPTS {
        match rustix::fs::mkdir(path, 0o755.into()) {
            Ok(()) => {
                made.push(path.to_path_buf());
                return Ok(true);
            }
            Err(Errno::EXIST) => return Ok(false),
            // Another floe may remove an empty parent while we are on our way: try again.
            Err(Errno::NOENT) => match path.parent().filter(|_| path != base) {
                Some(parent) => make_directory(parent, base, made).map(drop)?,
                None => return Err(fails(path, Errno::NOENT)),
            },
            Err(errno) => return Err(fails(path, errno)),
        }
    }
    Err(fails(path, Errno::NOENT))
}

/// A v1 cpuset starts with no processor and no memory node, and then accepts no process. Gives
/// it its parent's, and the parent first its own parent's where nobody did.
fn inherit_cpuset(path: &Path, base: &Path, noprefix: bool) -> Result<()> {
    if path == base {
        return Ok(());
    }
    let names = if noprefix {
        ["cpus", "mems"]
    } else {
        ["cpuset.cpus", "cpuset.mems"]
    };
    for name in names {
        let own = path.join(name);
        let is_set = |text: &String| !text.trim_ascii().is_empty();
        if file::read_optional(&own)?.as_ref().is_none_or(is_set) {
            continue;
        }
        let Some(parent) = path.parent() else {
            continue;
        };
        let mut value = file::read(&parent.join(name))?;
        if !is_set(&value) {
            inherit_cpuset(parent, base, noprefix)?;
            value = file::read(&parent.join(name))?;
        }
        file::write(&own, value.trim_ascii())
            .map_err(|errno| Error::kernel("inherit cpuset", &own, errno))?;
    }
    Ok(())
}
