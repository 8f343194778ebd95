//! inotify(7): the watches, by file handle.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::{Descriptor, new_entry, owner};
use crate::error::{Context, Error, Result};
use crate::image::event::{InotifyFileEntry, InotifyWdEntry};
use crate::image::file::{FdTypes, FhEntry, FileEntry};

/// A handle of an image has at least this many words.
const MIN_WORDS: usize = 16;

pub(crate) fn dump(descriptor: &Descriptor) -> Result<FileEntry> {
    let mut wd = Vec::new();
    for line in descriptor
        .info
        .lines()
        .filter(|line| line.starts_with("inotify "))
    {
        let mut watch =
            parse(line).ok_or_else(|| Error::because("read watch", line, "unknown form"))?;
        watch.id = descriptor.id;
        watch.f_handle.path = path_of(&watch);
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

/// `inotify wd:3 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e…`
fn parse(line: &str) -> Option<InotifyWdEntry> {
    let field = |key: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(key))
    };
    let hex = |key: &str| u64::from_str_radix(field(key)?, 16).ok();
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
    Some(InotifyWdEntry {
        id: 0,
        i_ino: hex("ino:")?,
        mask: hex("mask:")? as u32,
        ignored_mask: hex("ignored_mask:")? as u32,
        s_dev: hex("sdev:")? as u32,
        wd: u32::from_str_radix(field("wd:")?, 16).ok()?,
        f_handle: FhEntry {
            bytes: hex("fhandle-bytes:")? as u32,
            r#type: hex("fhandle-type:")? as u32,
            handle: bytes.chunks_exact(8).map(word).collect(),
            ..FhEntry::default()
        },
    })
}

/// Opens what a watch is on.
fn open(watch: &InotifyWdEntry) -> Result<OwnedFd> {
    let bytes: Vec<u8> = watch
        .f_handle
        .handle
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let length = (watch.f_handle.bytes as usize).min(bytes.len());
    let text = std::fs::read_to_string(format!("{}/self/mountinfo", crate::procfs::root()))
        .during("read", "/proc/self/mountinfo")?;
    let device = (watch.s_dev >> 20, watch.s_dev & 0xf_ffff);
    let wanted = format!("{}:{}", device.0, device.1);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.get(2) != Some(&wanted.as_str()) {
            continue;
        }
        let mount = words.get(4).copied().unwrap_or("/").replace("\\040", " ");
        let kind = watch.f_handle.r#type;
        if let Ok(fd) = sys::file_handle::open(&mount, kind, &bytes[..length]) {
            return Ok(fd);
        }
    }
    let object = format!("inode {:x} on device {wanted}", watch.i_ino);
    Err(Error::because(
        "open the watched file",
        object,
        "no mount leads to it",
    ))
}

fn path_of(watch: &InotifyWdEntry) -> Option<String> {
    let fd = open(watch).ok()?;
    let path = std::fs::read_link(format!(
        "{}/self/fd/{}",
        crate::procfs::root(),
        fd.as_raw_fd()
    ))
    .ok()?;
    path.into_os_string().into_string().ok()
}

/// The descriptor with all its watches under their numbers.
pub(crate) fn restore(entry: &InotifyFileEntry) -> Result<OwnedFd> {
    let mut flags = CreateFlags::CLOEXEC;
    if entry.flags & libc::O_NONBLOCK as u32 != 0 {
        flags |= CreateFlags::NONBLOCK;
    }
    let fd = inotify::init(flags).during("create inotify descriptor", entry.id)?;
    let mut watches: Vec<&InotifyWdEntry> = entry.wd.iter().collect();
    watches.sort_by_key(|watch| watch.wd);
    for watch in watches {
        add(&fd, watch)?;
    }
    Ok(fd)
}

fn add(fd: &OwnedFd, watch: &InotifyWdEntry) -> Result<()> {
    let (target, path);
    match open(watch) {
        Ok(opened) => {
            target = Some(opened);
            path = format!(
                "{}/self/fd/{}",
                crate::procfs::root(),
                target.as_ref().map_or(-1, AsRawFd::as_raw_fd)
            );
        }
        Err(error) => {
            let Some(known) = &watch.f_handle.path else {
                return Err(error);
            };
            path = known.clone();
        }
    }
    // Numbers are handed out upwards: take the ones before and give them back.
    loop {
        let flags = WatchFlags::from_bits_retain(watch.mask & 0x0fff);
        let number = inotify::add_watch(fd, &path, flags).during("watch", &path)?;
        if number as u32 == watch.wd {
            return Ok(());
        }
        if number as u32 > watch.wd {
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
