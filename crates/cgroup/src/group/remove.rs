//! Removing a group with everything that its processes made below it.

use std::path::Path;
use std::time::{Duration, Instant};

use sys::Errno;

use super::Group;
use super::processes::children;
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
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(errno) => return Err(Error::kernel("remove group", path, errno)),
    }
    let groups = children(path)?;
    let errors = groups.iter().filter_map(|group| remove_tree(group).err());
    Error::all(errors.collect())?;
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::kernel("remove group", path, errno)),
    }
}
