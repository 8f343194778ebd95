//! Files that are open and have lost their name.
//!
//! Without any name left the content goes into `ghost-file-ID.img`; a restore makes the file anew,
//! opens it, and unlinks it. If only this name is gone, a temporary one is made (link-remap).

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};

use super::regular;
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::file::{
    GhostChunkEntry, GhostFileEntry, RegFileEntry, RemapFilePathEntry, RemapType,
};
use crate::image::tree::Timeval;
use crate::image::{Directory, Kind, Writer};

const DELETED: &str = " (deleted)";

/// Remaps `reg` if its name no longer leads to `file`.
pub(crate) fn dump_if_unlinked(
    file: &OwnedFd,
    reg: &mut RegFileEntry,
    dump: &mut Dump<'_>,
) -> Result<()> {
    let stat = rustix::fs::fstat(file).during("stat", &reg.name)?;
    // A link count of 0 also shows on files that never had a name.
    let named = |path: &str| {
        std::fs::symlink_metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (stat.st_dev, stat.st_ino))
    };
    let followed = |path: &str| {
        std::fs::metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (stat.st_dev, stat.st_ino))
    };
    if stat.st_nlink != 0 && (named(&reg.name) || followed(&reg.name)) {
        return Ok(());
    }
    let kind = FileType::from_raw_mode(stat.st_mode);
    let deleted = reg.name.strip_suffix(DELETED).map(str::to_owned);
    if let Some(name) = deleted {
        reg.name = name;
    } else if stat.st_nlink != 0 {
        // Not deleted: devices and files of file systems whose inodes change, or another mount.
        return Ok(());
    }
    if let Some(pid) = dead_proc_entry(&reg.name) {
        return remap_procfs(reg.id, pid, dump);
    }
    if stat.st_nlink != 0 && named(&reg.name) {
        return Ok(());
    }
    if stat.st_nlink == 0 || kind == FileType::Directory {
        let id = dump_ghost(file, &stat, reg, dump)?;
        return remap(reg.id, id, RemapType::Ghost, dump);
    }
    link_remap(file, reg, dump)
}

fn remap(orig_id: u32, remap_id: u32, kind: RemapType, dump: &mut Dump<'_>) -> Result<()> {
    dump.remaps.push(RemapFilePathEntry {
        orig_id,
        remap_id,
        remap_type: Some(kind as i32),
    });
    Ok(())
}

fn dead_proc_entry(name: &str) -> Option<u32> {
    name.strip_prefix("/proc/")?.split('/').next()?.parse().ok()
}

fn remap_procfs(orig_id: u32, pid: u32, dump: &mut Dump<'_>) -> Result<()> {
    remap(orig_id, pid, RemapType::Procfs, dump)
}

fn dump_ghost(
    file: &OwnedFd,
    stat: &rustix::fs::Stat,
    reg: &RegFileEntry,
    dump: &mut Dump<'_>,
) -> Result<u32> {
    let key = (stat.st_dev, stat.st_ino);
    if let Some(id) = dump.ghosts.get(&key) {
        return Ok(*id);
    }
    let bytes = stat.st_blocks as u64 * 512;
    if dump.options.ghost_limit.is_some_and(|limit| bytes > limit) {
        let cause =
            format!("it is unlinked and has {bytes} bytes: more than the limit (--ghost-limit)");
        return Err(Error::because("dump file", &reg.name, cause));
    }
    let id = dump.ghosts.len() as u32 + 1;
    dump.ghosts.insert(key, id);
    let kind = FileType::from_raw_mode(stat.st_mode);
    let regular = kind == FileType::RegularFile;
    let device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
    let mut writer = Writer::new(&format!("ghost-file-{id}.img"), Kind::GhostFile);
    let time = |seconds: i64, nanoseconds: u64| Timeval {
        tv_sec: seconds as u64,
        tv_usec: nanoseconds / 1000,
    };
    writer.entry(&GhostFileEntry {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode,
        dev: Some(image_device(stat.st_dev)),
        ino: Some(stat.st_ino),
        rdev: device.then_some(stat.st_rdev as u32),
        atim: Some(time(stat.st_atime, stat.st_atime_nsec)),
        mtim: Some(time(stat.st_mtime, stat.st_mtime_nsec)),
        chunks: regular.then_some(true),
        size: regular.then_some(stat.st_size as u64),
        symlnk_target: symlink_target(file, kind),
    });
    if regular {
        let file = regular::content(file)?;
        for (start, end) in crate::shared_memory::data_ranges(&file, stat.st_size as u64)? {
            let end = end.min(stat.st_size as u64);
            let mut bytes = vec![0; (end - start) as usize];
            file.read_exact_at(&mut bytes, start)
                .during("read", &reg.name)?;
            writer.entry(&GhostChunkEntry {
                len: end - start,
                off: start,
            });
            writer.raw(&bytes);
        }
    }
    writer.save(dump.images)?;
    Ok(id)
}

/// The kernel's internal form of a device number.
fn image_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    major << 20 | minor
}

fn symlink_target(file: &OwnedFd, kind: FileType) -> Option<String> {
    let target = rustix::fs::readlinkat(file, "", Vec::new())
        .ok()
        .filter(|_| kind == FileType::Symlink)?;
    target.into_string().ok()
}

/// Gives a file that has other names a temporary one beside the lost one.
fn link_remap(file: &OwnedFd, reg: &RegFileEntry, dump: &mut Dump<'_>) -> Result<()> {
    if !dump.options.link_remap {
        let cause = "this name was removed while others exist; allow a temporary name (link-remap)";
        return Err(Error::because("dump file", &reg.name, cause));
    }
    let parent = reg.name.rsplit_once('/').map_or("", |(parent, _)| parent);
    let id = dump.files.new_id();
    let name = format!("{parent}/link_remap.{id}");
    let from = format!("{}/self/fd/{}", crate::procfs::root(), file.as_raw_fd());
    rustix::fs::linkat(CWD, from, CWD, &name, AtFlags::SYMLINK_FOLLOW).during("link", &name)?;
    dump.temporary_links.push(name.clone());
    let linked = RegFileEntry {
        id,
        name,
        ..reg.clone()
    };
    let mut entry = super::new_entry(crate::image::file::FdTypes::Reg, id);
    entry.reg = Some(linked);
    dump.files.entries.push(entry);
    remap(reg.id, id, RemapType::Linked, dump)
}

/// The ghosts of a restore: each is made once and unlinked at the end, whatever happens.
#[derive(Debug, Default)]
pub(crate) struct Ghosts {
    made: HashMap<u32, String>,
    directories: Vec<String>,
}

impl Ghosts {
    /// The path at which ghost `id` can be opened while the restore runs.
    pub(crate) fn path(&mut self, images: &Directory, id: u32, original: &str) -> Result<String> {
        if let Some(path) = self.made.get(&id) {
            return Ok(path.clone());
        }
        let mut path = original.to_owned();
        if std::fs::symlink_metadata(&path).is_ok() {
            path = format!("{original}.cr.{id:x}.ghost");
            // A killed restore may have left it.
            let _ = std::fs::remove_file(&path);
        }
        self.make_parents(&path)?;
        create(images, id, &path)?;
        self.made.insert(id, path.clone());
        Ok(path)
    }

    fn make_parents(&mut self, path: &str) -> Result<()> {
        let mut missing = Vec::new();
        let mut parent = path;
        while let Some((head, _)) = parent.rsplit_once('/') {
            if head.is_empty() || std::fs::symlink_metadata(head).is_ok() {
                break;
            }
            missing.push(head.to_owned());
            parent = head;
        }
        for directory in missing.into_iter().rev() {
            std::fs::create_dir(&directory).during("create directory", &directory)?;
            self.directories.push(directory);
        }
        Ok(())
    }

    fn remove(&mut self) {
        let mut paths: Vec<String> = self.made.drain().map(|(_, path)| path).collect();
        paths.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in paths {
            if std::fs::remove_file(&path).is_err() {
                let _ = std::fs::remove_dir(&path);
            }
        }
        for directory in self.directories.drain(..).rev() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

impl Drop for Ghosts {
    fn drop(&mut self) {
        self.remove();
    }
}

fn create(images: &Directory, id: u32, path: &str) -> Result<()> {
    let name = format!("ghost-file-{id}.img");
    let mut reader = images
        .reader(&name, Kind::GhostFile)?
        .ok_or_else(|| Error::because("read image", &name, "it is missing"))?;
    let ghost: GhostFileEntry = reader
        .entry()?
        .ok_or_else(|| Error::because("read image", &name, "it has no entry"))?;
    let mode = Mode::from_raw_mode(ghost.mode & 0o7777);
    match FileType::from_raw_mode(ghost.mode) {
        FileType::Directory => {
            rustix::fs::mkdir(path, mode).during("create directory", path)?;
        }
        FileType::Symlink => {
            let target = ghost.symlnk_target.clone().unwrap_or_default();
            rustix::fs::symlink(target, path).during("create link", path)?;
            return Ok(());
        }
        FileType::RegularFile => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file =
                std::fs::File::from(rustix::fs::open(path, flags, mode).during("create", path)?);
            fill(&mut reader, &ghost, file, images, &name).during("fill", path)?;
        }
        kind => {
            let device = u64::from(ghost.rdev.unwrap_or(0));
            rustix::fs::mknodat(CWD, path, kind, mode, device).during("create", path)?;
        }
    }
    rustix::fs::chown(path, Some(uid(ghost.uid)), Some(gid(ghost.gid)))
        .during("change owner of", path)?;
    rustix::fs::chmod(path, mode).during("change mode of", path)?;
    let time = |time: &Option<Timeval>| {
        let time = time.clone().unwrap_or_default();
        Timespec {
            tv_sec: time.tv_sec as i64,
            tv_nsec: time.tv_usec as i64 * 1000,
        }
    };
    let times = Timestamps {
        last_access: time(&ghost.atim),
        last_modification: time(&ghost.mtim),
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).during("set times of", path)
}

fn uid(id: u32) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(id)
}

fn gid(id: u32) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(id)
}

fn fill(
    reader: &mut crate::image::Reader,
    ghost: &GhostFileEntry,
    mut file: std::fs::File,
    images: &Directory,
    name: &str,
) -> std::io::Result<()> {
    let other = |error: Error| std::io::Error::other(error.to_string());
    if ghost.chunks.unwrap_or(false) {
        while let Some(chunk) = reader.entry::<GhostChunkEntry>().map_err(other)? {
            let bytes = reader.raw(chunk.len as usize).map_err(other)?;
            file.write_all_at(bytes, chunk.off)?;
        }
        return file.set_len(ghost.size.unwrap_or(0));
    }
    // Without chunks the rest of the image is the content.
    let Some(mut image) = images.open_raw(name).map_err(other)? else {
        return Ok(());
    };
    image.seek(SeekFrom::Start(reader.position() as u64))?;
    let mut rest = Vec::new();
    image.read_to_end(&mut rest)?;
    file.write_all(&rest)
}
