//! Files of a cgroup file system: small, read and written whole, in as few calls as can be.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};
use sys::Errno;

use crate::error::{Error, Result};

/// The whole text of a file; bytes that are no UTF-8 (names inside a container) are replaced.
pub(crate) fn read(path: &Path) -> Result<String> {
    let bytes = read_bytes(path).map_err(|errno| Error::kernel("read", path, errno))?;
    Ok(text(bytes))
}

/// Like [`read`], for files that may not be there.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>> {
    match read_bytes(path) {
        Ok(bytes) => Ok(Some(text(bytes))),
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(errno) => Err(Error::kernel("read", path, errno)),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

pub(crate) fn read_bytes(path: &Path) -> sys::Result<Vec<u8>> {
    read_all(&open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

pub(crate) fn read_bytes_at(directory: BorrowedFd<'_>, name: &str) -> sys::Result<Vec<u8>> {
    read_all(&openat(
        directory,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn read_all(file: &OwnedFd) -> sys::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if bytes.spare_capacity_mut().is_empty() {
            bytes.reserve(bytes.len());
        }
        match rustix::io::read(file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Writes a value in one `write`, which is how the kernel wants it. Never creates the file.
pub(crate) fn write(path: &Path, value: &str) -> sys::Result<()> {
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    loop {
        match rustix::io::write(&file, value.as_bytes()) {
            Err(Errno::INTR) => {}
            written => return written.map(drop),
        }
    }
}

/// An O_PATH descriptor of a directory.
pub(crate) fn directory(path: &Path) -> Result<OwnedFd> {
    open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| Error::kernel("open group", path, errno))
}
