//! Files and directories that have a path: also devices without state, and O_PATH descriptors.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::process::Pid;

use super::{Descriptor, ghost, new_entry, owner};
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::external;
use crate::image::file::{FdTypes, FileEntry, FownEntry, RegFileEntry};

/// Flags that only have a meaning while opening.
const OPENING: u32 =
    (libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY | libc::O_CLOEXEC) as u32;
const O_TMPFILE: u32 = 0o20_200_000;
const FASYNC: u32 = 0o20_000;

/// Dumps an open file that has a path, or that the caller brings again.
pub(crate) fn dump(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    if let Some(name) = external::name_file(descriptor, dump)? {
        let mut entry = new_entry(FdTypes::Reg, descriptor.id);
        entry.reg = Some(RegFileEntry {
            id: descriptor.id,
            flags: descriptor.flags,
            pos: descriptor.position,
            fown: owner::dump(&descriptor.file),
            name,
            ext: Some(true),
            mode: Some(descriptor.stat.st_mode),
            ..RegFileEntry::default()
        });
        return Ok(entry);
    }
    dump_by_path(descriptor, dump)
}

/// Dumps an open file that has a path.
pub(crate) fn dump_by_path(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    let stat = &descriptor.stat;
    let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    let mut reg = RegFileEntry {
        id: descriptor.id,
        flags: descriptor.flags,
        pos: descriptor.position,
        fown: owner::dump(&descriptor.file),
        name: descriptor.link.clone(),
        mode: Some(stat.st_mode),
        size: regular.then_some(stat.st_size as u64),
        mnt_id: crate::namespace::mount_id(&descriptor.info, dump),
        ..RegFileEntry::default()
    };
    ghost::dump_if_unlinked(&descriptor.file, &mut reg, dump)?;
    let mut entry = new_entry(FdTypes::Reg, descriptor.id);
    entry.reg = Some(reg);
    Ok(entry)
}

/// Dumps what `/proc/PID/NAME` points at (the program, a mapped file, a directory); returns its id.
pub(crate) fn dump_path(pid: Pid, name: &str, flags: u32, dump: &mut Dump<'_>) -> Result<u32> {
    let path = format!("{}/{pid}/{name}", crate::procfs::root());
    let link = std::fs::read_link(&path).during("read link", &path)?;
    let link = link.to_string_lossy().into_owned();
    let about = std::fs::metadata(&path).during("stat", &path)?;
    let key = (about.dev(), about.ino(), flags, link.clone());
    if let Some(id) = dump.paths.get(&key) {
        return Ok(*id);
    }
    let id = dump.files.new_id();
    let mut reg = RegFileEntry {
        id,
        flags,
        fown: FownEntry::default(),
        name: link,
        mode: Some(about.mode()),
        size: about.is_file().then_some(about.len()),
        ..RegFileEntry::default()
    };
    let file = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .during("open", &path)?;
    reg.mnt_id = crate::namespace::mount_id_of(&file, dump)?;
    ghost::dump_if_unlinked(&file, &mut reg, dump)?;
    let mut entry = new_entry(FdTypes::Reg, id);
    entry.reg = Some(reg);
    dump.files.entries.push(entry);
    dump.paths.insert(key, id);
    Ok(id)
}

/// Dumps a file without a name that is only watched; returns the name that it had.
pub(crate) fn dump_watched(
    id: u32,
    file: &OwnedFd,
    name: String,
    dump: &mut Dump<'_>,
) -> Result<String> {
    let mut reg = RegFileEntry {
        id,
        name,
        ..RegFileEntry::default()
    };
    ghost::dump_if_unlinked(file, &mut reg, dump)?;
    let name = reg.name.clone();
    let mut entry = new_entry(FdTypes::Reg, id);
    entry.reg = Some(reg);
    dump.files.entries.push(entry);
    Ok(name)
}

/// Opens the file of an image with its flags and position.
pub(crate) fn restore(reg: &RegFileEntry, path: &str) -> Result<OwnedFd> {
    let fd = open(path, reg, reg.flags)?;
    if reg.flags & libc::O_PATH as u32 == 0 && reg.pos != 0 {
        match rustix::fs::seek(&fd, SeekFrom::Start(reg.pos)) {
            // What cannot seek had no position either.
            Ok(_) | Err(sys::Errno::SPIPE | sys::Errno::INVAL) => {}
            Err(errno) => return Err(Error::kernel("seek in", &reg.name, errno)),
        }
    }
    Ok(fd)
}

/// Opens `path` with `flags` and checks that it is the file of the image.
pub(crate) fn open(path: &str, reg: &RegFileEntry, flags: u32) -> Result<OwnedFd> {
    let mut kept = flags & !(OPENING | FASYNC);
    if kept & O_TMPFILE == O_TMPFILE {
        kept &= !O_TMPFILE;
    }
    let flags = OFlags::from_bits_retain(kept) | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        // Only the owner of a file may ask for O_NOATIME; no one can see that it is missing.
        Err(sys::Errno::PERM) => rustix::fs::open(path, flags - OFlags::NOATIME, Mode::empty()),
        other => other,
    }
    .during("open", path)?;
    check(&fd, reg)?;
    Ok(fd)
}

fn check(fd: &OwnedFd, reg: &RegFileEntry) -> Result<()> {
    let stat = rustix::fs::fstat(fd).during("stat", &reg.name)?;
    if let Some(mode) = reg.mode
        && mode & libc::S_IFMT != stat.st_mode & libc::S_IFMT
    {
        return Err(Error::because(
            "open",
            &reg.name,
            "it is another kind of file than at the dump",
        ));
    }
    if let Some(size) = reg.size
        && size != stat.st_size as u64
    {
        let cause = format!("its size is {}, at the dump it was {size}", stat.st_size);
        return Err(Error::because("open", &reg.name, cause));
    }
    Ok(())
}

/// Reads all of a file that the engine has open.
pub(crate) fn content(file: &OwnedFd) -> Result<File> {
    let again = format!(
        "{}/self/fd/{}",
        crate::procfs::root(),
        std::os::fd::AsRawFd::as_raw_fd(file)
    );
    File::open(&again).during("open", &again)
}
