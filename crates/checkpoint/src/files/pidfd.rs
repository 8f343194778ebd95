//! pidfd_open(2).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags};

use super::{Descriptor, new_entry, owner};
use crate::error::{Context, Error, Result};
use crate::image::event::PidfdEntry;
use crate::image::file::{FdTypes, FileEntry};
use crate::procfs::Lines;

/// The process that it stands for: -1 if that is gone.
pub(crate) fn dump(descriptor: &Descriptor) -> FileEntry {
    let lines = Lines::parse(&descriptor.info);
    let nspid = lines
        .text("NSpid")
        .split_whitespace()
        .last()
        .and_then(|word| word.parse().ok());
    let mut entry = new_entry(FdTypes::Pidfd, descriptor.id);
    entry.pidfd = Some(PidfdEntry {
        id: descriptor.id,
        ino: descriptor.stat.st_ino as u32,
        flags: descriptor.flags,
        nspid: nspid.unwrap_or(-1),
        fown: owner::dump(&descriptor.file),
    });
    entry
}

/// Processes that have died, by the inode of their pidfds; they live until all pidfds are open.
#[derive(Debug, Default)]
pub(crate) struct Dead {
    by_inode: HashMap<u32, Pid>,
    others: Vec<Pid>,
}

impl Dead {
    /// Starts a process with this id.
    pub(crate) fn live_at(&mut self, id: u32) -> Result<()> {
        let about = "make a process that will be dead";
        let pid = Pid::from_raw(id as i32)
            .ok_or_else(|| Error::because(about, id, "it is no process id"))?;
        if !self.others.contains(&pid) {
            sys::stub_process::spawn(pid, 0).during(about, id)?;
            self.others.push(pid);
        }
        Ok(())
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        for pid in self.by_inode.values().chain(&self.others) {
            let _ = rustix::process::kill_process(*pid, rustix::process::Signal::KILL);
            let _ = sys::ptrace::wait(*pid);
        }
    }
}

/// All processes of the tree exist by now.
pub(crate) fn restore(entry: &PidfdEntry, dead: &mut Dead) -> Result<OwnedFd> {
    if entry.nspid <= 0 {
        return open_dead(entry, dead);
    }
    let pid = Pid::from_raw(entry.nspid)
        .ok_or_else(|| Error::because("open pidfd", entry.nspid, "it is no process id"))?;
    let kept = entry.flags & (libc::O_NONBLOCK | libc::O_EXCL) as u32;
    rustix::process::pidfd_open(pid, PidfdFlags::from_bits_retain(kept))
        .during("open pidfd of", entry.nspid)
}

/// A pidfd of a process that will have ended.
fn open_dead(entry: &PidfdEntry, dead: &mut Dead) -> Result<OwnedFd> {
    let about = "make a pidfd of a dead process";
    let pid = match dead.by_inode.entry(entry.ino) {
        Entry::Occupied(known) => *known.get(),
        Entry::Vacant(place) => {
            *place.insert(sys::stub_process::spawn_anywhere().during(about, entry.id)?)
        }
    };
    let kept = entry.flags & (libc::O_NONBLOCK | libc::O_EXCL) as u32;
    rustix::process::pidfd_open(pid, PidfdFlags::from_bits_retain(kept)).during(about, entry.id)
}
