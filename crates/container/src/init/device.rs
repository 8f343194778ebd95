//! Device nodes and links in the container's `/dev`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use sys::mount::Scope;

use super::Init;
use crate::error::{During, Result};
use crate::plan::device::{LINKS, Node};

/// Makes them all, before the root changes: the host's nodes are needed where none can be made.
pub(super) fn all(init: &mut Init<'_>) -> Result<()> {
    let devices = &init.plan.devices;
    // Modes are meant to the letter.
    let umask = rustix::process::umask(Mode::empty());
    let made = devices.nodes.iter().try_for_each(|node| {
        make(init, node).map_err(|error| error.within(format!("make `{}`", node.path.display())))
    });
    rustix::process::umask(umask);
    made?;
    if devices.standard {
        links(init)
    } else {
        Ok(())
    }
}

fn make(init: &Init<'_>, node: &Node) -> Result<()> {
    let (parent, name) =
        sys::in_root::open_parent(init.root()?, &node.path).during(|| "open its directory")?;
    // A user namespace may not make device nodes; the host's is shown there instead.
    if init.plan.user_namespace() && node.kind != FileType::Fifo {
        return bind(init, node);
    }
    let mode = Mode::from_raw_mode(node.mode);
    match rustix::fs::mknodat(&parent, name, node.kind, mode, node.number) {
        Ok(()) => {}
        Err(sys::Errno::EXIST) => return check_existing(&parent, name.as_ref(), node),
        Err(sys::Errno::PERM) => return bind(init, node),
        Err(errno) => return Err(errno).during(|| "mknod"),
    }
    let (uid, gid) = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
    rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .during(|| "set the owner")
}

/// What the image or a mount brought may stay if it is the same device.
fn check_existing(parent: &OwnedFd, name: &Path, node: &Node) -> Result<()> {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).during(|| "stat")?;
    let same = FileType::from_raw_mode(found.st_mode) == node.kind
        && (node.kind == FileType::Fifo || found.st_rdev == node.number);
    if same {
        Ok(())
    } else {
        Err(sys::Errno::EXIST).during(|| "another file is in its place")
    }
}

/// Shows the host's node of the same path.
fn bind(init: &Init<'_>, node: &Node) -> Result<()> {
    let source = sys::mount::clone_tree_at(&node.path, Scope::One).during(|| "open the host's")?;
    let target =
        sys::in_root::open_or_create(init.root()?, &node.path, sys::in_root::Missing::File);
    sys::mount::attach(&source, target.during(|| "open")?).during(|| "bind the host's")
}

/// The standard links, and `/dev/ptmx`, which must be the one of the container's own devpts.
fn links(init: &Init<'_>) -> Result<()> {
    let dev = sys::in_root::open_or_create(
        init.root()?,
        Path::new("/dev"),
        sys::in_root::Missing::Directory,
    );
    let dev = dev.during(|| "open `/dev`")?;
    for (target, name) in LINKS {
        link(&dev, target, name)?;
    }
    if rustix::fs::statat(&dev, "ptmx", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        // An image's own node would lead to the host's terminals. It stays where it cannot be
        // removed, as on a read-only `/dev`.
        let _stays = rustix::fs::unlinkat(dev.as_fd(), "ptmx", AtFlags::empty());
    }
    link(&dev, "pts/ptmx", "ptmx")
}

fn link(dev: &OwnedFd, target: &str, name: &str) -> Result<()> {
    match rustix::fs::symlinkat(target, dev, name) {
        Ok(()) | Err(sys::Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).during(|| format!("link `/dev/{name}`")),
    }
}
