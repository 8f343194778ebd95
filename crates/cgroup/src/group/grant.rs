//! Handing a named group to a person, and moving processes into it for good or not at all.

use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Access, AtFlags, CWD, Gid, Uid, access, chownat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sys::Errno;

use super::{Directory, Group};
use crate::controller::{Controller, Controllers};
use crate::error::{Error, Result};
use crate::file;
use crate::layout::Layout;

/// Controllers of v1 whose limits hold for all groups below, whatever those groups' owner writes
/// into them. Not among them: `blkio`, which treats every group as a child of the root, and
/// `net_cls` and `net_prio`, whose values are no limits but identities.
const HOLDING: [Controller; 11] = [
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Cpuset,
    Controller::Memory,
    Controller::Devices,
    Controller::Freezer,
    Controller::Pids,
    Controller::Hugetlb,
    Controller::Rdma,
    Controller::PerfEvent,
    Controller::Misc,
];

impl Group {
    /// Lets a user make groups below this one and move own processes into it and among them, in
    /// every hierarchy whose limits then still hold; tells in which they do not, where the group
    /// stays the administrator's and the user's processes stay in it.
    ///
    /// What the user gets is the directory, which no file of it comes with, and the lists of
    /// processes: never a limit. On v2 a process moves only where its mover may write the common
    /// ancestor's list. v1 asks for the right to the process alone, so there the user may bring
    /// own processes from elsewhere too, but takes none out: not above, where the lists are the
    /// administrator's.
    ///
    /// # Errors
    /// The group is gone, or the caller may not give it away.
    pub fn delegate_to_user(&self, uid: u32, gid: u32) -> Result<Vec<String>> {
        let mut kept = Vec::new();
        for directory in &self.v1 {
            if !directory.holds() {
                kept.extend(directory.names.iter().cloned());
                continue;
            }
            for name in ["", "cgroup.procs", "tasks"] {
                give(&directory.path.join(name), uid, gid)?;
            }
        }
        self.delegate(uid, gid)?;
        Ok(kept)
    }

    /// Takes a delegated group back: nothing of it, nor of the groups below it, is a user's.
    ///
    /// # Errors
    /// The group is gone, or the caller may not own it.
    pub fn take_from_user(&self) -> Result<()> {
        self.delegate_to_user(0, 0).map(drop)
    }

    /// Moves a process, with all its threads, into the group in every hierarchy; one that cannot
    /// go everywhere stays where it was. For an ordinary user, everywhere is where the group's
    /// list is the user's to write.
    ///
    /// # Errors
    /// The process is gone, or a hierarchy refuses it.
    pub fn admit(&self, pid: Pid) -> Result<()> {
        let number = pid.as_raw_nonzero();
        let fails = |errno| {
            let operation = format!("move process {number} to");
            Error::kernel(&operation, self.telling().unwrap_or(Path::new("")), errno)
        };
        // What was moved is what was meant: the number is not given again while it lives.
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(fails)?;
        let former = homes(pid)?;
        let mut moved: Vec<&Directory> = Vec::new();
        let writable = |directory: &&Directory| {
            !self.rootless || access(directory.path.join("cgroup.procs"), Access::WRITE_OK).is_ok()
        };
        let all: Vec<&Directory> = self.directories().filter(writable).collect();
        if all.is_empty() {
            return Err(fails(Errno::ACCESS));
        }
        for directory in all {
            if let Err(errno) = move_to(&directory.path, pid) {
                for back in &moved {
                    if let Some((_, home)) = former.iter().find(|(names, _)| *names == back.names) {
                        // The error that brought us here is the one to report.
                        let _ = move_to(home, pid);
                    }
                }
                return Err(explained(directory, number.get(), errno));
            }
            moved.push(directory);
        }
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        let now = rustix::event::Timespec::default();
        match poll(&mut ended, Some(&now)) {
            Ok(0) => Ok(()),
            _ => Err(fails(Errno::SRCH)),
        }
    }
}

impl Directory {
    /// Whether its limits hold for whatever a user makes below it.
    fn holds(&self) -> bool {
        let holding = HOLDING
            .into_iter()
            .fold(Controllers::default(), Controllers::with);
        // Before Linux 5.11 a group of v1's memory may count for itself alone.
        let counted = |text: String| text.trim_ascii() != "0";
        let counts = file::read_optional(&self.path.join("memory.use_hierarchy"));
        let counts = counts.ok().flatten().is_none_or(counted);
        !self.controllers.is_empty() && holding.covers(self.controllers) && counts
    }
}

fn move_to(group: &Path, pid: Pid) -> sys::Result<()> {
    let number = pid.as_raw_nonzero().to_string();
    file::write(&group.join("cgroup.procs"), &number)
}

fn explained(directory: &Directory, number: i32, errno: Errno) -> Error {
    let error = Error::kernel(&format!("move process {number} to"), &directory.path, errno);
    let is_v2 = directory.names.is_empty();
    match errno {
        Errno::BUSY | Errno::OPNOTSUPP if is_v2 => error.explained(
            "on v2 a group whose subgroups have controllers takes no processes; \
             move it to one of the subgroups"
                .to_owned(),
        ),
        Errno::ACCESS if is_v2 => {
            error.explained("the group that it would leave is not the caller's (EACCES)".to_owned())
        }
        Errno::NOSPC => {
            error.explained("the group has no processors or no memory nodes".to_owned())
        }
        Errno::INVAL => error.explained(
            "the kernel does not let it go there: a kernel thread, or a real-time task that the \
             group has no time for"
                .to_owned(),
        ),
        _ => error,
    }
}

/// The names of each hierarchy and the process's directory in it.
fn homes(pid: Pid) -> Result<Vec<(Vec<String>, PathBuf)>> {
    let read = |path: &str| {
        file::read_bytes(Path::new(path))
            .map_err(|errno| Error::kernel("read", Path::new(path), errno))
    };
    let own = read(&format!("/proc/{}/cgroup", pid.as_raw_nonzero()))?;
    let layout = Layout::from_texts(&read("/proc/self/mountinfo")?, &own, Path::new("/"));
    let hierarchies = layout.v1.into_iter().chain(layout.v2);
    Ok(hierarchies
        .filter_map(|hierarchy| Some((hierarchy.names, hierarchy.own?)))
        .collect())
}

fn give(path: &Path, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| Error::kernel("delegate", path, errno))
}
