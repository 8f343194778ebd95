//! What a run of the container used, written down before its groups are removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cgroup::stats::Totals;
use cgroup::{Group, Layout};
use monitor::account::{ACCOUNT, Entry, append};
use rustix::process::Pid;

use super::options::Options;

/// The groups of a container's first process, as `/proc/PID/cgroup` told them while it lived.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups(Vec<u8>);

impl Groups {
    pub(super) fn of(init: Pid) -> Self {
        let path = format!("/proc/{}/cgroup", init.as_raw_nonzero());
        // Without it the run is not accounted; it runs all the same.
        Self(std::fs::read(path).unwrap_or_default())
    }

    /// The container's group with all below it, and its path from the root of a hierarchy.
    fn find(&self, id: &str) -> Option<(Group, String)> {
        let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
        let layout = Layout::from_texts(&mounts, &self.0, Path::new("/"));
        let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut shown = None;
        for hierarchy in layout.v1.iter().chain(&layout.v2) {
            let own = hierarchy.own.as_deref()?;
            let named = |directory: &&Path| directory.file_name().is_some_and(|name| name == id);
            let Some(directory) = own.ancestors().find(named) else {
                continue;
            };
            let names = hierarchy.names.iter().cloned();
            let names: Vec<String> = names.collect();
            if names.is_empty() {
                paths.insert(String::new(), directory.to_owned());
            }
            paths.extend(names.into_iter().map(|name| (name, directory.to_owned())));
            let below = directory.strip_prefix(&hierarchy.mount_point).ok()?;
            shown = Some(format!("/{}", below.display()));
        }
        Some((Group::open(&paths), shown?))
    }

    /// Appends what the run used to the account. For onlookers: a failure fails nothing.
    pub(super) fn account(&self, options: &Options, started: &str) {
        let Some((group, path)) = self.find(&options.id) else {
            return;
        };
        let Ok(stats) = group.stats() else { return };
        let Some(store) = options.state_dir.parent().and_then(Path::parent) else {
            return;
        };
        let name = name(&options.state_dir).unwrap_or_else(|| options.id.clone());
        let entry = Entry {
            kind: "container",
            name: &name,
            id: &options.id,
            path: &path,
            user: rustix::process::geteuid().as_raw(),
            started,
            numbers: &Totals::of(&stats).named(),
        };
        let _ = append(&store.join(ACCOUNT), &entry);
    }
}

/// The container's present name: floe writes its record with a line for each field, and names
/// have no letter that JSON would write otherwise.
fn name(state_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(state_dir.join("config.json")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("  \"name\": \""))?;
    Some(line.strip_suffix("\",")?.to_owned())
}
