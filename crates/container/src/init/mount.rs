//! The mounts of the configuration, one by one, by descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, ResolveFlags};
use sys::in_root::{self, Missing};
use sys::mount::{Attributes, Scope, attribute};

use super::{Init, filesystem, groups};
use crate::error::{During, Error, Result};
use crate::plan::mount::{MountStep, Parameter, What};

/// Makes every mount, in order.
pub(super) fn all(init: &mut Init<'_>) -> Result<()> {
    for (index, step) in init.plan.mounts.iter().enumerate() {
        let prepared = init.inherited.sources.remove(&index);
        let mount = one(init, step, prepared).map_err(|error| error.within(describe(step)))?;
        if step.late_read_only {
            init.late_read_only.push((index, mount));
        }
    }
    Ok(())
}

/// Makes read-only what was to be so from the start, now that all is in it.
pub(super) fn read_only(init: &mut Init<'_>) -> Result<()> {
    let attributes = Attributes {
        set: attribute::READ_ONLY,
        ..Attributes::default()
    };
    for (index, mount) in init.late_read_only.drain(..) {
        sys::mount::set_attributes(&mount, &attributes, Scope::One)
            .during(|| format!("{}: make read-only", describe(&init.plan.mounts[index])))?;
    }
    Ok(())
}

fn describe(step: &MountStep) -> String {
    let destination = step.destination.display();
    match &step.what {
        What::Bind { source, .. } => format!("mount `{}` on `{destination}`", source.display()),
        What::Filesystem { kind, .. } => format!("mount `{kind}` on `{destination}`"),
        What::Cgroup => format!("mount `cgroup` on `{destination}`"),
    }
}

/// Makes one mount; its descriptor.
fn one(init: &Init<'_>, step: &MountStep, prepared: Option<OwnedFd>) -> Result<OwnedFd> {
    match &step.what {
        What::Bind { source, scope } => {
            let mount = match prepared {
                Some(mount) => mount,
                None => bind_source(source, *scope)?,
            };
            set_attributes(&mount, step)?;
            attach(init, step, &mount)?;
            Ok(mount)
        }
        What::Filesystem {
            kind,
            source,
            parameters,
        } => {
            let target = target(init, step, Missing::Directory, kind == "proc")?;
            let mount = filesystem::mount(kind, source, parameters, step.attributes.set)?;
            set_attributes(&mount, step)?;
            if step.copy_up {
                let mode = |parameter: &Parameter| matches!(parameter, Parameter::Value(key, _) if key == "mode");
                let inherit_mode = !parameters.iter().any(mode);
                filesystem::copy_up(&target, &mount, inherit_mode)?;
            }
            sys::mount::attach(&mount, &target).during(|| "attach")?;
            Ok(mount)
        }
        What::Cgroup => {
            let target = target(init, step, Missing::Directory, false)?;
            groups::mount(init, step, &target)?;
            Ok(target)
        }
    }
}

/// A detached copy of what a bind mount shows.
pub(crate) fn bind_source(source: &Path, scope: Scope) -> Result<OwnedFd> {
    sys::mount::clone_tree_at(source, scope).during(|| "open the source")
}

/// Sets everything while the mount is attached nowhere: nobody sees it half done.
pub(crate) fn set_attributes(mount: &OwnedFd, step: &MountStep) -> Result<()> {
    for (attributes, scope) in [
        (&step.tree_attributes, Scope::Tree),
        (&step.attributes, Scope::One),
    ] {
        if !attributes.is_empty() {
            sys::mount::set_attributes(mount, attributes, scope).during(|| "set attributes")?;
        }
    }
    Ok(())
}

/// Attaches a bind mount; a missing destination is made of the same kind as the source.
fn attach(init: &Init<'_>, step: &MountStep, mount: &OwnedFd) -> Result<()> {
    let source = rustix::fs::fstat(mount).during(|| "stat the source")?;
    let missing = match FileType::from_raw_mode(source.st_mode) {
        FileType::Directory => Missing::Directory,
        _ => Missing::File,
    };
    let kind = rustix::fs::fstatfs(mount).during(|| "stat the source")?;
    let procfs = kind.f_type == rustix::fs::PROC_SUPER_MAGIC;
    let target = target(init, step, missing, procfs)?;
    let found = rustix::fs::fstat(&target).during(|| "stat the destination")?;
    let directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
    if directory(source.st_mode) != directory(found.st_mode) {
        // What mount(2) says; move_mount(2) says EINVAL, and engines look for the words.
        return Err(sys::Errno::NOTDIR).during(|| "attach");
    }
    sys::mount::attach(mount, &target).during(|| "attach")
}

/// Finds or makes the place of a mount, inside the root whatever links the image holds; `procfs`
/// tells whether that is what will be mounted.
fn target(init: &Init<'_>, step: &MountStep, missing: Missing, procfs: bool) -> Result<OwnedFd> {
    let root = init.root()?;
    let target = if must_be_plain(step) {
        in_root::open_or_create(root, &step.destination, missing)
            .and_then(|_| open_plain(root, &step.destination))
    } else {
        in_root::open_or_create(root, &step.destination, missing)
    };
    let target = target.during(|| "open the destination")?;
    guard(init, &target, procfs)?;
    Ok(target)
}

/// `/proc` and `/sys` must be where they say: an image in which they are links would have masks
/// and read-only paths applied elsewhere (CVE-2019-19921, CVE-2023-27561).
fn must_be_plain(step: &MountStep) -> bool {
    matches!(&step.what, What::Filesystem { kind, .. } if kind == "proc" || kind == "sysfs")
        || [Path::new("/proc"), Path::new("/sys")].contains(&step.destination.as_path())
}

fn open_plain(root: &OwnedFd, path: &Path) -> sys::Result<OwnedFd> {
    in_root::open_with(
        root,
        path,
        OFlags::PATH | OFlags::DIRECTORY,
        ResolveFlags::NO_SYMLINKS,
    )
}

/// Files of `/proc` that other file systems may cover: views of the host that lxcfs and engines
/// replace. Anything else below it would deceive those who configure the container there
/// (CVE-2019-16884).
const COVERABLE: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Refuses a destination by where it really is, not by what the configuration calls it: a link or
/// `..` may lead into `/proc`, or to the root, whose mounts would hide all that is made after them.
fn guard(init: &Init<'_>, target: &OwnedFd, procfs: bool) -> Result<()> {
    let path = in_root::path_of(target.as_fd()).during(|| "find the destination")?;
    let Ok(inside) = path.strip_prefix(&init.root_path) else {
        return Err(Error::plain("the destination is outside the root"));
    };
    if inside.as_os_str().is_empty() {
        return Err(Error::plain("the destination is the root itself"));
    }
    match inside.strip_prefix("proc") {
        Ok(below) if below.as_os_str().is_empty() && procfs => return Ok(()),
        Ok(below) if below.as_os_str().is_empty() => {
            let text = "only a procfs may be mounted on `/proc`";
            return Err(Error::plain(text));
        }
        Ok(below) if COVERABLE.iter().any(|name| below == Path::new(name)) => return Ok(()),
        _ => {}
    }
    let found = rustix::fs::fstatfs(target).during(|| "stat the destination")?;
    if found.f_type == rustix::fs::PROC_SUPER_MAGIC {
        return Err(Error::plain("the destination is inside `/proc`"));
    }
    Ok(())
}
