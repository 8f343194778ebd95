//! What the machine under the tests has.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// How the resource groups of this host are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Only cgroup v1 hierarchies.
    V1,
    /// Version 1 hierarchies and a version 2 hierarchy beside them.
    Hybrid,
    /// Only the version 2 hierarchy.
    V2,
}

/// The layout as mountinfo shows it.
#[must_use]
pub fn layout() -> Layout {
    let kinds: Vec<String> = mounts().into_iter().map(|mount| mount.kind).collect();
    let has = |kind: &str| kinds.iter().any(|other| other == kind);
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => Layout::Hybrid,
        (true, false) => Layout::V1,
        (false, _) => Layout::V2,
    }
}

/// The mount point of the hierarchy that has this controller: v1, or v2 where it is enabled for children.
#[must_use]
pub fn controller(name: &str) -> Option<PathBuf> {
    let v1 = mounts()
        .into_iter()
        .find(|mount| mount.kind == "cgroup" && mount.options.iter().any(|option| option == name));
    let v2 = || {
        let unified = mounts().into_iter().find(|mount| mount.kind == "cgroup2")?;
        let list = fs::read_to_string(unified.point.join("cgroup.controllers")).ok()?;
        list.split_whitespace()
            .any(|other| other == name)
            .then_some(unified.point)
    };
    v1.map(|mount| mount.point).or_else(v2)
}

/// Where each hierarchy of resource groups is mounted.
#[must_use]
pub fn cgroup_mounts() -> Vec<PathBuf> {
    let groups = mounts()
        .into_iter()
        .filter(|mount| mount.kind.starts_with("cgroup"));
    groups.map(|mount| mount.point).collect()
}

/// Every mount point of the tests' mount namespace.
#[must_use]
pub fn mount_points() -> Vec<PathBuf> {
    mounts().into_iter().map(|mount| mount.point).collect()
}

/// The pids of all processes.
#[must_use]
pub fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Where an installed program lies.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Whether the calling process has this capability in its bounding set, by the kernel's number.
#[must_use]
pub fn may(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let set = line
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .expect("CapBnd");
    set >> capability & 1 == 1
}

/// The number of `CAP_SYS_RESOURCE`, which the reference machine lacks.
pub const CAP_SYS_RESOURCE: u32 = 24;

/// Whether the kernel has this file, such as `/proc/self/ns/time`.
#[must_use]
pub fn has(path: &str) -> bool {
    Path::new(path).exists()
}

struct Mount {
    point: PathBuf,
    kind: String,
    options: Vec<String>,
}

fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut file_system = file_system.split(' ');
    Some(Mount {
        point: PathBuf::from(mount.split(' ').nth(4)?),
        kind: file_system.next()?.to_owned(),
        options: file_system.nth(1)?.split(',').map(str::to_owned).collect(),
    })
}
