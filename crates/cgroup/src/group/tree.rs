//! Walking the groups below a group.
//!
//! Attack: a container makes groups so deep that their path is longer than the kernel takes
//! (4096 bytes), and neither `kill` nor `remove` would reach them. So the walk holds one
//! descriptor and goes from parent to child and back by single names; and it is a loop, because
//! depth on our stack would be the container's to choose as well.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};
use sys::Errno;

/// What happens to the groups on the way.
pub(super) trait Visitor {
    /// On the way down.
    fn enter(&mut self, group: BorrowedFd<'_>) -> sys::Result<()>;
    /// On the way up, from the parent; not for the topmost group.
    fn leave(&mut self, parent: BorrowedFd<'_>, name: &CString) -> sys::Result<()>;
}

/// Visits a group and all below it. Groups that vanish meanwhile are not an error.
pub(super) fn walk(top: &Path, visitor: &mut impl Visitor) -> sys::Result<()> {
    let Some(mut here) = vanished(open(CWD, top))? else {
        return Ok(());
    };
    visitor.enter(here.as_fd())?;
    // For each level the name of the group and those of its children still to visit.
    let mut levels = vec![(CString::default(), children(here.as_fd())?)];
    while let Some((_, to_visit)) = levels.last_mut() {
        if let Some(child) = to_visit.pop() {
            let Some(next) = vanished(open(here.as_fd(), child.as_c_str()))? else {
                continue;
            };
            here = next;
            visitor.enter(here.as_fd())?;
            let below = children(here.as_fd())?;
            levels.push((child, below));
            continue;
        }
        let Some((name, _)) = levels.pop() else { break };
        if levels.is_empty() {
            break;
        }
        here = open(here.as_fd(), "..")?;
        visitor.leave(here.as_fd(), &name)?;
    }
    Ok(())
}

fn open(from: BorrowedFd<'_>, name: impl rustix::path::Arg) -> sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(from, name, flags, Mode::empty())
}

fn vanished<T>(result: sys::Result<T>) -> sys::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn children(group: BorrowedFd<'_>) -> sys::Result<Vec<CString>> {
    let mut names = Vec::new();
    let Some(entries) = vanished(Dir::read_from(group))? else {
        return Ok(names);
    };
    for entry in entries {
        let Some(entry) = vanished(entry)? else { break };
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
