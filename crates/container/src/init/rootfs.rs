//! The root file system: attached, made the root, made final.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use sys::mount::{Attributes, Scope, attribute};
use sys::namespace::Kind;

use super::Init;
use crate::error::{During, Error, Result};

/// Keeps what happens in the new mount namespace from reaching the host.
pub(super) fn stop_propagation(init: &mut Init<'_>) -> Result<()> {
    let linux = init.plan.linux();
    let word = linux.rootfs_propagation.as_deref().unwrap_or("rslave");
    let flags = match word.trim_start_matches('r') {
        "private" | "unbindable" => MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        // Slave, not shared, for `shared` too: the container's root becomes shared with those who
        // copy it, and the mounts of the host's root stay the host's.
        "slave" | "shared" => MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        _ => {
            return Err(Error::plain(format!(
                "linux.rootfsPropagation: `{word}` is unknown"
            )));
        }
    };
    mount_change("/", flags).during(|| format!("make `/` {word}"))
}

/// Puts a copy of the root file system's mounts in its own place: pivot_root(2) wants a mount.
pub(super) fn attach(init: &mut Init<'_>) -> Result<()> {
    let path = &init.plan.rootfs;
    let named = |what: &str| format!("{what} `{}`", path.display());
    let tree = sys::mount::clone_tree_at(path, Scope::Tree).during(|| named("open"))?;
    let private = Attributes {
        propagation: crate::plan::mount::MS_PRIVATE,
        ..Attributes::default()
    };
    // By now it is at most a slave of the host's. It stays one where the container's root is to
    // follow what the host mounts there later.
    let follows = init
        .plan
        .linux()
        .rootfs_propagation
        .as_deref()
        .is_some_and(|word| word.ends_with("shared") || word.ends_with("slave"));
    if !follows {
        sys::mount::set_attributes(&tree, &private, Scope::One).during(|| named("make private"))?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(path, flags, Mode::empty()).during(|| named("open"))?;
    sys::mount::attach(&tree, &place).during(|| named("attach"))?;
    init.null = Some(open_null()?);
    init.root_path = sys::in_root::path_of(tree.as_fd()).during(|| named("find"))?;
    init.root = Some(tree);
    Ok(())
}

/// The host's null device. Its numbers are checked, for it will cover what must not be seen
/// (CVE-2025-31133: a container's own `/dev/null` may be a link to anything).
fn open_null() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).during(|| "open `/dev/null`")?;
    let found = rustix::fs::fstat(&null).during(|| "stat `/dev/null`")?;
    if found.st_rdev == rustix::fs::makedev(1, 3) {
        Ok(null)
    } else {
        Err(Error::plain("`/dev/null` is not the null device"))
    }
}

/// Makes the root file system the process's root and lets go of the old one.
pub(super) fn change(init: &mut Init<'_>) -> Result<()> {
    rustix::process::fchdir(init.root()?).during(|| "change directory")?;
    if init.plan.options.no_pivot {
        return move_root();
    }
    // With both arguments the same directory the old root ends on top of the new one, and there is
    // no need for a directory to put it (pivot_root(2), NOTES).
    rustix::process::pivot_root(".", ".").during(|| "pivot_root")?;
    // The unmount cannot reach the host: its mounts were cut off by [`stop_propagation`]. It follows
    // the mounts stacked on ".", as mount(2) would not: that would change the new root.
    unmount(".", UnmountFlags::DETACH).during(|| "unmount the old root")?;
    rustix::process::chdir("/").during(|| "change directory to `/`")
}

/// For a host whose root is its initramfs, which pivot_root refuses. The old root stays below and
/// can be reached by whoever may mount and chroot: that is what `--no-pivot` means.
fn move_root() -> Result<()> {
    rustix::mount::mount_move(".", "/").during(|| "move the root file system to `/`")?;
    rustix::process::chroot(".").during(|| "chroot")?;
    rustix::process::chdir("/").during(|| "change directory to `/`")
}

/// Gives the root its final propagation and access, after everything that is made in it.
pub(super) fn finish(init: &mut Init<'_>) -> Result<()> {
    let linux = init.plan.linux();
    if let Some(word) = linux.rootfs_propagation.as_deref() {
        let recursive = if word.starts_with('r') {
            MountPropagationFlags::REC
        } else {
            MountPropagationFlags::empty()
        };
        let flags = match word.trim_start_matches('r') {
            "shared" => MountPropagationFlags::SHARED,
            "slave" => MountPropagationFlags::DOWNSTREAM,
            "unbindable" => MountPropagationFlags::UNBINDABLE,
            _ => MountPropagationFlags::PRIVATE,
        };
        mount_change("/", flags | recursive).during(|| format!("make `/` {word}"))?;
    }
    if init
        .plan
        .spec
        .root
        .as_ref()
        .is_some_and(|root| root.readonly)
    {
        let read_only = Attributes {
            set: attribute::READ_ONLY,
            ..Attributes::default()
        };
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .during(|| "open `/`")?;
        sys::mount::set_attributes(&root, &read_only, Scope::One)
            .during(|| "make `/` read-only")?;
    }
    Ok(())
}

/// The root in a mount namespace that this process did not make.
///
/// In a running container's it is the namespace's own. Where the configuration joins one, or has
/// none, nothing may be mounted or pivoted in what is another's: the root only changes for this
/// process, and keeps in nobody who may chroot.
pub(super) fn open_joined(init: &mut Init<'_>) -> Result<()> {
    let namespaces = &init.plan.namespaces;
    if !namespaces.makes(Kind::Mount) {
        let path = &init.plan.rootfs;
        match rustix::process::chroot(path) {
            Ok(()) => rustix::process::chdir("/").during(|| "change directory to `/`")?,
            // The joined namespace shows another tree: that is what it was joined for.
            Err(sys::Errno::NOENT) if namespaces.joins(Kind::Mount) => {}
            Err(errno) => return Err(errno).during(|| format!("chroot `{}`", path.display())),
        }
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    init.root = Some(rustix::fs::open("/", flags, Mode::empty()).during(|| "open")?);
    Ok(())
}
