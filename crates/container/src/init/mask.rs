//! Kernel parameters, and paths that must not be written or read.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::FileType;
use rustix::mount::MountAttrFlags;
use sys::mount::{Attributes, Scope, attribute};

use super::Init;
use crate::error::{During, Error, Result};
use crate::plan::mount::Parameter;

/// Writes `linux.sysctl`, through the private `/proc` (CVE-2025-52881).
pub(super) fn sysctls(init: &mut Init<'_>) -> Result<()> {
    for (name, value) in &init.plan.linux().sysctl {
        let path = crate::spec::sysctl_path(name).unwrap_or_default();
        init.proc()?
            .write(&Path::new("sys").join(path), value.as_bytes())
            .during(|| format!("linux.sysctl: set `{name}` to `{value}`"))?;
    }
    Ok(())
}

/// Puts a read-only mount over each of `linux.readonlyPaths`; one that does not exist is fine.
///
/// Like the masks it is made before the root changes: what they are copies of must still be in
/// this mount namespace.
pub(super) fn read_only_paths(init: &mut Init<'_>) -> Result<()> {
    let read_only = Attributes {
        set: attribute::READ_ONLY,
        ..Attributes::default()
    };
    for path in &init.plan.linux().readonly_paths {
        let during = || format!("make `{}` read-only", path.display());
        let Some(place) = existing(init, path).during(during)? else {
            continue;
        };
        let copy = sys::mount::clone_tree(&place, Scope::Tree).during(during)?;
        sys::mount::set_attributes(&copy, &read_only, Scope::Tree).during(during)?;
        sys::mount::attach(&copy, &place).during(during)?;
    }
    Ok(())
}

/// Covers each of `linux.maskedPaths`: files with the null device, directories with an empty
/// read-only tmpfs.
pub(super) fn masked_paths(init: &mut Init<'_>) -> Result<()> {
    let linux = init.plan.linux();
    let Some(null) = init.null.take() else {
        return Ok(());
    };
    let mut empty: Option<OwnedFd> = None;
    for path in &linux.masked_paths {
        let during = || format!("mask `{}`", path.display());
        let Some(place) = existing(init, path).during(during)? else {
            continue;
        };
        let found = rustix::fs::fstat(&place).during(during)?;
        let directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let cover = match (directory, &empty) {
            (false, _) => sys::mount::clone_tree(&null, Scope::One).during(during)?,
            // One empty file system serves all directories. Only an attached one can be copied.
            (true, Some(first)) => sys::mount::clone_tree(first, Scope::One).during(during)?,
            (true, None) => empty_directory()?,
        };
        sys::mount::attach(&cover, &place).during(during)?;
        if directory {
            empty.get_or_insert(cover);
        }
    }
    Ok(())
}

fn empty_directory() -> Result<OwnedFd> {
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY.bits();
    let parameters = [
        Parameter::Value("size".into(), "0".into()),
        Parameter::Value("nr_inodes".into(), "1".into()),
    ];
    super::filesystem::mount("tmpfs", "tmpfs", &parameters, flags.into())
}

/// The object at a path, links followed inside the container; `None` where there is none.
///
/// What is below `/proc` is looked for from the procfs itself: a directory that was exchanged for it
/// meanwhile, with files of the same names, would take the masks and leave procfs bare.
fn existing(init: &Init<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    let root = init.root()?;
    let found = match path.strip_prefix("/proc") {
        Ok(below) if mounts_proc(init) => {
            let proc = sys::in_root::open(root, Path::new("/proc")).during(|| "open `/proc`")?;
            let kind = rustix::fs::fstatfs(&proc).during(|| "stat `/proc`")?;
            if kind.f_type != rustix::fs::PROC_SUPER_MAGIC {
                return Err(Error::plain("`/proc` is no longer a procfs"));
            }
            sys::in_root::open(&proc, &Path::new("/").join(below))
        }
        _ => sys::in_root::open(root, path),
    };
    match found {
        Ok(place) => Ok(Some(place)),
        Err(sys::Errno::NOENT | sys::Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).during(|| "open"),
    }
}

fn mounts_proc(init: &Init<'_>) -> bool {
    let mounts = &init.plan.mounts;
    mounts
        .iter()
        .any(|step| step.destination == Path::new("/proc"))
}
