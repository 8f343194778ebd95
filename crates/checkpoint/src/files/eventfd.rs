//! eventfd(2).

use std::os::fd::OwnedFd;

use rustix::event::EventfdFlags;

use super::{Descriptor, new_entry, owner};
use crate::error::{Context, Result};
use crate::image::event::EventfdFileEntry;
use crate::image::file::{FdTypes, FileEntry};
use crate::procfs::Lines;

/// In the image's flags, whose access mode is always O_RDWR: the counter counts down by one.
const SEMAPHORE: u32 = 1;

pub(crate) fn dump(descriptor: &Descriptor) -> FileEntry {
    let lines = Lines::parse(&descriptor.info);
    let semaphore = if lines.text("eventfd-semaphore") == "1" {
        SEMAPHORE
    } else {
        0
    };
    let mut entry = new_entry(FdTypes::Eventfd, descriptor.id);
    entry.efd = Some(EventfdFileEntry {
        id: descriptor.id,
        flags: descriptor.flags | semaphore,
        fown: owner::dump(&descriptor.file),
        counter: lines.hex("eventfd-count"),
    });
    entry
}

pub(crate) fn restore(entry: &EventfdFileEntry) -> Result<OwnedFd> {
    let mut flags = EventfdFlags::CLOEXEC;
    if entry.flags & libc::O_NONBLOCK as u32 != 0 {
        flags |= EventfdFlags::NONBLOCK;
    }
    if entry.flags & SEMAPHORE != 0 {
        flags |= EventfdFlags::SEMAPHORE;
    }
    // The initial value has 32 bits only.
    let fd = rustix::event::eventfd(0, flags).during("create eventfd", entry.id)?;
    if entry.counter != 0 {
        rustix::io::write(&fd, &entry.counter.to_ne_bytes()).during("set eventfd", entry.id)?;
    }
    Ok(fd)
}
