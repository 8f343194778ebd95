//! signalfd(2).

use std::os::fd::OwnedFd;

use super::{Descriptor, new_entry, owner};
use crate::error::{Context, Result};
use crate::image::event::SignalfdEntry;
use crate::image::file::{FdTypes, FileEntry};
use crate::procfs::Lines;

pub(crate) fn dump(descriptor: &Descriptor) -> FileEntry {
    let mut entry = new_entry(FdTypes::Signalfd, descriptor.id);
    entry.sgfd = Some(SignalfdEntry {
        id: descriptor.id,
        flags: descriptor.flags,
        fown: owner::dump(&descriptor.file),
        sigmask: Lines::parse(&descriptor.info).hex("sigmask"),
    });
    entry
}

pub(crate) fn restore(entry: &SignalfdEntry) -> Result<OwnedFd> {
    let nonblocking = entry.flags & libc::O_NONBLOCK as u32 != 0;
    sys::event_files::signalfd(entry.sigmask, nonblocking).during("create signalfd", entry.id)
}
