//! The running program as a file that nobody can write.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::{Errno, Result};

/// Whether the running program is one of [`open`]'s files.
pub fn is_sealed() -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let program = rustix::fs::open("/proc/self/exe", flags, Mode::empty())?;
    let sealed = rustix::fs::fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(SEALS));
    if sealed {
        return Ok(true);
    }
    let mount = rustix::fs::fstatfs(&program)?;
    let read_only = rustix::fs::fstatvfs(&program)?.f_flag;
    Ok(mount.f_type == OVERLAY && read_only.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAY: rustix::fs::FsWord = 0x794c_7630;

const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// The running program, to be executed or mapped by descriptor: through a read-only overlay that is attached
/// nowhere, or where that cannot be made, as a sealed copy in memory.
pub fn open() -> Result<OwnedFd> {
    let program = std::fs::read_link("/proc/self/exe");
    let program = program.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    through_overlay(&program).or_else(|_| copy())
}

/// Costs no copy: an overlay without an upper layer can be written by nobody, and no other mount
/// leads to its files.
fn through_overlay(program: &Path) -> Result<OwnedFd> {
    let directory = program
        .parent()
        .and_then(Path::to_str)
        .ok_or(Errno::INVAL)?;
    let name = program.file_name().ok_or(Errno::INVAL)?;
    if directory.contains([':', ',', '\\']) {
        return Err(Errno::INVAL); // would have to be escaped; the copy does as well
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // An overlay without an upper layer wants two lower ones; the other may be empty.
    fsconfig_set_string(&context, "lowerdir", format!("{directory}:{EMPTY}"))?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let sealed = openat(mount.as_fd(), name, flags, Mode::empty())?;
    // A program that is bind-mounted where it lies is not in its directory's file system: the
    // overlay shows what the mount covers.
    let identity = |found: rustix::fs::Stat| {
        let changed = (found.st_mtime, found.st_mtime_nsec);
        (found.st_ino, found.st_size, changed, found.st_mode)
    };
    let running = rustix::fs::stat("/proc/self/exe")?;
    if identity(running) == identity(rustix::fs::fstat(&sealed)?) {
        Ok(sealed)
    } else {
        Err(Errno::STALE)
    }
}

/// A directory that every kernel has, with nothing in it that matters.
const EMPTY: &str = "/sys/kernel";

fn copy() -> Result<OwnedFd> {
    let io = |error: &std::io::Error| Errno::from_io_error(error).unwrap_or(Errno::IO);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let target = rustix::fs::memfd_create("program", flags)?;
    let mut source = std::fs::File::open("/proc/self/exe").map_err(|error| io(&error))?;
    let mut target = std::fs::File::from(target);
    std::io::copy(&mut source.by_ref(), &mut target).map_err(|error| io(&error))?;
    rustix::fs::fcntl_add_seals(&target, SEALS)?;
    Ok(target.into())
}
