//! The processes of a group: adding, listing, killing.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sys::Errno;

use super::{Directory, Group, tree};
use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::file;

/// Rounds of killing before we believe that the group forks faster than we kill.
const KILL_ROUNDS: usize = 100;

impl Group {
    /// Moves a process, with all its threads, into the group in every hierarchy.
    ///
    /// # Errors
    /// The process is gone, or a hierarchy refuses it.
    pub fn attach(&self, pid: Pid) -> Result<()> {
        self.attach_v1(pid)?;
        self.v2
            .iter()
            .try_for_each(|directory| self.attach_to(directory, pid))
    }

    /// Like [`Group::attach`] for v1 alone: into v2 the process was born (`CLONE_INTO_CGROUP`).
    ///
    /// # Errors
    /// The process is gone, or a hierarchy refuses it.
    pub fn attach_v1(&self, pid: Pid) -> Result<()> {
        self.v1
            .iter()
            .try_for_each(|directory| self.attach_to(directory, pid))
    }

    /// Like [`Group::attach`], for a process that joins a running container. On v2 a group whose
    /// processes went into groups below it, as a container's own systemd moves them, takes no
    /// process itself (`EBUSY`): the new one then goes where the container's first process is.
    ///
    /// # Errors
    /// As [`Group::attach`].
    pub fn attach_beside(&self, pid: Pid, first: Pid) -> Result<()> {
        self.attach_v1(pid)?;
        let Some(v2) = &self.v2 else { return Ok(()) };
        let Err(error) = self.attach_to(v2, pid) else {
            return Ok(());
        };
        if !matches!(error.errno(), Some(Errno::BUSY | Errno::OPNOTSUPP)) {
            return Err(error);
        }
        let table = format!("/proc/{}/cgroup", first.as_raw_nonzero());
        let Ok(text) = file::read(Path::new(&table)) else {
            return Err(error);
        };
        let own = text.lines().find_map(|line| line.strip_prefix("0::"));
        match own.and_then(|own| below(&v2.path, Path::new(own))) {
            Some(path) => self.attach_to(&Directory { path, ..v2.clone() }, pid),
            None => Err(error),
        }
    }

    fn attach_to(&self, directory: &Directory, pid: Pid) -> Result<()> {
        let path = directory.path.join("cgroup.procs");
        let pid = pid.as_raw_nonzero();
        match file::write(&path, &pid.to_string()) {
            Err(Errno::ACCESS | Errno::PERM) if self.rootless => Ok(()),
            Err(errno) => Err(Error::kernel(
                &format!("move process {pid} to"),
                &directory.path,
                errno,
            )),
            Ok(()) => Ok(()),
        }
    }

    /// The processes of the group itself, as the caller's pid namespace numbers them.
    ///
    /// # Errors
    /// The group cannot be read. One that is gone has no processes.
    pub fn procs(&self) -> Result<Vec<Pid>> {
        let mut pids = BTreeSet::new();
        if let Some(path) = self.telling() {
            list(path, &mut pids)?;
        }
        Ok(pids.into_iter().filter_map(Pid::from_raw).collect())
    }

    /// The processes of the group and of all groups below it.
    ///
    /// # Errors
    /// The group cannot be read. One that is gone has no processes.
    pub fn procs_recursive(&self) -> Result<Vec<Pid>> {
        let mut pids = BTreeSet::new();
        if let Some(path) = self.telling() {
            list_recursive(path, &mut pids)?;
        }
        Ok(pids.into_iter().filter_map(Pid::from_raw).collect())
    }

    /// Sends a signal to every process of the group and of the groups below it. `SIGKILL` is
    /// repeated until none is left that could fork another.
    ///
    /// # Errors
    /// A process may not be signalled, or the group forks faster than it is killed.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        if signal != Signal::KILL {
            return self.signal_once(signal).map(drop);
        }
        // One atomic act since Linux 5.14. Processes that left the v2 group but not the v1 ones
        // (a container that may write its cgroup mounts can do that) are left for the loop.
        if let Some(v2) = &self.v2 {
            let _ = file::write(&v2.path.join("cgroup.kill"), "1");
        }
        for round in 0..KILL_ROUNDS {
            let living = self.signal_once(signal)?;
            self.thaw_v1()?;
            if living == 0 {
                return Ok(());
            }
            let pause = std::time::Duration::from_millis(round.min(20) as u64);
            std::thread::sleep(pause);
        }
        Err(self.describe_error("kill group", "it still has processes"))
    }

    /// Signals each process through a pidfd that was opened before the process was seen in the
    /// group for the second time: a number that was reused meanwhile does not get the signal.
    fn signal_once(&self, signal: Signal) -> Result<usize> {
        let mut living = 0;
        let candidates = self.members()?;
        let fds: Vec<_> = candidates
            .iter()
            .filter_map(|pid| {
                let fd = pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok()?;
                Some((*pid, fd))
            })
            .collect();
        let still = if fds.is_empty() {
            BTreeSet::new()
        } else {
            self.members()?
        };
        for (pid, fd) in fds.iter().filter(|(pid, _)| still.contains(pid)) {
            match pidfd_send_signal(fd, signal) {
                Err(Errno::SRCH) => {}
                Err(errno) => {
                    let operation = format!("signal process {pid} of");
                    let at = self.telling().unwrap_or(Path::new(""));
                    return Err(Error::kernel(&operation, at, errno));
                }
                Ok(()) => living += 1,
            }
        }
        Ok(living)
    }

    /// The processes that are in the group in any hierarchy.
    fn members(&self) -> Result<BTreeSet<i32>> {
        let mut pids = BTreeSet::new();
        for directory in self.directories() {
            list_recursive(&directory.path, &mut pids)?;
        }
        Ok(pids)
    }

    /// The directory whose `cgroup.procs` speaks for the group: v2's, else one that no guest
    /// has a reason to move its processes out of.
    pub(crate) fn telling(&self) -> Option<&Path> {
        let v1 = |controller| {
            self.v1
                .iter()
                .find(|directory| directory.controllers.contains(controller))
        };
        let preferred = [Controller::Devices, Controller::Freezer, Controller::Memory];
        self.v2
            .as_ref()
            .or_else(|| preferred.into_iter().find_map(v1))
            .or_else(|| self.v1.first())
            .map(|directory| directory.path.as_path())
    }

    pub(crate) fn describe_error(&self, operation: &str, cause: &str) -> Error {
        let at = self.telling().unwrap_or(Path::new(""));
        Error::text(operation, at.display().to_string(), cause)
    }
}

/// The directory of a process's group below `group`, where `own` is the process's group from the
/// root of the hierarchy, and `group` a path through a mount point that we need not know: its
/// longest tail that `own` begins with is the group's name.
fn below(group: &Path, own: &Path) -> Option<PathBuf> {
    let own = own.strip_prefix("/").ok()?;
    if own.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let tails = group
        .ancestors()
        .skip(1)
        .collect::<Vec<_>>()
        .into_iter()
        .rev();
    let names = tails.filter_map(|mount_point| group.strip_prefix(mount_point).ok());
    let rest = names
        .into_iter()
        .find_map(|name| own.strip_prefix(name).ok())?;
    Some(group.join(rest))
}

fn list(path: &Path, pids: &mut BTreeSet<i32>) -> Result<()> {
    match file::read_bytes(&path.join("cgroup.procs")) {
        Ok(text) => {
            take(&text, pids);
            Ok(())
        }
        Err(errno) if has_no_list(errno) => Ok(()),
        Err(errno) => Err(Error::kernel("list processes of", path, errno)),
    }
}

fn list_recursive(path: &Path, pids: &mut BTreeSet<i32>) -> Result<()> {
    tree::walk(path, &mut Lister(pids))
        .map_err(|errno| Error::kernel("list processes of", path, errno))
}

struct Lister<'a>(&'a mut BTreeSet<i32>);

impl tree::Visitor for Lister<'_> {
    fn enter(&mut self, group: BorrowedFd<'_>) -> sys::Result<()> {
        match file::read_bytes_at(group, "cgroup.procs") {
            Ok(text) => take(&text, self.0),
            Err(errno) if has_no_list(errno) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    fn leave(&mut self, _: BorrowedFd<'_>, _: &CString) -> sys::Result<()> {
        Ok(())
    }
}

/// Gone; or threaded, and then its processes are listed in the domain above it.
fn has_no_list(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP)
}

/// Processes outside the reader's pid namespace are listed as 0.
fn take(list: &[u8], pids: &mut BTreeSet<i32>) {
    let list = String::from_utf8_lossy(list);
    let numbers = list.lines().filter_map(|line| line.parse().ok());
    pids.extend(numbers.filter(|pid: &i32| *pid > 0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_below_a_group_is_found_without_the_mount_point() {
        for (group, own, expected) in [
            (
                "/sys/fs/cgroup/floe/a",
                "/floe/a/init.scope",
                Some("/sys/fs/cgroup/floe/a/init.scope"),
            ),
            (
                "/sys/fs/cgroup/floe/a",
                "/floe/a",
                Some("/sys/fs/cgroup/floe/a"),
            ),
            // The mount shows a part of the hierarchy only, or names repeat.
            ("/cg/a", "/a/b", Some("/cg/a/b")),
            ("/a/a/a", "/a/a/b", Some("/a/a/a/b")),
            ("/cg/floe/a", "/floe/b", None),
            ("/cg/floe/a", "/../floe/a/b", None),
            ("/cg/floe/a", "/floe/a/../../x", None),
        ] {
            let found = below(Path::new(group), Path::new(own));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{group} {own}");
        }
    }
}
