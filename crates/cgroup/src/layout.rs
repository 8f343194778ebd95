//! Where this host keeps its groups: v1, v2 or both, which controller in which.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use sys::mountinfo::{self, Mount};

use crate::controller::{Controller, Controllers};
use crate::error::{Error, Result};
use crate::file;
use crate::plan::Places;

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// The hierarchies a process can see, one mount for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// v1 hierarchies in the order of `/proc/self/cgroup`, named ones included.
    pub v1: Vec<Hierarchy>,
    /// The v2 hierarchy, on hybrid hosts too.
    pub v2: Option<Hierarchy>,
}

/// One hierarchy and the mount through which floe works on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// As in `/proc/self/cgroup`: `cpu` and `cpuacct`, or `name=systemd`; none for v2.
    pub names: Vec<String>,
    pub controllers: Controllers,
    pub mount_point: PathBuf,
    /// The group that is mounted there; `/` unless in a container or behind a bind mount.
    pub root: PathBuf,
    /// The caller's own group as a directory below the mount point, if it can be seen there.
    pub own: Option<PathBuf>,
    pub read_only: bool,
    /// v1 without the controller's name in front of its files (`mount -t cpuset`).
    pub noprefix: bool,
}

impl Layout {
    /// The layout of the running process.
    ///
    /// # Errors
    /// `/proc` is not mounted, or may not be read.
    pub fn detect() -> Result<Self> {
        let read = |path: &str| {
            file::read_bytes(Path::new(path))
                .map_err(|errno| Error::kernel("read", Path::new(path), errno))
        };
        let own = read("/proc/self/cgroup")?;
        if let Some(layout) = Self::unified(&String::from_utf8_lossy(&own)) {
            return Ok(layout);
        }
        let mounts = read("/proc/self/mountinfo")?;
        Ok(Self::from_texts(&mounts, &own, Path::new("/")))
    }

    /// The common case without the mount table, which is long on hosts with many containers: the
    /// kernel has no v1 hierarchy, and `/sys/fs/cgroup` is v2 and shows the caller's own group.
    fn unified(own: &str) -> Option<Self> {
        let own = own.strip_prefix("0::")?.strip_suffix('\n')?;
        // At the root of a namespace the mount may show that root, or an ancestor of it.
        if own.contains('\n') || own.contains("/..") || own == "/" {
            return None;
        }
        let mount_point = PathBuf::from("/sys/fs/cgroup");
        let directory = below(&mount_point, Path::new(own));
        let is_v2 = statfs(&mount_point).is_ok_and(|found| found.f_type == CGROUP2_MAGIC);
        if !is_v2 || !directory.is_dir() {
            return None;
        }
        let flags = statvfs(&mount_point).ok()?.f_flag;
        let list = file::read(&mount_point.join("cgroup.controllers")).unwrap_or_default();
        let v2 = Hierarchy {
            names: Vec::new(),
            controllers: Controllers::of(list.split_ascii_whitespace()),
            mount_point,
            root: PathBuf::from("/"),
            own: Some(directory),
            read_only: flags.contains(StatVfsMountFlags::RDONLY),
            noprefix: false,
        };
        Some(Self {
            v1: Vec::new(),
            v2: Some(v2),
        })
    }

    /// The layout that the two files' texts tell of, its files looked for below `root`.
    #[must_use]
    pub fn from_texts(mountinfo: &[u8], own: &[u8], root: &Path) -> Self {
        let mounts: Vec<Mount<'_>> = mountinfo::parse(mountinfo).collect();
        let own = String::from_utf8_lossy(own);
        let mut layout = Self::default();
        for line in own.lines() {
            let Some((names, path)) = own_group(line) else {
                continue;
            };
            let Some(mount) = best_mount(&mounts, &names) else {
                continue;
            };
            let hierarchy = Hierarchy::new(mount, names, Path::new(path), root);
            if hierarchy.names.is_empty() {
                layout.v2 = Some(hierarchy);
            } else {
                layout.v1.push(hierarchy);
            }
        }
        layout
    }

    /// The hierarchy that has the controller.
    #[must_use]
    pub fn hierarchy(&self, controller: Controller) -> Option<&Hierarchy> {
        self.v1
            .iter()
            .chain(&self.v2)
            .find(|found| found.controllers.contains(controller))
    }

    /// Where the controllers of a group would be.
    #[must_use]
    pub fn places(&self) -> Places {
        let usable = |hierarchy: &&Hierarchy| !hierarchy.read_only;
        let v1 = self.v1.iter().filter(usable);
        let v2 = self.v2.as_ref().filter(usable);
        Places {
            v1: v1.fold(Controllers::default(), |all, found| {
                all.union(found.controllers)
            }),
            v2: v2.map(|found| found.controllers).unwrap_or_default(),
            unified: v2.is_some(),
            noprefix: self.v1.iter().any(|found| found.noprefix),
        }
    }

    /// Whether groups are on v2 alone: no v1 hierarchy with a controller is mounted.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.v2.is_some()
            && self
                .v1
                .iter()
                .all(|hierarchy| hierarchy.controllers.is_empty())
    }
}

impl Hierarchy {
    fn new(mount: &Mount<'_>, names: Vec<String>, own: &Path, root: &Path) -> Self {
        let mount_point = below(root, Path::new(&mount.mount_point));
        let controllers = if names.is_empty() {
            let list = file::read(&mount_point.join("cgroup.controllers")).unwrap_or_default();
            Controllers::of(list.split_ascii_whitespace())
        } else {
            Controllers::of(names.iter().map(String::as_str))
        };
        let group = PathBuf::from(&*mount.root);
        Self {
            own: own_directory(own, &group).map(|path| below(&mount_point, path)),
            noprefix: mount.has_option("noprefix") || mount.fs_type == b"cpuset",
            read_only: mount.has_option("ro"),
            root: group,
            names,
            controllers,
            mount_point,
        }
    }

    /// The directory of a group given as a path from the mount's root; `..` stays inside.
    #[must_use]
    pub fn directory(&self, group: &Path) -> PathBuf {
        below(&self.mount_point, group)
    }
}

/// A line of `/proc/PID/cgroup`: the hierarchy's names (none for v2) and the group's path.
fn own_group(line: &str) -> Option<(Vec<String>, &str)> {
    let mut fields = line.splitn(3, ':');
    let _id: u32 = fields.next()?.parse().ok()?;
    let names = fields.next()?;
    let path = fields.next()?;
    let names = names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    Some((names.collect(), path))
}

/// The caller's group as seen from the mount's root. A group outside the cgroup namespace
/// (`/../x`), or beside what the mount shows, has no directory there.
fn own_directory<'a>(own: &'a Path, mounted: &Path) -> Option<&'a Path> {
    let inside = own.strip_prefix(mounted).ok()?;
    let climbs = inside.components().any(|part| part == Component::ParentDir);
    let foreign = mounted
        .components()
        .any(|part| part == Component::ParentDir);
    (!climbs && !foreign).then_some(inside)
}

/// Joins lexically: the result never leaves `base`, whatever `path` contains.
pub(crate) fn below(base: &Path, path: &Path) -> PathBuf {
    let mut parts: Vec<&std::ffi::OsStr> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let mut joined = base.to_path_buf();
    joined.extend(parts);
    joined
}

/// The mount to use for a hierarchy: visible, and if there are several, writable and whole.
fn best_mount<'m, 'a>(mounts: &'m [Mount<'a>], names: &[String]) -> Option<&'m Mount<'a>> {
    let candidates = mounts
        .iter()
        .filter(|mount| shows(mount, names) && !hidden(mount, mounts));
    candidates.min_by_key(|mount| (mount.has_option("ro"), mount.root.as_bytes() != b"/"))
}

fn shows(mount: &Mount<'_>, names: &[String]) -> bool {
    match mount.fs_type {
        b"cgroup2" => names.is_empty(),
        b"cgroup" => !names.is_empty() && names.iter().all(|name| mount.has_option(name)),
        b"cpuset" => names == ["cpuset"],
        _ => false,
    }
}

/// Whether another mount covers this one's directory: it lies on the way to it without being
/// what this one was mounted on.
fn hidden(mount: &Mount<'_>, mounts: &[Mount<'_>]) -> bool {
    let place = mount.mount_point.as_bytes();
    mounts.iter().any(|other| {
        other.id != mount.id
            && lies_within(place, other.mount_point.as_bytes())
            && !is_ancestor(other, mount, mounts)
    })
}

/// Compares bytes: the kernel prints paths in one form only, and a host may have thousands.
fn lies_within(place: &[u8], directory: &[u8]) -> bool {
    let rest = place.strip_prefix(directory);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || directory == b"/")
}

fn is_ancestor(other: &Mount<'_>, mount: &Mount<'_>, mounts: &[Mount<'_>]) -> bool {
    let mut parent = mount.parent;
    // The chain ends at a mount outside the table; its length bounds a forged, circular one.
    for _ in mounts {
        if parent == other.id {
            return true;
        }
        match mounts.iter().find(|candidate| candidate.id == parent) {
            Some(found) if found.parent != parent => parent = found.parent,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
