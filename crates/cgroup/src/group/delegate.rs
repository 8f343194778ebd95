//! Handing a v2 group to another user: the root of a container's user namespace, or a person.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use sys::Errno;

use super::Group;
use crate::error::{Error, Result};
use crate::file;

impl Group {
    /// Lets a user make groups below this one and move its processes among them: gives away the
    /// directory and the files that `/sys/kernel/cgroup/delegate` lists, so never a limit.
    /// v1 has no safe delegation; its directories stay as they are.
    ///
    /// # Errors
    /// The group is gone, or the caller may not give it away.
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<()> {
        let Some(group) = self.v2_path() else {
            return Ok(());
        };
        give(group, uid, gid)?;
        let list = file::read_optional(Path::new("/sys/kernel/cgroup/delegate"))?;
        let list = list
            .as_deref()
            .unwrap_or("cgroup.procs\ncgroup.threads\ncgroup.subtree_control");
        for name in list.lines().filter(|name| !name.contains('/')) {
            match give(&group.join(name), uid, gid) {
                // Files of controllers that the group does not have.
                Err(error) if error.errno() == Some(Errno::NOENT) => {}
                result => result?,
            }
        }
        Ok(())
    }
}

fn give(path: &Path, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| Error::kernel("delegate", path, errno))
}
