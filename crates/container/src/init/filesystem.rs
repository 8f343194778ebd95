//! New file system instances by fsopen(2), and a tmpfs that starts as a copy.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::error::{During, Error, Result};
use crate::plan::mount::Parameter;

/// Mounts an instance, attached nowhere; `attributes` are bits of [`sys::mount::attribute`].
pub(super) fn mount(
    kind: &str,
    source: &str,
    parameters: &[Parameter],
    attributes: u64,
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).during(|| "fsopen")?;
    // Some file systems have no source (mqueue) and refuse the word; it is only a label then.
    let _label = fsconfig_set_string(&context, "source", source);
    for parameter in parameters {
        let set = match parameter {
            Parameter::Flag(name) => fsconfig_set_flag(&context, name.as_str()),
            Parameter::Value(name, value) => {
                fsconfig_set_string(&context, name.as_str(), value.as_str())
            }
        };
        set.map_err(|errno| refused(&context, errno, &option(parameter)))?;
    }
    fsconfig_create(&context).map_err(|errno| refused(&context, errno, "create"))?;
    let attributes = u32::try_from(attributes).unwrap_or_default();
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(attributes),
    )
    .during(|| "fsmount")
}

fn option(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Flag(name) => format!("option `{name}`"),
        Parameter::Value(name, value) => format!("option `{name}={value}`"),
    }
}

/// The kernel says in the context's log what it did not like (fsopen(2) messages, `e …`).
fn refused(context: &OwnedFd, errno: sys::Errno, what: &str) -> Error {
    let mut buffer = [0u8; 256];
    let cause = sys::errno::describe(errno);
    match rustix::io::read(context, &mut buffer) {
        Ok(length) if length > 2 => {
            let text = String::from_utf8_lossy(&buffer[2..length]);
            Error::new(what, format!("{cause}: {}", text.trim_end()))
        }
        _ => Error::new(what, cause),
    }
}

/// The deepest directory that is copied; an image deeper than that is hostile.
const DEPTH: usize = 64;

/// Fills a new tmpfs with what its destination holds (`tmpcopyup`). Owners and modes are kept, that
/// of the destination itself only on request; devices and sockets are left out.
pub(super) fn copy_up(from: &OwnedFd, to: &OwnedFd, inherit_mode: bool) -> Result<()> {
    let found = rustix::fs::fstat(from).during(|| "stat the destination")?;
    let readable = openat(from, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .during(|| "open the destination")?;
    if inherit_mode {
        rustix::fs::fchmod(to_real(to)?, Mode::from_raw_mode(found.st_mode & 0o7777))
            .during(|| "set the mode")?;
    }
    copy_directory(&readable, to.as_fd(), DEPTH)
}

/// fchmod refuses an `O_PATH` descriptor, and a detached mount is one.
fn to_real(fd: &OwnedFd) -> Result<OwnedFd> {
    openat(fd, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during(|| "open the tmpfs")
}

fn copy_directory(from: &OwnedFd, to: std::os::fd::BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth == 0 {
        return Err(Error::plain("tmpcopyup: directories are nested too deeply"));
    }
    for entry in Dir::read_from(from).during(|| "read a directory")? {
        let entry = entry.during(|| "read a directory")?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name, depth)
                .map_err(|error| error.within(format!("copy {name:?}")))?;
        }
    }
    Ok(())
}

fn copy_entry(
    from: &OwnedFd,
    to: std::os::fd::BorrowedFd<'_>,
    name: &std::ffi::CStr,
    depth: usize,
) -> Result<()> {
    use rustix::fs::{AtFlags, chownat, fchmod, mkdirat, readlinkat, statat, symlinkat};
    let found = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).during(|| "stat")?;
    let mode = Mode::from_raw_mode(found.st_mode & 0o7777);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU).during(|| "make")?;
            let inner = openat(from, name, flags | OFlags::DIRECTORY, Mode::empty());
            let made = openat(to, name, flags | OFlags::DIRECTORY, Mode::empty());
            let made = made.during(|| "open")?;
            copy_directory(&inner.during(|| "open")?, made.as_fd(), depth - 1)?;
            fchmod(&made, mode).during(|| "set the mode")?;
        }
        FileType::RegularFile => {
            let source = openat(from, name, flags, Mode::empty()).during(|| "open")?;
            let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let made = openat(to, name, create, Mode::RUSR | Mode::WUSR).during(|| "make")?;
            let mut made = std::fs::File::from(made);
            std::io::copy(&mut std::fs::File::from(source), &mut made).during(|| "copy")?;
            fchmod(&made, mode).during(|| "set the mode")?;
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new()).during(|| "read")?;
            symlinkat(target.as_c_str(), to, name).during(|| "make")?;
        }
        _ => return Ok(()),
    }
    let uid = Some(rustix::fs::Uid::from_raw(found.st_uid));
    let gid = Some(rustix::fs::Gid::from_raw(found.st_gid));
    chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).during(|| "set the owner")
}
