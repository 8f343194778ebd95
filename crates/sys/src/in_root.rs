//! Paths inside a root directory that a hostile tenant fills.
//!
//! Problem: a path inside a container's root file system may lead through symbolic links, which the
//! tenant chooses, and which it may swap between two steps of ours (CVE-2021-30465).
//! Solution: every look-up is one openat2(2) with `RESOLVE_IN_ROOT` (since Linux 5.6), which follows
//! links as a chroot would, and what follows works on the descriptor, never on the path again.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};

use crate::{Errno, Result};

/// What to create where a path ends in nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Directory,
    File,
}

/// Opens an existing object below `root` as an `O_PATH` handle, following links inside the root.
pub fn open(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    open_with(root, path, OFlags::PATH, ResolveFlags::empty())
}

/// Opens below `root` with flags and more resolve rules of the caller's choice.
pub fn open_with(
    root: impl AsFd,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let path = if path == Path::new("/") {
        Path::new(".")
    } else {
        path
    };
    // EAGAIN: the kernel saw a rename or mount meanwhile and could not be sure of "..".
    for _ in 0..128 {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | resolve;
        match openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens an object below `root` as an `O_PATH` handle; what is missing of the path is made first:
/// directories with mode 0755, the last component as asked for.
///
/// # Errors
/// `ENOTDIR`: a component exists and is no directory. `ELOOP`: a dangling link stands where
/// something would have to be made.
pub fn open_or_create(root: impl AsFd, path: &Path, missing: Missing) -> Result<OwnedFd> {
    match open(&root, path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let names = names(path)?;
    let mut here = open(&root, Path::new("/"))?;
    let mut seen = std::path::PathBuf::from("/");
    for (index, name) in names.iter().enumerate() {
        seen.push(name);
        let last = index + 1 == names.len();
        here = match open(&root, &seen) {
            Ok(next) => next,
            Err(Errno::NOENT) if last && missing == Missing::File => make_file(&here, name)?,
            Err(Errno::NOENT) => make_directory(&here, name)?,
            Err(errno) => return Err(errno),
        };
    }
    Ok(here)
}

/// The plain names of a path; `..` is refused, for it has no meaning where nothing exists yet.
fn names(path: &Path) -> Result<Vec<&OsStr>> {
    path.components()
        .filter(|component| !matches!(component, Component::RootDir | Component::CurDir))
        .map(|component| match component {
            Component::Normal(name) => Ok(name),
            _ => Err(Errno::INVAL),
        })
        .collect()
}

fn make_directory(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn make_file(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(
        parent,
        name,
        create | OFlags::RDONLY,
        Mode::from_raw_mode(0o644),
    ) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens the directory that a path's last name is in, making what is missing, and gives that name.
pub fn open_parent(root: impl AsFd, path: &Path) -> Result<(OwnedFd, &OsStr)> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok((open_or_create(root, parent, Missing::Directory)?, name))
}

/// The path of an open descriptor as the kernel tells it now (`/proc/self/fd/N`).
pub fn path_of(fd: BorrowedFd<'_>) -> Result<std::path::PathBuf> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new())?;
    Ok(OsStr::from_bytes(path.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (std::path::PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!(
            "in-root-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&path).unwrap();
        let fd = openat(rustix::fs::CWD, &path, OFlags::PATH, Mode::empty()).unwrap();
        (path, fd)
    }

    #[test]
    fn a_link_to_the_host_stays_inside() {
        let (path, fd) = root();
        symlink("/outside", path.join("link")).unwrap();
        std::fs::create_dir(path.join("outside")).unwrap();
        open_or_create(&fd, Path::new("/link/made"), Missing::Directory).unwrap();
        assert!(path.join("outside/made").is_dir());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_dangling_link_is_not_created_through() {
        let (path, fd) = root();
        symlink("/nowhere", path.join("link")).unwrap();
        let result = open_or_create(&fd, Path::new("/link"), Missing::File);
        assert!(result.is_ok_and(|fd| path_of(fd.as_fd()).unwrap().ends_with("link")));
        assert!(!path.join("nowhere").exists());
        std::fs::remove_dir_all(path).unwrap();
    }
}
