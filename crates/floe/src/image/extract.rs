//! Extracts a layer's archive.
//!
//! Attack: an archive is anybody's. Its names climb out (`../../etc/passwd`), its links lead out
//! and later names go through them, its attributes make the overlay show what it should not. So
//! every name is resolved below the target directory by the kernel (openat2, RESOLVE_IN_ROOT), the
//! last component is never followed, devices are left out, and attributes are a short list.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, linkat, mkdirat, mkfifoat, mknodat, openat, statat, symlinkat,
    unlinkat, utimensat,
};
use tar::{Archive, Entry, EntryType};

/// To whom extracted files belong.
#[derive(Debug)]
pub(super) enum Owner {
    /// To the caller, who may not give files away.
    Caller,
    /// To whom the archive says, shifted by this many uids and gids.
    Archive((u32, u32)),
}

/// Extracts an archive into an empty directory; whiteouts become those of overlayfs.
pub(super) fn extract(archive: Box<dyn Read>, directory: &Path, owner: &Owner) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty())
        .with_context(|| format!("open `{}`", directory.display()))?;
    // A root directory that the archive does not name.
    fchmod(&root, Mode::from_raw_mode(0o755)).context("set mode of the root")?;
    let mut target = Target {
        root,
        owner,
        directories: Vec::new(),
    };
    let mut archive = Archive::new(archive);
    for entry in archive.entries().context("read archive")? {
        let mut entry = entry.context("read archive")?;
        let name = entry.path_bytes().into_owned();
        target.entry(&mut entry).with_context(|| {
            format!(
                "extract `{}`",
                crate::text::plain(&String::from_utf8_lossy(&name))
            )
        })?;
    }
    target.finish_directories()
}

struct Target<'a> {
    root: OwnedFd,
    owner: &'a Owner,
    /// Modes and times of directories, set at the end: one that is closed to us or whose time
    /// counts is written to by later entries.
    directories: Vec<(PathBuf, u32, i64)>,
}

impl Target<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, Box<dyn Read>>) -> Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = inner_path(&entry.path_bytes())?;
        let Some(name) = path.file_name() else {
            // The root itself.
            let header = entry.header();
            self.directories
                .push((PathBuf::from("."), header.mode()?, seconds(header.mtime()?)));
            return self.own(&self.root, entry);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = self.open_parent(parent)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return whiteout(&parent, hidden);
        }
        let name = Path::new(name);
        match kind {
            EntryType::Directory => self.directory(&parent, name, &path, entry),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                make_room(&parent, name)?;
                self.file(&parent, name, entry)
            }
            EntryType::Symlink => {
                let link = entry
                    .link_name_bytes()
                    .context("a link to nothing")?
                    .into_owned();
                make_room(&parent, name)?;
                symlinkat(std::ffi::OsStr::from_bytes(&link), &parent, name)?;
                self.own_link(&parent, name, entry)
            }
            EntryType::Link => {
                let link = entry
                    .link_name_bytes()
                    .context("a link to nothing")?
                    .into_owned();
                let link = inner_path(&link)?;
                let own = link.file_name().context("a link to the root")?;
                let from = self.open_parent(link.parent().unwrap_or(Path::new("")))?;
                make_room(&parent, name)?;
                // A link to a symbolic link is one to the link itself.
                Ok(linkat(&from, own, &parent, name, AtFlags::empty())?)
            }
            EntryType::Fifo => {
                make_room(&parent, name)?;
                mkfifoat(
                    &parent,
                    name,
                    Mode::from_raw_mode(entry.header().mode()? & 0o777),
                )?;
                self.own_link(&parent, name, entry)
            }
            // Containers get their devices from the runtime.
            _ => Ok(()),
        }
    }

    /// Opens a directory, making what is missing. A link that leads to nothing yet (`/var/run` to
    /// `/run`, before `/run` comes) leads to a directory made there: below the root, like all.
    fn open_parent(&self, path: &Path) -> Result<OwnedFd> {
        use sys::in_root::{Missing, open_or_create};
        let mut path = Path::new("/").join(path);
        for _ in 0..40 {
            match open_or_create(self.root.as_fd(), &path, Missing::Directory) {
                Ok(handle) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    return Ok(openat(&handle, ".", flags, Mode::empty())?);
                }
                Err(errno) => path = self.past_dangling_link(&path).ok_or(errno)?,
            }
        }
        Err(sys::Errno::LOOP.into())
    }

    /// The path with its first dangling link replaced by where it leads.
    fn past_dangling_link(&self, path: &Path) -> Option<PathBuf> {
        let mut seen = PathBuf::from("/");
        let mut parts = path.components().skip(1);
        while let Some(part) = parts.next() {
            let above = sys::in_root::open(self.root.as_fd(), &seen).ok()?;
            let name = Path::new(part.as_os_str());
            let there = sys::in_root::open(self.root.as_fd(), &seen.join(name)).is_ok();
            if !there && let Ok(link) = rustix::fs::readlinkat(&above, name, Vec::new()) {
                let link = Path::new(std::ffi::OsStr::from_bytes(link.as_bytes()));
                let rest: PathBuf = parts.collect();
                return Some(climb(&seen.join(link).join(rest)));
            }
            seen.push(name);
        }
        None
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &Path,
        path: &Path,
        entry: &mut Entry<'_, Box<dyn Read>>,
    ) -> Result<()> {
        if !is_directory(parent, name) {
            make_room(parent, name)?;
            mkdirat(parent, name, Mode::RWXU)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(parent, name, flags, Mode::empty())?;
        let header = entry.header();
        self.directories
            .push((path.to_owned(), header.mode()?, seconds(header.mtime()?)));
        self.own(&directory, entry)
    }

    fn file(
        &self,
        parent: &OwnedFd,
        name: &Path,
        entry: &mut Entry<'_, Box<dyn Read>>,
    ) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(fd);
        std::io::copy(entry, &mut file)?;
        let fd = OwnedFd::from(file);
        self.own(&fd, entry)?;
        // After the owner: a change of owner takes set-id bits and capabilities away.
        fchmod(&fd, Mode::from_raw_mode(entry.header().mode()? & 0o7777))?;
        self.attributes(&fd, entry)?;
        let times = times(seconds(entry.header().mtime()?));
        Ok(rustix::fs::futimens(&fd, &times)?)
    }

    /// Of extended attributes only file capabilities: overlayfs's own would change what the
    /// layers show.
    fn attributes(&self, fd: &OwnedFd, entry: &mut Entry<'_, Box<dyn Read>>) -> Result<()> {
        let Some(extensions) = entry.pax_extensions()? else {
            return Ok(());
        };
        for extension in extensions {
            let extension = extension?;
            if extension.key_bytes() == b"SCHILY.xattr.security.capability"
                && matches!(self.owner, Owner::Archive((0, 0)))
            {
                let name = "security.capability";
                fsetxattr(fd, name, extension.value_bytes(), XattrFlags::empty())?;
            }
        }
        Ok(())
    }

    fn own(&self, fd: &OwnedFd, entry: &Entry<'_, Box<dyn Read>>) -> Result<()> {
        if let Some((uid, gid)) = self.owner_of(entry)? {
            fchown(fd, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    fn own_link(
        &self,
        parent: &OwnedFd,
        name: &Path,
        entry: &Entry<'_, Box<dyn Read>>,
    ) -> Result<()> {
        if let Some((uid, gid)) = self.owner_of(entry)? {
            chownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(())
    }

    fn owner_of(&self, entry: &Entry<'_, Box<dyn Read>>) -> Result<Option<(Uid, Gid)>> {
        let Owner::Archive(shift) = self.owner else {
            return Ok(None);
        };
        let id = |id: u64, shift: u32| -> Result<u32> {
            let id = u32::try_from(id).ok().and_then(|id| id.checked_add(shift));
            id.filter(|id| *id != u32::MAX)
                .context("an owner beyond all ids")
        };
        let header = entry.header();
        let (uid, gid) = (id(header.uid()?, shift.0)?, id(header.gid()?, shift.1)?);
        Ok(Some((Uid::from_raw(uid), Gid::from_raw(gid))))
    }

    fn finish_directories(&self) -> Result<()> {
        // The deepest first: closing a directory to oneself must not hide those below.
        for (path, mode, time) in self.directories.iter().rev() {
            let told = || format!("set mode of `{}`", path.display());
            let parent = self.open_parent(path.parent().unwrap_or(Path::new("")))?;
            let name = path.file_name().map_or(Path::new("."), Path::new);
            // A later entry may have put something else in its place.
            if !is_directory(&parent, name) {
                continue;
            }
            // Another user's container opens the layer through this directory.
            chmodat(
                &parent,
                name,
                Mode::from_raw_mode(mode & 0o7777),
                AtFlags::empty(),
            )
            .with_context(told)?;
            utimensat(&parent, name, &times(*time), AtFlags::SYMLINK_NOFOLLOW)
                .with_context(told)?;
        }
        Ok(())
    }
}

/// A name in the archive as a path below the root: no way up, no NUL.
fn inner_path(name: &[u8]) -> Result<PathBuf> {
    if name.contains(&0) {
        bail!("a name with a NUL");
    }
    let mut inner = PathBuf::new();
    for part in Path::new(std::ffi::OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(name) => inner.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => bail!("a name that climbs with `..`"),
        }
    }
    Ok(inner)
}

/// The path without `..`; at the root it stays at the root.
fn climb(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all that the directory has there.
fn whiteout(parent: &OwnedFd, hidden: &[u8]) -> Result<()> {
    if hidden == b".wh..opq" {
        // For overlays of root and of user namespaces; who may not set the first needs the second.
        let user = fsetxattr(parent, "user.overlay.opaque", b"y", XattrFlags::empty());
        let trusted = fsetxattr(parent, "trusted.overlay.opaque", b"y", XattrFlags::empty());
        return Ok(trusted.or(user)?);
    }
    // Other marks of layer tools.
    if hidden.starts_with(b".wh.") || hidden.is_empty() || hidden == b"." || hidden == b".." {
        return Ok(());
    }
    let name = Path::new(std::ffi::OsStr::from_bytes(hidden));
    make_room(parent, name)?;
    Ok(mknodat(
        parent,
        name,
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )?)
}

fn is_directory(parent: &OwnedFd, name: &Path) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|what| FileType::from_raw_mode(what.st_mode) == FileType::Directory)
}

/// A later entry replaces an earlier one of the same name.
fn make_room(parent: &OwnedFd, name: &Path) -> Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(sys::Errno::NOENT) => Ok(()),
        Err(sys::Errno::ISDIR) => Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?),
        Err(errno) => Err(errno.into()),
    }
}

fn seconds(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(0)
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, Header};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("floe-tar-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("root")).unwrap();
            Self(path)
        }

        fn extract(&self, archive: Vec<u8>) -> Result<()> {
            let reader = Box::new(std::io::Cursor::new(archive));
            extract(reader, &self.0.join("root"), &Owner::Caller)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// An archive of entries whose names the tar library would refuse to write.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            let mut data = content.as_bytes();
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(data);
                data = b"";
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn names_and_links_cannot_leave_the_directory() {
        use EntryType::{Regular, Symlink};
        let scratch = Scratch::new("escape");
        let outside = scratch.0.join("outside");
        std::fs::create_dir(&outside).unwrap();
        let out = outside.to_str().unwrap();
        assert!(
            scratch
                .extract(archive(&[("../outside/a", Regular, "x")]))
                .is_err()
        );
        scratch
            .extract(archive(&[("out", Symlink, out), ("out/b", Regular, "x")]))
            .unwrap();
        scratch
            .extract(archive(&[
                ("/abs", Regular, "x"),
                ("up", Symlink, "../outside"),
            ]))
            .unwrap();
        scratch.extract(archive(&[("up/c", Regular, "x")])).unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(scratch.0.join("root/abs").is_file());
        // The links lead to the same paths below the root.
        assert!(scratch.0.join("root/outside/c").is_file());
        assert!(scratch.0.join(format!("root{out}/b")).is_file());
    }

    #[test]
    fn a_file_replaces_a_link_instead_of_writing_through_it() {
        use EntryType::{Link, Regular, Symlink};
        let scratch = Scratch::new("replace");
        let victim = scratch.0.join("victim");
        std::fs::write(&victim, "old").unwrap();
        let path = victim.to_str().unwrap();
        scratch
            .extract(archive(&[("a", Symlink, path), ("a", Regular, "new")]))
            .unwrap();
        assert!(
            scratch
                .extract(archive(&[("b", Link, "../victim")]))
                .is_err()
        );
        assert!(scratch.extract(archive(&[("c", Link, path)])).is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "old");
        assert_eq!(
            std::fs::read_to_string(scratch.0.join("root/a")).unwrap(),
            "new"
        );
    }

    #[test]
    fn whiteouts_become_those_of_overlayfs() {
        use EntryType::{Directory, Regular};
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let scratch = Scratch::new("whiteout");
        scratch
            .extract(archive(&[
                ("etc", Directory, ""),
                ("etc/.wh.gone", Regular, ""),
                ("etc/.wh...", Regular, ""),
                ("etc/kept", Regular, "x"),
            ]))
            .unwrap();
        let gone = scratch.0.join("root/etc/gone").symlink_metadata().unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert_eq!(
            std::fs::read_dir(scratch.0.join("root/etc"))
                .unwrap()
                .count(),
            2
        );
    }

    #[test]
    fn a_closed_directory_can_still_be_filled() {
        use EntryType::{Directory, Regular};
        let scratch = Scratch::new("closed");
        let mut bytes = archive(&[("d", Directory, ""), ("d/f", Regular, "x")]);
        // Mode 0500 in the first header.
        bytes[100..107].copy_from_slice(b"0000500");
        let sum: u32 = bytes[..512]
            .iter()
            .enumerate()
            .map(|(index, byte)| {
                u32::from(if (148..156).contains(&index) {
                    b' '
                } else {
                    *byte
                })
            })
            .sum();
        bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        scratch.extract(bytes).unwrap();
        assert_eq!(
            std::fs::read_to_string(scratch.0.join("root/d/f")).unwrap(),
            "x"
        );
    }
}
