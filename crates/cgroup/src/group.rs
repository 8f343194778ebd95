//! A group: one directory in every hierarchy of the layout.

mod cpuset;
mod create;
mod delegate;
mod devices;
mod freezer;
mod grant;
mod kept_text;
mod named;
mod net;
mod processes;
mod remove;
mod tree;
mod values;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::controller::{Controller, Controllers};
use crate::error::{Error, Result};
use crate::file;
use crate::layout::{Hierarchy, Layout};
use crate::plan::{self, Current, Place, Places};
use crate::resources::Resources;

pub use freezer::Frozen;
pub use named::Name;

/// The parent of groups for which no path is asked.
const DEFAULT_PARENT: &str = "floe";

/// Where a group is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Names the group where `path` is not given.
    pub id: &'a str,
    /// From the mounts' roots if it begins with `/`, else below floe's default parent.
    pub path: Option<&'a str>,
    /// The caller may lack the right to make groups: hierarchies that refuse are left out, and
    /// the default parent lies below the nearest group that was delegated to the caller.
    pub rootless: bool,
}

/// One group in every hierarchy. Its directories exist once [`Group::create`] made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    v1: Vec<Directory>,
    v2: Option<Directory>,
    rootless: bool,
    /// Just made, so that every value is the kernel's default.
    fresh: bool,
}

/// The group's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Directory {
    names: Vec<String>,
    controllers: Controllers,
    path: PathBuf,
    /// The mount point, above which nothing is made or enabled; empty if only reopened.
    base: PathBuf,
    noprefix: bool,
    /// The directory was there before floe: it stays when the group is removed.
    adopted: bool,
    /// The group on the way that could not be made to pass v2's controllers on.
    blocked: Option<PathBuf>,
}

impl Group {
    /// Decides where the group lies in each writable hierarchy. Makes nothing yet: the paths can
    /// be recorded before the first directory exists.
    ///
    /// # Errors
    /// The path contains a NUL byte.
    pub fn place(layout: &Layout, request: &Request<'_>) -> Result<Self> {
        let asked = request.path.filter(|path| !path.is_empty());
        if asked.unwrap_or(request.id).contains('\0') {
            return Err(Error::text(
                "place group",
                asked.unwrap_or_default(),
                "NUL in the path",
            ));
        }
        let directory = |hierarchy: &Hierarchy| {
            let parent = default_parent(hierarchy, request.rootless);
            let path = match asked {
                Some(path) if path.starts_with('/') => hierarchy.directory(Path::new(path)),
                Some(path) => crate::layout::below(&parent?, Path::new(path)),
                None => crate::layout::below(&parent?, Path::new(request.id)),
            };
            // The root group itself is the host's, not a container's.
            (path != hierarchy.mount_point).then(|| Directory::new(hierarchy, path))
        };
        let writable = |hierarchy: &&Hierarchy| !hierarchy.read_only;
        Ok(Self {
            v1: layout
                .v1
                .iter()
                .filter(writable)
                .filter_map(directory)
                .collect(),
            v2: layout.v2.iter().filter(writable).find_map(directory),
            rootless: request.rootless,
            fresh: false,
        })
    }

    /// The group at a path that systemd manages. On v2 it and its controllers are systemd's work,
    /// and nothing is enabled along the path; v1 hierarchies that systemd leaves alone are ours.
    pub(crate) fn managed(layout: &Layout, path: &Path, rootless: bool) -> Result<Self> {
        let path = path.to_string_lossy();
        let request = Request {
            id: "",
            path: Some(&path),
            rootless,
        };
        let mut group = Self::place(layout, &request)?;
        if let Some(v2) = &mut group.v2 {
            v2.base.clone_from(&v2.path);
        }
        Ok(group)
    }

    /// The group whose directories [`Group::paths`] told, for instance from a state file.
    #[must_use]
    pub fn open(paths: &BTreeMap<String, PathBuf>) -> Self {
        let mut group = Self {
            v1: Vec::new(),
            v2: None,
            rootless: false,
            fresh: false,
        };
        for (name, path) in paths {
            if name.is_empty() {
                group.v2 = Some(Directory::reopened(path));
                continue;
            }
            let index = match group.v1.iter().position(|known| known.path == *path) {
                Some(index) => index,
                None => {
                    group.v1.push(Directory::reopened(path));
                    group.v1.len() - 1
                }
            };
            let directory = &mut group.v1[index];
            directory.names.push(name.clone());
            if let Some(controller) = Controller::named(name) {
                directory.controllers = directory.controllers.with(controller);
            }
        }
        group
    }

    /// The directory for each v1 controller (or `name=…` hierarchy); v2's has the empty name.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let v1 = self.v1.iter().flat_map(|directory| {
            directory
                .names
                .iter()
                .map(|name| (name.clone(), directory.path.clone()))
        });
        v1.chain(self.v2.iter().map(|v2| (String::new(), v2.path.clone())))
            .collect()
    }

    /// A group below this one, in every hierarchy. As the root of a container's cgroup namespace
    /// it leaves the outer group's limits out of the container's reach: no mount flag does that on
    /// v1, and on v2 only `nsdelegate`, which hosts need not have. Made by [`Group::create`], after
    /// the outer group has its processors ([`Group::apply`]); removed together with it.
    #[must_use]
    pub fn inner(&self, name: &str) -> Self {
        let below = |outer: &Directory| Directory {
            path: crate::layout::below(&outer.path, Path::new(name)),
            base: outer.path.clone(),
            controllers: if outer.names.is_empty() {
                outer.v2_controllers()
            } else {
                outer.controllers
            },
            noprefix: outer.is_noprefix(),
            adopted: false,
            blocked: outer.blocked.clone(),
            names: outer.names.clone(),
        };
        Self {
            v1: self.v1.iter().map(below).collect(),
            v2: self.v2.as_ref().map(below),
            rootless: self.rootless,
            fresh: false,
        }
    }

    /// The names (as in [`Group::paths`]) of the directories that were there before `create`.
    /// [`Group::keep`] excepts them from `remove` after the group was reopened.
    #[must_use]
    pub fn adopted(&self) -> Vec<String> {
        let adopted = self.directories().filter(|directory| directory.adopted);
        adopted
            .map(|directory| directory.names.first().cloned().unwrap_or_default())
            .collect()
    }

    /// Leaves the directories of these names in place when the group is removed.
    pub fn keep(&mut self, names: &[String]) {
        for directory in self.v1.iter_mut().chain(&mut self.v2) {
            let name = directory.names.first().map_or("", String::as_str);
            directory.adopted |= names.iter().any(|kept| kept == name);
        }
    }

    /// The v2 directory, for `CLONE_INTO_CGROUP`; `None` where there is no v2.
    ///
    /// # Errors
    /// The group does not exist.
    pub fn v2_dir(&self) -> Result<Option<OwnedFd>> {
        self.v2
            .as_ref()
            .map(|v2| file::directory(&v2.path))
            .transpose()
    }

    /// The directory that has the controller's files.
    #[must_use]
    pub fn directory(&self, controller: Controller) -> Option<&Path> {
        self.place_of(controller).map(|(_, path)| path)
    }

    pub(crate) fn place_of(&self, controller: Controller) -> Option<(Place, &Path)> {
        let place = self.places().of(controller)?;
        self.at(place)
            .map(|directory| (place, directory.path.as_path()))
    }

    pub(crate) fn v2_path(&self) -> Option<&Path> {
        self.v2.as_ref().map(|v2| v2.path.as_path())
    }

    /// Whether the group exists in at least one hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.directories()
            .any(|directory| access(&directory.path, Access::EXISTS).is_ok())
    }

    /// Sets the resources; what they do not mention keeps its value.
    ///
    /// # Errors
    /// A controller that is asked for is missing, a value is refused.
    pub fn apply(&mut self, resources: &Resources) -> Result<()> {
        let fresh = std::mem::take(&mut self.fresh);
        if *resources == Resources::default() {
            return Ok(());
        }
        let places = self.places();
        let current = if fresh {
            Current::default()
        } else {
            self.current(&places, resources)?
        };
        let plan = plan::plan(&places, resources, &current).map_err(|error| self.explain(error))?;
        plan.writes
            .iter()
            .try_for_each(|write| self.carry_out(write))?;
        self.apply_devices(&places, &resources.devices, fresh)
    }

    /// A controller that is there but could not be enabled is missed for a reason that the user can
    /// do something about.
    fn explain(&self, error: Error) -> Error {
        let blocked = self.v2.as_ref().and_then(|v2| v2.blocked.as_ref());
        match blocked.filter(|_| error.misses_controller()) {
            None => error,
            Some(group) => error.explained(format!(
                "`{}` has processes of its own, and v2 gives groups below such a one no controllers",
                group.display()
            )),
        }
    }

    fn carry_out(&self, write: &plan::Write) -> Result<()> {
        let Some(directory) = self.at(write.place) else {
            return Ok(());
        };
        if write.place == Place::V1(Controller::Cpuset) {
            return cpuset::write_v1(&directory.path, &write.file, &write.value);
        }
        let path = directory.path.join(&write.file);
        let mut result = file::write(&path, &write.value);
        if let (Err(sys::Errno::NOENT), Some((other, value))) = (result, &write.otherwise) {
            result = file::write(&directory.path.join(other), value);
        }
        match result {
            Err(sys::Errno::NOENT | sys::Errno::OPNOTSUPP) if write.optional => Ok(()),
            result => result.map_err(|errno| refused(&path, &write.value, errno)),
        }
    }

    /// Where the controllers of this group are. Reads `cgroup.controllers` of a reopened group.
    fn places(&self) -> Places {
        let v1 = self
            .v1
            .iter()
            .fold(Controllers::default(), |all, directory| {
                all.union(directory.controllers)
            });
        let v2 = self
            .v2
            .as_ref()
            .map_or(Controllers::default(), Directory::v2_controllers);
        let noprefix = self.v1.iter().any(Directory::is_noprefix);
        Places {
            v1,
            v2,
            unified: self.v2.is_some(),
            noprefix,
        }
    }

    fn at(&self, place: Place) -> Option<&Directory> {
        match place {
            Place::V1(controller) => self
                .v1
                .iter()
                .find(|directory| directory.controllers.contains(controller)),
            Place::V2 => self.v2.as_ref(),
        }
    }

    fn directories(&self) -> impl Iterator<Item = &Directory> {
        self.v1.iter().chain(&self.v2)
    }

    /// The values that decide about the order of writes, read only where the order matters.
    pub(crate) fn current(&self, places: &Places, resources: &Resources) -> Result<Current> {
        let mut current = Current::default();
        for (wanted, place, name) in plan::needed(places, resources) {
            let Some(directory) = self.at(place) else {
                continue;
            };
            let text = file::read_optional(&directory.path.join(name))?;
            current.set(wanted, text.as_deref().unwrap_or_default());
        }
        Ok(current)
    }
}

impl Directory {
    fn new(hierarchy: &Hierarchy, path: PathBuf) -> Self {
        Self {
            names: hierarchy.names.clone(),
            controllers: hierarchy.controllers,
            path,
            base: hierarchy.mount_point.clone(),
            noprefix: hierarchy.noprefix,
            adopted: false,
            blocked: None,
        }
    }

    fn reopened(path: &Path) -> Self {
        Self {
            names: Vec::new(),
            controllers: Controllers::default(),
            path: path.to_path_buf(),
            base: PathBuf::new(),
            noprefix: false,
            adopted: false,
            blocked: None,
        }
    }

    /// What a reopened group's own file says; before, what the layout said.
    fn v2_controllers(&self) -> Controllers {
        if !self.base.as_os_str().is_empty() {
            return self.controllers;
        }
        let list = file::read(&self.path.join("cgroup.controllers")).unwrap_or_default();
        Controllers::of(list.split_ascii_whitespace())
    }

    fn is_noprefix(&self) -> bool {
        self.noprefix
            || (self.base.as_os_str().is_empty()
                && self.controllers.contains(Controller::Cpuset)
                && access(self.path.join("cpus"), Access::EXISTS).is_ok())
    }
}

/// The kernel's number alone often does not tell what to do about it.
fn refused(path: &Path, value: &str, errno: sys::Errno) -> Error {
    let error = Error::kernel(&format!("write `{value}` to"), path, errno);
    if errno == sys::Errno::BUSY
        && let Ok(Some(usage)) = file::read_optional(&path.with_file_name("memory.usage_in_bytes"))
    {
        // v1 does not lower a limit below what it cannot reclaim.
        return error.explained(format!("the group uses {} bytes", usage.trim()));
    }
    if errno == sys::Errno::INVAL && path.ends_with("cpu.rt_runtime_us") {
        return error.explained("a group above it allows less real time".to_owned());
    }
    error
}

/// The directory below which groups without an absolute path go. Root's is `/floe` from the
/// mount's root, never below the caller's own group, whose limits are not meant for containers.
fn default_parent(hierarchy: &Hierarchy, rootless: bool) -> Option<PathBuf> {
    if !rootless {
        return Some(hierarchy.mount_point.join(DEFAULT_PARENT));
    }
    delegated(hierarchy).map(|ancestor| ancestor.join(DEFAULT_PARENT))
}

/// The nearest ancestor-or-self of the caller's group in which it may make groups; on v2 rather
/// one without processes of its own, because controllers cannot be enabled below others.
fn delegated(hierarchy: &Hierarchy) -> Option<PathBuf> {
    let writable = |directory: &&Path| {
        directory.starts_with(&hierarchy.mount_point)
            && access(*directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
            && access(directory.join("cgroup.procs"), Access::WRITE_OK).is_ok()
    };
    let own = hierarchy.own.as_deref()?;
    let mut candidates = own.ancestors().take_while(writable);
    if !hierarchy.names.is_empty() {
        return candidates.next().map(Path::to_path_buf);
    }
    let candidates: Vec<&Path> = candidates.collect();
    let empty = |directory: &&&Path| {
        file::read(&directory.join("cgroup.procs")).is_ok_and(|list| list.is_empty())
    };
    candidates
        .iter()
        .find(empty)
        .or(candidates.first())
        .map(|found| found.to_path_buf())
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
