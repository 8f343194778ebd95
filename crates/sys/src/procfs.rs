//! A handle on `/proc` that nothing can be mounted over.
//!
//! Problem: a process that sets up a container writes to `/proc/self/attr/exec`, `/proc/sys/…` and
//! others. A mount over `/proc`, or a link in it, turns such a write into a write elsewhere, or
//! into nothing (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).
//! Solution: a procfs instance of our own that is attached nowhere, so nobody can mount over it,
//! and look-ups in it that leave neither the mount nor follow magic links.
//! Where the kernel refuses a new instance (a user namespace that sees a masked `/proc`), the
//! existing one is taken by a copy without its submounts.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::{Errno, Result};

/// The private handle.
#[derive(Debug)]
pub struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    /// Mounts an instance of the caller's pid namespace without attaching it (Linux 5.2).
    ///
    /// # Errors
    /// `EPERM`: the caller may not mount at all.
    pub fn private() -> Result<Procfs> {
        let root = Self::new_instance().or_else(|_| {
            crate::mount::clone_tree_at(Path::new("/proc"), crate::mount::Scope::One)
        })?;
        let found = rustix::fs::fstatfs(&root)?.f_type;
        if found == rustix::fs::PROC_SUPER_MAGIC {
            Ok(Procfs { root })
        } else {
            Err(Errno::XDEV)
        }
    }

    fn new_instance() -> Result<OwnedFd> {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// Opens a file below the root, such as `self/attr/exec` or `sys/net/ipv4/ip_forward`.
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let rules = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        openat2(
            &self.root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            rules,
        )
    }

    /// Writes a value in one write(2), as `/proc` files want it.
    pub fn write(&self, path: &Path, value: &[u8]) -> Result<()> {
        let mut file = std::fs::File::from(self.open(path, OFlags::WRONLY)?);
        file.write_all(value).map_err(|error| errno(&error))
    }

    /// Reads a whole file.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut file = std::fs::File::from(self.open(path, OFlags::RDONLY)?);
        file.read_to_end(&mut content)
            .map_err(|error| errno(&error))?;
        Ok(content)
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
