//! What is in a tmpfs, as a tar archive: `tmpfs-dev-N.tar.gz.img`.
//!
//! The archive of an image is hostile: names are looked up below the new file system only, follow no
//! link and cross no mount.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use tar::{Builder, EntryType, Header};

use crate::error::{Context, Error, Result};
use crate::image::Directory;
use crate::procfs;

fn name(device: u32) -> String {
    format!("tmpfs-dev-{device}.tar.gz.img")
}

/// Writes the content of the file system whose root is `root`.
pub(crate) fn dump(root: &OwnedFd, device: u32, images: &Directory) -> Result<()> {
    let name = name(device);
    let file = images.create_raw(&name)?;
    let mut archive = Builder::new(GzEncoder::new(file, Compression::fast()));
    archive.follow_symlinks(false);
    let top = PathBuf::from(format!("{}/self/fd/{}", procfs::root(), root.as_raw_fd()));
    let mut linked = HashMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let from = top
            .join(&path)
            .join(if path.as_os_str().is_empty() { "." } else { "" });
        let from = if path.as_os_str().is_empty() {
            from
        } else {
            top.join(&path)
        };
        let below = add(&mut archive, &from, &path, &mut linked).during("dump", from.display())?;
        waiting.extend(below);
    }
    let file = archive.into_inner().and_then(GzEncoder::finish);
    file.during("write image", name)?.finish(images);
    Ok(())
}

/// Adds one file; returns what is in it if it is a directory.
fn add<W: Write>(
    archive: &mut Builder<W>,
    from: &Path,
    path: &Path,
    linked: &mut HashMap<u64, PathBuf>,
) -> io::Result<Vec<PathBuf>> {
    let about = std::fs::symlink_metadata(from)?;
    let kind = about.file_type();
    let stored = Path::new(".").join(path);
    let mut header = Header::new_gnu();
    header.set_metadata(&about);
    header.set_size(0);
    if !kind.is_dir() && about.nlink() > 1 {
        if let Some(first) = linked.get(&about.ino()) {
            header.set_entry_type(EntryType::Link);
            archive.append_link(&mut header, &stored, first)?;
            return Ok(Vec::new());
        }
        linked.insert(about.ino(), stored.clone());
    }
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, &stored, io::empty())?;
        let entries = std::fs::read_dir(from)?;
        let names: io::Result<Vec<_>> = entries
            .map(|entry| Ok(path.join(entry?.file_name())))
            .collect();
        return names;
    }
    if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        archive.append_link(&mut header, &stored, std::fs::read_link(from)?)?;
    } else if kind.is_file() {
        header.set_entry_type(EntryType::Regular);
        header.set_size(about.len());
        let file = File::open(from)?;
        archive.append_data(&mut header, &stored, file.take(about.len()))?;
    } else if kind.is_fifo() {
        header.set_entry_type(EntryType::Fifo);
        archive.append_data(&mut header, &stored, io::empty())?;
    } else if kind.is_char_device() || kind.is_block_device() {
        let block = kind.is_block_device();
        header.set_entry_type(if block {
            EntryType::Block
        } else {
            EntryType::Char
        });
        header.set_device_major(rustix::fs::major(about.rdev()))?;
        header.set_device_minor(rustix::fs::minor(about.rdev()))?;
        archive.append_data(&mut header, &stored, io::empty())?;
    }
    // Sockets come back with the processes that are bound to them.
    Ok(Vec::new())
}

/// Fills the empty file system whose root is `root`.
pub(crate) fn fill(root: &OwnedFd, device: u32, images: &Directory) -> Result<()> {
    let name = name(device);
    let Some(file) = images.open_raw(&name)? else {
        return Ok(());
    };
    let mut archive = tar::Archive::new(GzDecoder::new(file));
    let mut directories = Vec::new();
    for entry in archive.entries().during("read image", &name)? {
        let mut entry = entry.during("read image", &name)?;
        let path = entry.path().during("read image", &name)?.into_owned();
        let facts = extract(root, &path, &mut entry)
            .map_err(|error| Error::because("restore", path.display(), error.to_string()))?;
        if let Some(facts) = facts {
            directories.push((path, facts));
        }
    }
    // Filling a directory changes its times.
    for (path, facts) in directories.iter().rev() {
        let (parent, last) = place(root, path)
            .map_err(|error| Error::because("restore", path.display(), error.to_string()))?;
        rustix::fs::utimensat(&parent, last, &facts.times, AtFlags::SYMLINK_NOFOLLOW)
            .during("set times of", path.display())?;
    }
    Ok(())
}

/// What every file has.
#[derive(Debug)]
struct Facts {
    mode: Mode,
    user: Uid,
    group: Gid,
    times: Timestamps,
}

impl Facts {
    fn of(header: &Header) -> io::Result<Self> {
        let seconds = header.mtime()? as i64;
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        Ok(Self {
            mode: Mode::from_raw_mode(header.mode()? & 0o7777),
            user: Uid::from_raw(header.uid()? as u32),
            group: Gid::from_raw(header.gid()? as u32),
            times: Timestamps {
                last_access: time,
                last_modification: time,
            },
        })
    }
}

/// The directory that a path's last name is in, and that name; `.` for the root itself.
fn place<'a>(root: &OwnedFd, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let plain = |component: &std::path::Component<'_>| {
        matches!(
            component,
            std::path::Component::Normal(_) | std::path::Component::CurDir
        )
    };
    if !path.components().all(|component| plain(&component)) {
        return Err(io::Error::other("the name leads outside"));
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let rules = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let parent = sys::in_root::open_with(root, parent, OFlags::PATH | OFlags::DIRECTORY, rules)?;
    Ok((parent, path.file_name().unwrap_or(OsStr::from_bytes(b"."))))
}

/// Makes one file; returns the facts of a directory.
fn extract<R: Read>(
    root: &OwnedFd,
    path: &Path,
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<Option<Facts>> {
    let header = entry.header().clone();
    let facts = Facts::of(&header)?;
    let (parent, last) = place(root, path)?;
    let kind = header.entry_type();
    match kind {
        EntryType::Directory => match rustix::fs::mkdirat(&parent, last, facts.mode) {
            Ok(()) | Err(sys::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        },
        EntryType::Link => {
            let target = entry.link_name()?.unwrap_or_default().into_owned();
            let (from, name) = place(root, &target)?;
            rustix::fs::linkat(&from, name, &parent, last, AtFlags::empty())?;
            return Ok(None);
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, last)?;
        }
        EntryType::Fifo | EntryType::Char | EntryType::Block => {
            let (kind, device) = device(&header)?;
            rustix::fs::mknodat(&parent, last, kind, facts.mode, device)?;
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&parent, last, flags | OFlags::CLOEXEC, facts.mode)?;
            write_sparse(File::from(file), entry)?;
        }
        _ => return Ok(None),
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(&parent, last, Some(facts.user), Some(facts.group), flags)?;
    if kind != EntryType::Symlink {
        rustix::fs::chmodat(&parent, last, facts.mode, AtFlags::empty())?;
    }
    rustix::fs::utimensat(&parent, last, &facts.times, flags)?;
    Ok((kind == EntryType::Directory).then_some(facts))
}

fn device(header: &Header) -> io::Result<(FileType, u64)> {
    let major = header.device_major()?.unwrap_or(0);
    let minor = header.device_minor()?.unwrap_or(0);
    let number = rustix::fs::makedev(major, minor);
    Ok(match header.entry_type() {
        EntryType::Fifo => (FileType::Fifo, 0),
        EntryType::Block => (FileType::BlockDevice, number),
        _ => (FileType::CharacterDevice, number),
    })
}

/// Pages of zeros become holes.
fn write_sparse(mut file: File, content: &mut impl Read) -> io::Result<()> {
    let mut page = [0; 4096];
    let mut length = 0;
    loop {
        let mut filled = 0;
        while filled < page.len() {
            match content.read(&mut page[filled..])? {
                0 => break,
                got => filled += got,
            }
        }
        if filled == 0 {
            return file.set_len(length);
        }
        if page[..filled].iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(length))?;
            file.write_all(&page[..filled])?;
        }
        length += filled as u64;
    }
}
