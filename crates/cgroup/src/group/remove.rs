//! Removing a group with everything that its processes made below it.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, unlinkat};
use sys::Errno;

use super::{Group, tree};
use crate::error::{Error, Result};

/// How long processes that were killed may take to leave the group.
const PATIENCE: Duration = Duration::from_secs(5);

impl Group {
    /// Removes the group from every hierarchy, but for directories that were there before it.
    /// Goes on after an error and reports all.
    ///
    /// # Errors
    /// A directory is still busy after five seconds (`EBUSY`: it has processes), or may not be
    /// removed. One that is gone is no error.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let own = self.directories().filter(|directory| !directory.adopted);
        let errors = own.filter_map(|directory| remove_patiently(&directory.path, deadline).err());
        Error::all(errors.collect())
    }
}

fn remove_patiently(path: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match remove_tree(path) {
            Err(error) if error.errno() == Some(Errno::BUSY) && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// One attempt; groups below are looked for only when the kernel says that there is something.
fn remove_tree(path: &Path) -> Result<()> {
    let fails = |errno| Error::kernel("remove group", path, errno);
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(errno) => return Err(fails(errno)),
    }
    tree::walk(path, &mut Remover).map_err(fails)?;
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(fails(errno)),
    }
}

struct Remover;

impl tree::Visitor for Remover {
    fn enter(&mut self, _: BorrowedFd<'_>) -> sys::Result<()> {
        Ok(())
    }

    fn leave(&mut self, parent: BorrowedFd<'_>, name: &CString) -> sys::Result<()> {
        match unlinkat(parent, name.as_c_str(), AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }
}
