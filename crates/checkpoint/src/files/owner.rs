//! Who gets SIGIO for a file: F_SETOWN and F_SETSIG of fcntl(2).

use std::os::fd::AsFd;

use crate::image::file::{FileEntry, FownEntry};
use crate::tape::Tape;

const F_SETSIG: u64 = 10;
const F_SETOWN_EX: u64 = 15;
/// For setresuid(2): leave this one as it is.
const KEEP: u64 = u32::MAX as u64;

/// The owner of a description, with the ids of who set it.
pub(crate) fn dump(file: impl AsFd) -> FownEntry {
    let owner = sys::file_owner::get(file).unwrap_or_default();
    if owner.id == 0 {
        return FownEntry::default();
    }
    FownEntry {
        uid: owner.uid,
        euid: owner.euid,
        signum: owner.signal,
        pid_type: owner.kind,
        pid: owner.id,
    }
}

/// Whether signals are on (O_ASYNC), as the flags to set; the number then known to the kernel is
/// that of the descriptor, so it must be set from inside.
pub(crate) fn asynchronous(entry: &FileEntry) -> Option<u32> {
    None.or(entry.reg.as_ref().map(|file| file.flags))
        .or(entry.pipe.as_ref().map(|file| file.flags))
        .or(entry.isk.as_ref().map(|file| file.flags))
        .or(entry.usk.as_ref().map(|file| file.flags))
        .or(entry.tty.as_ref().map(|file| file.flags))
        .filter(|flags| flags & libc::O_ASYNC as u32 != 0)
}

/// The owner that an entry of the images names.
pub(crate) fn of(entry: &FileEntry) -> Option<&FownEntry> {
    None.or(entry.reg.as_ref().map(|file| &file.fown))
        .or(entry.pipe.as_ref().map(|file| &file.fown))
        .or(entry.isk.as_ref().map(|file| &file.fown))
        .or(entry.usk.as_ref().map(|file| &file.fown))
        .or(entry.nlsk.as_ref().map(|file| &file.fown))
        .or(entry.psk.as_ref().map(|file| &file.fown))
        .or(entry.ffy.as_ref().map(|file| &file.fown))
        .or(entry.efd.as_ref().map(|file| &file.fown))
        .or(entry.tfd.as_ref().map(|file| &file.fown))
        .or(entry.sgfd.as_ref().map(|file| &file.fown))
        .or(entry.epfd.as_ref().map(|file| &file.fown))
        .or(entry.ify.as_ref().map(|file| &file.fown))
        .or(entry.memfd.as_ref().map(|file| &file.fown))
        .or(entry.pidfd.as_ref().map(|file| &file.fown))
        .or(entry.tty.as_ref().map(|file| &file.fown))
        .filter(|owner| owner.pid != 0)
}

/// The calls that set the owner of descriptor `number`, with the ids of who had set it: the kernel
/// compares them when it sends the signal.
pub(crate) fn restore(owner: &FownEntry, number: u32, tape: &mut Tape) {
    let value: Vec<u8> = [owner.pid_type, owner.pid]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let value = tape.data(&value);
    let fd = u64::from(number);
    let users = [u64::from(owner.uid), u64::from(owner.euid), KEEP];
    tape.call(
        "set user ids for the owner of descriptor",
        number,
        libc::SYS_setresuid,
        &users,
    );
    // The owner may be gone.
    tape.attempt(libc::SYS_fcntl, &[fd, F_SETOWN_EX, value]);
    tape.call(
        "set user ids back for descriptor",
        number,
        libc::SYS_setresuid,
        &[0, 0, 0],
    );
    if owner.signum != 0 {
        let signal = u64::from(owner.signum);
        tape.call(
            "set the signal of descriptor",
            number,
            libc::SYS_fcntl,
            &[fd, F_SETSIG, signal],
        );
    }
}
