//! What a container left on the host, found without asking the runtime.

use crate::{bundle, host};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The environment variable that marks a test's processes: the runtime's own, its helpers' and the containers'.
pub const MARK: &str = "FLOE_TEST_ID";

/// Processes, mounts, groups and state of one test that still exist.
#[derive(Debug, Default)]
pub struct Leftovers {
    id: String,
    directory: PathBuf,
    state: PathBuf,
    processes: Vec<(i32, String)>,
    mounts: Vec<PathBuf>,
    groups: Vec<PathBuf>,
    states: Vec<PathBuf>,
}

impl Leftovers {
    /// Looks for what carries the id or lies below the test's directory.
    #[must_use]
    pub fn of(id: &str, directory: &Path, state: &Path) -> Self {
        let belongs =
            |path: &PathBuf| path.starts_with(directory) || path.to_string_lossy().contains(id);
        Self {
            id: id.to_owned(),
            directory: directory.to_owned(),
            state: state.to_owned(),
            processes: marked_processes(id),
            mounts: host::mount_points().into_iter().filter(belongs).collect(),
            groups: groups(id),
            states: state
                .exists()
                .then(|| state.to_owned())
                .into_iter()
                .collect(),
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
            && self.mounts.is_empty()
            && self.groups.is_empty()
            && self.states.is_empty()
    }

    /// Looks again for up to two seconds: a killed process takes a moment to go.
    #[must_use]
    pub fn after_a_while(mut self) -> Self {
        let end = Instant::now() + Duration::from_secs(2) * crate::slowness();
        while !self.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
            self = Self::of(&self.id, &self.directory, &self.state);
        }
        self
    }

    /// Removes what is left, and the groups' parent that the harness asked for; errors show as leftovers elsewhere.
    pub fn clean(&self) {
        for (pid, _) in &self.processes {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for mount in self.mounts.iter().rev() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
        for mount in host::cgroup_mounts() {
            remove_groups(&mount.join(bundle::cgroup_parent(&self.id).trim_start_matches('/')));
        }
    }
}

/// Living processes whose environment carries the mark of this test; a zombie has none.
fn marked_processes(id: &str) -> Vec<(i32, String)> {
    let mark = format!("{MARK}={id}");
    let marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    };
    let named = |pid: i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, line.replace('\0', " "))
    };
    host::processes()
        .into_iter()
        .filter(marked)
        .map(named)
        .collect()
}

/// The container's groups (not the parent that the harness named), in every hierarchy.
fn groups(id: &str) -> Vec<PathBuf> {
    let parent = bundle::cgroup_parent(id);
    let parents = host::cgroup_mounts()
        .into_iter()
        .map(|mount| mount.join(parent.trim_start_matches('/')));
    parents.flat_map(|parent| subdirectories(&parent)).collect()
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn remove_groups(group: &Path) {
    for child in subdirectories(group) {
        remove_groups(&child);
    }
    let _ = fs::remove_dir(group);
}
