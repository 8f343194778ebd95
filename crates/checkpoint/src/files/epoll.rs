//! epoll(7): the set, and what is registered in it.
//!
//! A registration is known by a file and the number that the file had when it was added. It is made
//! again from inside the first process that holds the set, once its descriptors are in place.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::event::epoll::CreateFlags;

use super::{Descriptor, new_entry, owner};
use crate::error::{Context, Result};
use crate::image::event::{EventpollFileEntry, EventpollTfdEntry};
use crate::image::file::{FdTypes, FileEntry};
use crate::procfs;
use crate::tape::Tape;

/// The set and its registrations, as fdinfo lists them.
pub(crate) fn dump(descriptor: &Descriptor) -> Result<FileEntry> {
    let lines = descriptor
        .info
        .lines()
        .filter(|line| line.starts_with("tfd:"));
    let mut tfd: Vec<EventpollTfdEntry> = Vec::new();
    let mut seen: HashMap<u32, u32> = HashMap::new();
    for mut registration in lines.filter_map(parse) {
        registration.id = descriptor.id;
        // Several files can be registered under one number, if it was closed in between.
        let offset = seen.entry(registration.tfd).or_default();
        let targets = find_targets(descriptor, &registration, *offset)?;
        *offset += 1;
        let free = |number: &&u32| !tfd.iter().any(|other| other.tfd == **number);
        if let Some(number) = targets.iter().find(free).or(targets.first()) {
            registration.tfd = *number;
            tfd.push(registration);
        }
    }
    let mut entry = new_entry(FdTypes::Eventpoll, descriptor.id);
    entry.epfd = Some(EventpollFileEntry {
        id: descriptor.id,
        flags: descriptor.flags,
        fown: owner::dump(&descriptor.file),
        tfd,
    });
    Ok(entry)
}

/// `tfd: 5 events: 19 data: 5 pos:0 ino:58c3 sdev:f`
fn parse(line: &str) -> Option<EventpollTfdEntry> {
    let spaced = line.replace(':', ": ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let after = |key: &str| {
        words
            .iter()
            .position(|word| *word == key)
            .and_then(|at| words.get(at + 1))
    };
    let hex = |key: &str| after(key).and_then(|word| u64::from_str_radix(word, 16).ok());
    Some(EventpollTfdEntry {
        id: 0,
        tfd: after("tfd:")?.parse().ok()?,
        events: hex("events:")? as u32,
        data: hex("data:")?,
        dev: hex("sdev:").map(|device| device as u32),
        inode: hex("ino:"),
        pos: after("pos:").and_then(|word| word.parse().ok()),
    })
}

/// The numbers that have the registered file now; none: the process holds it no more.
fn find_targets(
    descriptor: &Descriptor,
    registration: &EventpollTfdEntry,
    offset: u32,
) -> Result<Vec<u32>> {
    let process = descriptor.process;
    let mut numbers = procfs::numbers_in(process, "fd")?;
    // The number that it was added under first.
    numbers.sort_by_key(|number| *number as u32 != registration.tfd);
    let slot = sys::kcmp::Registration {
        set: descriptor.number,
        number: registration.tfd,
        offset,
    };
    let same = |number: &u32| sys::kcmp::is_registered(process, *number, slot).unwrap_or(false);
    Ok(numbers
        .into_iter()
        .map(|number| number as u32)
        .filter(same)
        .collect())
}

pub(crate) fn restore(entry: &EventpollFileEntry) -> Result<OwnedFd> {
    rustix::event::epoll::create(CreateFlags::CLOEXEC).during("create epoll set", entry.id)
}

/// The calls that register again, in a process where the set has number `own`.
pub(crate) fn register(entry: &EventpollFileEntry, own: u32, tape: &mut Tape) {
    for registration in &entry.tfd {
        let mut event = registration.events.to_le_bytes().to_vec();
        event.extend_from_slice(&registration.data.to_le_bytes());
        let event = tape.data(&event);
        let arguments = [
            u64::from(own),
            libc::EPOLL_CTL_ADD as u64,
            u64::from(registration.tfd),
            event,
        ];
        tape.call(
            "register with epoll descriptor",
            registration.tfd,
            libc::SYS_epoll_ctl,
            &arguments,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_in_the_kernels_own_format() {
        let line = "tfd:        5 events:       1d data: ffffffffffffffff  pos:0 ino:61af sdev:7";
        let found = parse(line).unwrap();
        assert_eq!((found.tfd, found.events, found.data), (5, 0x1d, u64::MAX));
        assert_eq!(
            (found.inode, found.dev, found.pos),
            (Some(0x61af), Some(7), Some(0))
        );
    }
}
