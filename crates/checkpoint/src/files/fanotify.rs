//! fanotify(7): marks on inodes by handle, on mounts by path. Events that wait are lost.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use sys::fanotify::{self, MARK_ADD, MARK_FILESYSTEM, MARK_IGNORED_MASK, MARK_MOUNT};

use super::inotify::{find, parse_handle, watched_path};
use super::{Descriptor, new_entry, owner};
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::event::{
    FanotifyFileEntry, FanotifyInodeMarkEntry, FanotifyMarkEntry, FanotifyMountMarkEntry, MarkType,
};
use crate::image::file::{FdTypes, FileEntry};

/// The kernel remembers in a mark that its ignored mask survives a change of the file.
const SURVIVES_MODIFY: u32 = 0x40;
const FAN_NONBLOCK: u32 = 2;

pub(crate) fn dump(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    let mut file = FanotifyFileEntry {
        id: descriptor.id,
        flags: descriptor.flags,
        fown: owner::dump(&descriptor.file),
        ..FanotifyFileEntry::default()
    };
    let lines = descriptor.info.lines();
    for line in lines.filter(|line| line.starts_with("fanotify ")) {
        let unknown = || Error::because("read mark", line, "unknown form");
        if let Some(flags) = field(line, "flags:") {
            file.faflags = flags;
            file.evflags = field(line, "event-flags:").ok_or_else(unknown)?;
            continue;
        }
        let mut mark = parse(line, descriptor).ok_or_else(unknown)?;
        mark.id = descriptor.id;
        if let Some(inode) = &mut mark.ie {
            inode.f_handle.path = watched_path(&inode.f_handle, mark.s_dev, inode.i_ino, dump)?;
        }
        file.mark.push(mark);
    }
    let mut entry = new_entry(FdTypes::Fanotify, descriptor.id);
    entry.ffy = Some(file);
    Ok(entry)
}

fn field(line: &str, key: &str) -> Option<u32> {
    let mut words = line.split_whitespace();
    let word = words.find_map(|word| word.strip_prefix(key))?;
    u32::from_str_radix(word.trim_start_matches("0x"), 16).ok()
}

/// `fanotify ino:4f969 sdev:800013 mflags:0 mask:3b ignored_mask:40000000 fhandle-bytes:8 …`, or
/// `fanotify mnt_id:12 mflags:0 mask:38 ignored_mask:40000003`; a mark on a file system names only
/// the device.
fn parse(line: &str, descriptor: &Descriptor) -> Option<FanotifyMarkEntry> {
    let mut mark = FanotifyMarkEntry {
        mflags: field(line, "mflags:")?,
        mask: field(line, "mask:")?,
        ignored_mask: field(line, "ignored_mask:")?,
        s_dev: field(line, "sdev:").unwrap_or(0),
        ..FanotifyMarkEntry::default()
    };
    if let Some(mnt_id) = field(line, "mnt_id:") {
        mark.r#type = MarkType::Mount as i32;
        let path = mount_path(descriptor.process, mnt_id);
        mark.me = Some(FanotifyMountMarkEntry { mnt_id, path });
    } else {
        mark.r#type = MarkType::Inode as i32;
        mark.ie = Some(FanotifyInodeMarkEntry {
            i_ino: u64::from_str_radix(
                line.split_whitespace()
                    .find_map(|word| word.strip_prefix("ino:"))?,
                16,
            )
            .ok()?,
            f_handle: parse_handle(line)?,
        });
    }
    Some(mark)
}

fn mount_path(process: rustix::process::Pid, id: u32) -> Option<String> {
    let text = crate::procfs::read(process, "mountinfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.split(' ').next() == Some(id.to_string().as_str()))?;
    Some(line.split(' ').nth(4)?.replace("\\040", " "))
}

/// The group, without marks: what the restore itself does to files must not be seen.
pub(crate) fn restore(entry: &FanotifyFileEntry) -> Result<OwnedFd> {
    // The flag for closing on exec would show in fdinfo.
    let mut flags = entry.faflags;
    if entry.flags & libc::O_NONBLOCK as u32 != 0 {
        flags |= FAN_NONBLOCK;
    }
    let fd = fanotify::create(flags, entry.evflags).during("create fanotify group", entry.id)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
        .during("close on exec", "fanotify group")?;
    Ok(fd)
}

/// A mark and what it is on.
#[derive(Debug)]
pub(crate) struct Mark<'a> {
    entry: &'a FanotifyMarkEntry,
    file: OwnedFd,
}

impl<'a> Mark<'a> {
    /// Finds the file; `path` is where one without a name can be opened now.
    pub(crate) fn find(entry: &'a FanotifyMarkEntry, path: Option<&str>) -> Result<Self> {
        let file = match (&entry.ie, &entry.me) {
            (Some(inode), _) => find(&inode.f_handle, entry.s_dev, inode.i_ino, path)?,
            (None, Some(mount)) => {
                let known = mount.path.as_deref().unwrap_or("/");
                find(&Default::default(), 0, 0, Some(known))?
            }
            (None, None) => {
                let cause = "its image names neither a file nor a mount";
                return Err(Error::because("restore mark of", entry.id, cause));
            }
        };
        Ok(Self { entry, file })
    }
}

/// Makes all marks of a group.
pub(crate) fn mark_all(group: &OwnedFd, marks: &[Mark<'_>]) -> Result<()> {
    for Mark { entry, file } in marks {
        let path = format!("{}/self/fd/{}", crate::procfs::root(), file.as_raw_fd());
        let object = CString::new(path.clone()).unwrap_or_default();
        let kind = match (&entry.ie, &entry.me) {
            (None, Some(_)) => MARK_MOUNT,
            _ => entry.mflags & MARK_FILESYSTEM,
        };
        if entry.mask != 0 {
            fanotify::mark(group, MARK_ADD | kind, entry.mask.into(), &object)
                .during("mark", &path)?;
        }
        if entry.ignored_mask != 0 {
            let flags = MARK_ADD | MARK_IGNORED_MASK | kind | entry.mflags & SURVIVES_MODIFY;
            fanotify::mark(group, flags, entry.ignored_mask.into(), &object)
                .during("mark", &path)?;
        }
    }
    Ok(())
}
