//! A limit as the kernel has it, in the group of a container's process.

use crate::engine::Sandbox;
use crate::host;
use std::fs;
use std::path::{Path, PathBuf};

/// A value in a group's file: where cgroup v1 has it and where v2 does.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The controller, by its v1 name.
    pub controller: &'static str,
    /// File and value where the controller has a v1 hierarchy.
    pub v1: (&'static str, &'static str),
    /// File and value where it belongs to the v2 hierarchy.
    pub v2: (&'static str, &'static str),
}

impl Limit {
    /// Asserts that the group of `pid`, a number of the sandbox's, has this limit.
    #[track_caller]
    pub fn is_set_for(&self, sandbox: &Sandbox, pid: &str) {
        let groups = sandbox.read(&format!("/proc/{pid}/cgroup"));
        let (group, v1) = group_of(&groups, self.controller);
        assert!(
            group.starts_with(sandbox.directory())
                || group.to_string_lossy().contains(&sandbox.group()),
            "`{}` is not below `{}`",
            group.display(),
            sandbox.group()
        );
        let (file, value) = if v1 { self.v1 } else { self.v2 };
        let path = group.join(file);
        let found = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("read `{}`: {error}", path.display()));
        assert_eq!(found.trim(), value, "`{}`", path.display());
    }
}

/// A v1 hierarchy that exists and is mounted nowhere here: containerd then reads no group at all.
#[must_use]
pub fn unmounted_hierarchy() -> Option<String> {
    let own = fs::read_to_string("/proc/self/cgroup").expect("/proc/self/cgroup");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    let mounted = |name: &str| {
        let mut options = mounts.lines().filter_map(|line| line.rsplit(' ').next());
        options.any(|options| options.split(',').any(|option| option == name))
    };
    own.lines()
        .filter_map(|line| line.split(':').nth(1))
        .flat_map(|names| names.split(','))
        .find(|name| !name.is_empty() && !mounted(name))
        .map(str::to_owned)
}

/// The directory of the process's group in the hierarchy of `controller`, and whether that is a v1 hierarchy.
///
/// # Panics
/// If the host has no such controller.
#[must_use]
pub fn group_of(proc_cgroup: &str, controller: &str) -> (PathBuf, bool) {
    let entry = |wanted: &dyn Fn(&str) -> bool| {
        proc_cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let mount = host::controller(controller)
        .unwrap_or_else(|| panic!("this host has no `{controller}` controller"));
    match entry(&|list| list.split(',').any(|name| name == controller)) {
        Some(path) => (mount.join(path), true),
        None => (join_unified(&mount, entry(&str::is_empty)), false),
    }
}

fn join_unified(mount: &Path, path: Option<String>) -> PathBuf {
    mount.join(path.expect("the process's place in the v2 hierarchy"))
}
