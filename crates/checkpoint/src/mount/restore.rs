//! Makes the mounts of a namespace again.
//!
//! Problem: a mount may show a part of a file system that no other mount shows, and may be hidden by
//! another. Solution: each source is first attached by itself in a *yard* that is thrown away with
//! the old root; each mount of the tree is a copy of a place in a source, attached on the descriptor
//! of its parent, which no other mount can hide. Paths are followed without links.
//!
//! The yard and not detached mounts: copying from those needs Linux 6.15.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountPropagationFlags, UnmountFlags,
    fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    fspick, mount_change, unmount,
};
use sys::mount::{Attributes, Scope, attribute};

use super::plan::{Origin, Plan, Propagation, Source, Step, groups, propagation};
use super::{tmpfs, type_of};
use crate::error::{Context, Error, Result};
use crate::files::tty::make_master;
use crate::image::Directory;
use crate::image::namespace::{Fstype, MntEntry};
use crate::inner;
use crate::namespace::Kind;

/// What the caller gives: detached mounts.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) root: OwnedFd,
    pub(crate) mounts: HashMap<String, OwnedFd>,
}

/// What stands.
#[derive(Debug)]
pub(crate) struct Made {
    /// The mount namespaces, in the order of their roots in the plan.
    pub(crate) namespaces: Vec<OwnedFd>,
    /// Masters of terminals that are mounted somewhere, by number.
    pub(crate) terminals: Vec<(u32, OwnedFd)>,
}

/// The mounts while they are made.
struct Maker<'a> {
    entries: &'a [MntEntry],
    images: &'a Directory,
    yard: OwnedFd,
    sources: Vec<OwnedFd>,
    /// The root of each mount that stands, by position of its entry.
    made: HashMap<usize, OwnedFd>,
    terminals: Vec<(u32, OwnedFd)>,
    /// A mount of each group of peers.
    groups: HashMap<u32, OwnedFd>,
}

/// Makes all mounts in the caller's mount namespace, which is the tree's own, and changes its root.
/// `place`: any directory, which nothing else needs from now on. Returns each mount's root by id.
pub(crate) fn restore(
    entries: &[MntEntry],
    plan: &Plan,
    given: &Given,
    place: &Path,
    images: &Directory,
) -> Result<Made> {
    let recursive = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", recursive).during("make private", "/")?;
    let yard = make_yard(place)?;
    let mut maker = Maker {
        entries,
        images,
        yard,
        sources: Vec::new(),
        made: HashMap::new(),
        terminals: Vec::new(),
        groups: HashMap::new(),
    };
    for (number, source) in plan.sources.iter().enumerate() {
        let root = maker.source(number, source, given)?;
        maker.make_terminals(number, source, &root, plan)?;
        maker.sources.push(root);
    }
    for step in &plan.steps {
        maker.step(step)?;
    }
    maker.finish(plan)?;
    let namespaces = maker.separate(plan)?;
    Ok(Made {
        namespaces,
        terminals: maker.terminals,
    })
}

fn make_yard(place: &Path) -> Result<OwnedFd> {
    let yard = make_file_system("tmpfs", "yard", "mode=700")?;
    let target = rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .during("open", place.display())?;
    sys::mount::attach(&yard, target).during("mount on", place.display())?;
    Ok(yard)
}

fn make_file_system(kind: &str, source: &str, options: &str) -> Result<OwnedFd> {
    let about = |errno| Error::kernel("make file system", kind, errno);
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(about)?;
    if !source.is_empty() {
        fsconfig_set_string(&context, "source", source).map_err(about)?;
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        // devpts has had nothing but new instances since Linux 4.7.
        if option == "newinstance" {
            continue;
        }
        let set = match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value),
            None => fsconfig_set_flag(&context, option),
        };
        set.map_err(|errno| Error::kernel(&format!("set option of {kind}"), option, errno))?;
    }
    fsconfig_create(&context).map_err(about)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .map_err(about)
}

impl Maker<'_> {
    /// Attaches a source in the yard; returns its root.
    fn source(&self, number: usize, source: &Source, given: &Given) -> Result<OwnedFd> {
        let missing = |key: &str| {
            let cause = format!("the caller gives nothing for it (--external mnt[{key}]:PATH)");
            Error::because("restore mount", key, cause)
        };
        let copy = |fd: &OwnedFd, what: &str| {
            rustix::io::fcntl_dupfd_cloexec(fd, 0).during("duplicate", what)
        };
        let detached = match &source.origin {
            Origin::Root => copy(&given.root, "the root")?,
            Origin::Caller(key) => {
                let fd = given.mounts.get(key).ok_or_else(|| missing(key))?;
                copy(fd, key)?
            }
            Origin::New(model) => self.new_file_system(&self.entries[*model])?,
        };
        // A copy of a shared mount is its peer: what is mounted on it would appear on the host.
        let slave = Attributes {
            propagation: libc::MS_SLAVE,
            ..Attributes::default()
        };
        sys::mount::set_attributes(&detached, &slave, Scope::One)
            .during("make a slave of", format!("source {number}"))?;
        let name = number.to_string();
        let place = self.place(&name, &detached)?;
        sys::mount::attach(&detached, &place).during("mount in the yard", &name)?;
        Ok(detached)
    }

    /// A terminal that is mounted somewhere (`/dev/console`) has to be there first.
    fn make_terminals(
        &mut self,
        number: usize,
        source: &Source,
        root: &OwnedFd,
        plan: &Plan,
    ) -> Result<()> {
        let Origin::New(model) = source.origin else {
            return Ok(());
        };
        if self.entries[model].fstype != Fstype::Devpts as u32 {
            return Ok(());
        }
        let mounted = plan.steps.iter().filter(|step| step.source == number);
        let mut indices: Vec<u32> = mounted.filter_map(|step| step.path.parse().ok()).collect();
        indices.sort_unstable();
        indices.dedup();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        for index in indices {
            let open = || rustix::fs::openat(root, "ptmx", flags, Mode::empty());
            self.terminals.push((index, make_master(index, open)?));
        }
        Ok(())
    }

    /// A directory or file in the yard, to mount `what` on.
    fn place(&self, name: &str, what: &OwnedFd) -> Result<OwnedFd> {
        let stat = rustix::fs::fstat(what).during("stat", name)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            rustix::fs::mkdirat(&self.yard, name, Mode::RWXU).during("create directory", name)?;
        } else {
            let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&self.yard, name, create, Mode::RUSR).during("create", name)?;
        }
        rustix::fs::openat(&self.yard, name, flags, Mode::empty()).during("open", name)
    }

    fn new_file_system(&self, entry: &MntEntry) -> Result<OwnedFd> {
        let kind = type_of(entry).unwrap_or("unknown");
        let made = make_file_system(kind, &entry.source, &entry.options).map_err(|error| {
            Error::because("restore mount", &entry.mountpoint, error.to_string())
        })?;
        if entry.fstype == Fstype::Tmpfs as u32 {
            tmpfs::fill(&made, entry.root_dev, self.images)?;
        }
        Ok(made)
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let entry = &self.entries[step.entry];
        let point = entry.mountpoint.as_str();
        let source = &self.sources[step.source];
        let from = open_below(source, &step.path).during("open what to mount on", point)?;
        let mount = sys::mount::clone_tree(&from, Scope::One).during("copy mount", point)?;
        let target = match step.parent {
            None => {
                let name = format!("root{}", step.entry);
                let name = name.as_str();
                rustix::fs::mkdirat(&self.yard, name, Mode::RWXU)
                    .during("create directory", name)?;
                rustix::fs::openat(
                    &self.yard,
                    name,
                    OFlags::PATH | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .during("open", name)?
            }
            Some(parent) => {
                let missing = || Error::because("restore mount", point, "its parent is not there");
                let parent = self.made.get(&parent).ok_or_else(missing)?;
                open_below(parent, &step.target).during("open mount point", point)?
            }
        };
        sys::mount::attach(&mount, &target).during("mount on", point)?;
        self.made.insert(step.entry, mount);
        Ok(())
    }

    /// Each root becomes that of a mount namespace of its own; the first stays in this one.
    ///
    /// A namespace is a copy of this one, in which the tree of the other namespace changes places
    /// with everything else; the copies of shared mounts are peers of the originals, as the images
    /// want it, and so what is thrown away must be private before it goes.
    fn separate(&self, plan: &Plan) -> Result<Vec<OwnedFd>> {
        let here = inner::working_directory()?;
        let home = inner::mount_namespace("self")?;
        let roots = plan.steps.iter().filter(|step| step.parent.is_none());
        let roots: Vec<&Step> = roots.collect();
        let mut namespaces = Vec::new();
        for step in roots.iter().skip(1) {
            let root = &self.made[&step.entry];
            rustix::process::fchdir(root).during("enter", "a root")?;
            sys::namespace::unshare(Kind::Mount.flag()).during("make", "a mount namespace")?;
            self.become_root(step.entry)?;
            inner::live_in(&here)?;
            namespaces.push(inner::mount_namespace("self")?);
            inner::visit_mounts(&home)?;
        }
        let first = roots
            .first()
            .ok_or_else(|| Error::because("restore mounts", "/", "there is no root"))?;
        rustix::process::fchdir(&self.made[&first.entry]).during("enter", "the new root")?;
        self.become_root(first.entry)?;
        inner::live_in(&here)?;
        namespaces.insert(0, home);
        Ok(namespaces)
    }

    /// The tree in whose root we are takes the place of the old one.
    fn become_root(&self, at: usize) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(".", flags, Mode::empty()).during("open", "the new root")?;
        let old = rustix::fs::open("/", flags, Mode::empty()).during("open", "the old root")?;
        rustix::process::pivot_root(".", ".").during("change root to", "the new root")?;
        // While the yard, where its group began, still stands.
        if let Some(action) = propagation(self.entries).get(at) {
            self.propagate(&root, *action)
                .during("set propagation of", "the new root")?;
        }
        let private = Attributes {
            propagation: libc::MS_PRIVATE,
            ..Attributes::default()
        };
        sys::mount::set_attributes(&old, &private, Scope::Tree)
            .during("make private", "the old root")?;
        unmount(".", UnmountFlags::DETACH).during("unmount", "the old root")?;
        rustix::process::fchdir(&root).during("enter", "the new root")?;
        rustix::process::chroot(".").during("change root to", "the new root")?;
        Ok(())
    }

    /// Flags and propagation: after everything is attached, so that nothing spreads. A root must be
    /// private to become one.
    fn finish(&mut self, plan: &Plan) -> Result<()> {
        for step in &plan.steps {
            let entry = &self.entries[step.entry];
            let Origin::New(_) = plan.sources[step.source].origin else {
                continue;
            };
            if entry.sb_flags.unwrap_or(0) & libc::MS_RDONLY as u32 != 0 {
                make_read_only(&self.made[&step.entry], &entry.mountpoint)?;
            }
        }
        for (at, mount) in &self.made {
            let entry = &self.entries[*at];
            set_flags(mount, entry.flags).during("set flags of mount", &entry.mountpoint)?;
        }
        let roots = plan.steps.iter().filter(|step| step.parent.is_none());
        let roots: Vec<usize> = roots.map(|step| step.entry).collect();
        self.make_groups(plan)?;
        for (at, action) in propagation(self.entries).into_iter().enumerate() {
            let point = &self.entries[at].mountpoint;
            let action = match action {
                Propagation::Peer(_) if roots.contains(&at) => Propagation::Private,
                action => action,
            };
            if let Some(mount) = self.made.get(&at) {
                self.propagate(mount, action)
                    .during("set propagation of mount", point)?;
            }
        }
        Ok(())
    }

    /// Each group begins with a mount in the yard that shows all that its members can show: only
    /// such a one can be joined.
    fn make_groups(&mut self, plan: &Plan) -> Result<()> {
        for group in groups(self.entries) {
            let member = plan.steps.iter().find(|step| step.entry == group.member);
            let Some(source) = member.and_then(|step| self.sources.get(step.source)) else {
                continue;
            };
            let about = format!("group{}", group.id);
            let mount = sys::mount::clone_tree(source, Scope::One).during("copy mount", &about)?;
            let place = self.place(&about, &mount)?;
            sys::mount::attach(&mount, place).during("mount in the yard", &about)?;
            let master = group.master.and_then(|id| self.groups.get(&id));
            found_group(&mount, master).during("make a group of peers", &about)?;
            self.groups.insert(group.id, mount);
        }
        Ok(())
    }

    fn propagate(&self, mount: &OwnedFd, action: Propagation) -> sys::Result<()> {
        let join = |group: u32| {
            change(mount, libc::MS_PRIVATE)?;
            match self.groups.get(&group) {
                Some(group) => sys::mount_group::join(group, mount),
                None => Ok(()),
            }
        };
        match action {
            Propagation::Private => change(mount, libc::MS_PRIVATE),
            Propagation::Unbindable => change(mount, libc::MS_UNBINDABLE),
            Propagation::Peer(group) => join(group),
            Propagation::Slave(group) => join(group).and_then(|()| change(mount, libc::MS_SLAVE)),
            Propagation::SlaveOfCaller => change(mount, libc::MS_SLAVE),
        }
    }
}

fn found_group(mount: &OwnedFd, master: Option<&OwnedFd>) -> sys::Result<()> {
    change(mount, libc::MS_PRIVATE)?;
    if let Some(master) = master {
        sys::mount_group::join(master, mount)?;
        change(mount, libc::MS_SLAVE)?;
    }
    change(mount, libc::MS_SHARED)
}

fn change(mount: &OwnedFd, propagation: u64) -> sys::Result<()> {
    let attributes = Attributes {
        propagation,
        ..Attributes::default()
    };
    sys::mount::set_attributes(mount, &attributes, Scope::One)
}

/// Opens a place below a mount's root: without links, and not into another mount.
fn open_below(root: &OwnedFd, path: &str) -> sys::Result<OwnedFd> {
    if path.is_empty() {
        return rustix::io::fcntl_dupfd_cloexec(root, 0);
    }
    let rules = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    sys::in_root::open_with(
        root,
        Path::new(path),
        OFlags::PATH | OFlags::NOFOLLOW,
        rules,
    )
}

fn make_read_only(mount: &OwnedFd, point: &str) -> Result<()> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    fspick(mount, "", flags)
        .and_then(|context| {
            fsconfig_set_flag(&context, "ro")?;
            fsconfig_reconfigure(&context)
        })
        .during("make read-only", point)
}

fn set_flags(mount: &OwnedFd, flags: u32) -> sys::Result<()> {
    let flags = u64::from(flags);
    let pairs = [
        (libc::MS_RDONLY, attribute::READ_ONLY),
        (libc::MS_NOSUID, attribute::NO_SUID),
        (libc::MS_NODEV, attribute::NO_DEV),
        (libc::MS_NOEXEC, attribute::NO_EXEC),
        (libc::MS_NODIRATIME, attribute::NO_DIR_ATIME),
        (256, attribute::NO_SYMFOLLOW),
    ];
    let mut set = pairs
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(0, |sum, (_, attribute)| sum | attribute);
    set |= match (
        flags & libc::MS_NOATIME != 0,
        flags & libc::MS_RELATIME != 0,
    ) {
        (true, _) => attribute::NO_ATIME,
        (false, true) => attribute::REL_ATIME,
        (false, false) => attribute::STRICT_ATIME,
    };
    let all = pairs
        .iter()
        .fold(attribute::ATIME_FIELD, |sum, (_, attribute)| {
            sum | attribute
        });
    let attributes = Attributes {
        set,
        clear: all,
        propagation: 0,
    };
    sys::mount::set_attributes(mount, &attributes, Scope::One)
}

/// A detached copy of the mount at a path of the host.
pub(crate) fn take(path: &Path) -> Result<OwnedFd> {
    let fd = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .during("open", path.display())?;
    sys::mount::clone_tree(&fd, Scope::One).during("copy mount", path.display())
}
