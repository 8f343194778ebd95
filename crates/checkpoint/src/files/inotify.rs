//! inotify(7): the watches, by file handle.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::{Descriptor, new_entry, owner, regular};
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::event::{InotifyFileEntry, InotifyWdEntry};
use crate::image::file::{FdTypes, FhEntry, FileEntry};

/// A handle of an image has at least this many words.
const MIN_WORDS: usize = 16;

pub(crate) fn dump(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    let mut wd = Vec::new();
    for line in descriptor
        .info
        .lines()
        .filter(|line| line.starts_with("inotify "))
    {
        let mut watch =
            parse(line).ok_or_else(|| Error::because("read watch", line, "unknown form"))?;
        watch.id = descriptor.id;
        watch.f_handle.path = watched_path(&watch.f_handle, watch.s_dev, watch.i_ino, dump)?;
        wd.push(watch);
    }
    // Newest first in fdinfo.
    wd.sort_by_key(|watch| watch.wd);
    let mut entry = new_entry(FdTypes::Inotify, descriptor.id);
    entry.ify = Some(InotifyFileEntry {
        id: descriptor.id,
        flags: descriptor.flags,
        fown: owner::dump(&descriptor.file),
        wd,
    });
    Ok(entry)
}

/// The path of a watched file; one that has no name any more is dumped as a ghost.
pub(super) fn watched_path(
    handle: &FhEntry,
    device: u32,
    inode: u64,
    dump: &mut Dump<'_>,
) -> Result<Option<String>> {
    let Ok(file) = open(handle, device, inode) else {
        return Ok(None);
    };
    let link = std::fs::read_link(format!(
        "{}/self/fd/{}",
        crate::procfs::root(),
        file.as_raw_fd()
    ));
    let Ok(path) = link
        .during("read link of", "a watched file")?
        .into_os_string()
        .into_string()
    else {
        return Ok(None);
    };
    if path.ends_with(" (deleted)") {
        let id = dump.files.new_id();
        return regular::dump_watched(id, &file, path, dump).map(Some);
    }
    Ok(Some(path))
}

/// `inotify wd:3 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e…`
fn parse(line: &str) -> Option<InotifyWdEntry> {
    let field = |key: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(key))
    };
    let hex = |key: &str| u64::from_str_radix(field(key)?, 16).ok();
    Some(InotifyWdEntry {
        id: 0,
        i_ino: hex("ino:")?,
        mask: hex("mask:")? as u32,
        ignored_mask: hex("ignored_mask:")? as u32,
        s_dev: hex("sdev:")? as u32,
        wd: u32::from_str_radix(field("wd:")?, 16).ok()?,
        f_handle: parse_handle(line)?,
    })
}

/// `fhandle-bytes:8 fhandle-type:1 f_handle:7e9e…`
pub(super) fn parse_handle(line: &str) -> Option<FhEntry> {
    let field = |key: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(key))
    };
    let hex = |key: &str| u32::from_str_radix(field(key)?, 16).ok();
    let text = field("f_handle:")?;
    let mut bytes: Vec<u8> = (0..text.len() / 2)
        .filter_map(|at| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok())
        .collect();
    let length = bytes.len().next_multiple_of(8).max(MIN_WORDS * 8);
    bytes.resize(length, 0);
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    Some(FhEntry {
        bytes: hex("fhandle-bytes:")?,
        r#type: hex("fhandle-type:")?,
        handle: bytes.chunks_exact(8).map(word).collect(),
        ..FhEntry::default()
    })
}

/// Opens what a watch is on.
pub(super) fn open(file: &FhEntry, device: u32, inode: u64) -> Result<OwnedFd> {
    let bytes: Vec<u8> = file
        .handle
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let length = (file.bytes as usize).min(bytes.len());
    let text = std::fs::read_to_string(format!("{}/self/mountinfo", crate::procfs::root()))
        .during("read", "/proc/self/mountinfo")?;
    let wanted = format!("{}:{}", device >> 20, device & 0xf_ffff);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.get(2) != Some(&wanted.as_str()) {
            continue;
        }
        let mount = words.get(4).copied().unwrap_or("/").replace("\\040", " ");
        if let Ok(fd) = sys::file_handle::open(&mount, file.r#type, &bytes[..length]) {
            return Ok(fd);
        }
    }
    let object = format!("inode {inode:x} on device {wanted}");
    Err(Error::because(
        "open the watched file",
        object,
        "no mount leads to it",
    ))
}

/// The descriptor, without watches: what the restore itself does to files must not be seen.
pub(crate) fn restore(entry: &InotifyFileEntry) -> Result<OwnedFd> {
    let mut flags = CreateFlags::CLOEXEC;
    if entry.flags & libc::O_NONBLOCK as u32 != 0 {
        flags |= CreateFlags::NONBLOCK;
    }
    inotify::init(flags).during("create inotify descriptor", entry.id)
}

/// A watch and the file that it is on.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) entry: &'a InotifyWdEntry,
    pub(crate) file: OwnedFd,
}

impl<'a> Watch<'a> {
    /// Finds the file; `path` is where one without a name can be opened now.
    pub(crate) fn find(entry: &'a InotifyWdEntry, path: Option<&str>) -> Result<Self> {
        let file = find(&entry.f_handle, entry.s_dev, entry.i_ino, path)?;
        Ok(Self { entry, file })
    }
}

/// By `path`, by handle, or by the path of the image, in this order.
pub(super) fn find(
    handle: &FhEntry,
    device: u32,
    inode: u64,
    path: Option<&str>,
) -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let by_path = |path: &str| {
        rustix::fs::open(path, flags, rustix::fs::Mode::empty()).during("open watched file", path)
    };
    if let Some(path) = path {
        return by_path(path);
    }
    open(handle, device, inode).or_else(|error| match &handle.path {
        Some(known) => by_path(known),
        None => Err(error),
    })
}

/// Makes all watches of a descriptor, each under its number.
pub(crate) fn watch_all(fd: &OwnedFd, watches: &mut [Watch<'_>]) -> Result<()> {
    watches.sort_by_key(|watch| watch.entry.wd);
    watches.iter().try_for_each(|watch| add(fd, watch))
}

fn add(fd: &OwnedFd, watch: &Watch<'_>) -> Result<()> {
    let path = format!(
        "{}/self/fd/{}",
        crate::procfs::root(),
        watch.file.as_raw_fd()
    );
    let wanted = watch.entry.wd;
    // Numbers are handed out upwards: take the ones before and give them back.
    loop {
        let flags = WatchFlags::from_bits_retain(watch.entry.mask & 0x0fff);
        let number = inotify::add_watch(fd, &path, flags).during("watch", &path)?;
        if number as u32 == wanted {
            return Ok(());
        }
        if number as u32 > wanted {
            let cause = format!("it got watch number {number}");
            return Err(Error::because("watch", &path, cause));
        }
        inotify::remove_watch(fd, number).during("stop watching", &path)?;
        let mut events = [0; 4096];
        while rustix::io::ioctl_fionread(fd).is_ok_and(|left| left > 0) {
            rustix::io::read(fd, &mut events).during("read events of", &path)?;
        }
    }
}
