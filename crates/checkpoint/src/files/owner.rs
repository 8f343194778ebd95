//! Who gets SIGIO for a file: F_SETOWN and F_SETSIG of fcntl(2).

use std::os::fd::AsFd;

use crate::image::file::FownEntry;

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
