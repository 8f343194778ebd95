//! The root file system: one overlay per top-level directory.
//!
//! A single overlay over `/` fails in a user namespace (the submounts are locked) and misses what
//! is mounted below. One per directory works for everybody, needs no mount on the host, and what
//! is hidden is hidden in the writable layer itself: no mask that could be unmounted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::visibility;

/// What to make on disk and what to mount, for one root file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootPlan {
    /// Plain directories of the root, parents first.
    pub(crate) directories: Vec<Directory>,
    pub(crate) links: Vec<Link>,
    /// Files to copy into the root: source and path inside.
    pub(crate) copies: Vec<(PathBuf, PathBuf)>,
    /// Parents first.
    pub(crate) overlays: Vec<Overlay>,
    /// What of the lower directories must not be seen.
    pub(crate) hidden: Vec<Hidden>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) path: PathBuf,
    pub(crate) target: PathBuf,
}

/// One copy-on-write directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overlay {
    /// Path inside the container.
    pub(crate) path: PathBuf,
    /// Directories of the host below it, the uppermost first.
    pub(crate) lower: Vec<PathBuf>,
}

/// A path inside an overlay that its writable layer covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hidden {
    pub(crate) path: PathBuf,
    /// `Some(mode)`: an empty directory; `None`: nothing.
    pub(crate) empty: Option<u32>,
}

/// An entry of a directory of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    Link(PathBuf),
    File,
    Other,
}

/// What planning needs to know of the host.
pub(crate) struct Host<'a> {
    /// Entries of a directory by name; empty if it cannot be read.
    pub(crate) list: &'a dyn Fn(&Path) -> Vec<(String, Entry)>,
    /// Mount points of real file systems, and of all others.
    pub(crate) mounts: &'a [PathBuf],
    pub(crate) pseudo_mounts: &'a [PathBuf],
    /// Whether the overlays are mounted in a user namespace, where locked submounts may not be
    /// left behind.
    pub(crate) user_namespace: bool,
    /// Paths to show wherever they lie.
    pub(crate) shown: &'a [PathBuf],
    /// Home directories whose secrets are hidden even where they are shown.
    pub(crate) homes: &'a [PathBuf],
    /// floe's own directories.
    pub(crate) own: &'a [PathBuf],
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

/// Plans the default root: this machine, without what [`visibility`] hides.
#[must_use]
pub(crate) fn plan_host(host: &Host<'_>) -> RootPlan {
    let mut plan = RootPlan::default();
    for (name, entry) in (host.list)(Path::new("/")) {
        let path = Path::new("/").join(&name);
        let own = host.own.contains(&path);
        match entry {
            _ if visibility::FRESH.contains(&name.as_str()) || own => {}
            Entry::Directory => match empty_mode(&path) {
                Some(mode) => plan.directories.push(Directory { path, mode }),
                None => plan.show(host, path),
            },
            Entry::Link(target) => plan.links.push(Link { path, target }),
            Entry::File => plan.copies.push((path.clone(), path)),
            Entry::Other => {}
        }
    }
    plan.directories.push(Directory {
        path: "/tmp".into(),
        mode: 0o1777,
    });
    for mount in host.mounts {
        if plan.covers(mount) && !is_hidden(mount) && !plan.has_overlay(mount) {
            plan.show(host, mount.clone());
        }
    }
    let mut shown = host.shown.to_vec();
    shown.sort();
    for path in shown {
        plan.open(host, &path);
    }
    plan.hide(host);
    plan.sort();
    plan
}

/// Plans a root over directories of which each is a whole root file system, the uppermost first.
/// `list` lists the union of a path in them; `lower` finds the layers that hold a directory.
#[must_use]
pub(crate) fn plan_layers(
    entries: &[(String, Entry)],
    source: &dyn Fn(&str) -> PathBuf,
    lower: &dyn Fn(&str) -> Vec<PathBuf>,
) -> RootPlan {
    let mut plan = RootPlan::default();
    for (name, entry) in entries {
        let path = Path::new("/").join(name);
        match entry {
            Entry::Directory if ["dev", "proc", "sys"].contains(&name.as_str()) => {}
            Entry::Directory => plan.overlays.push(Overlay {
                path,
                lower: lower(name),
            }),
            Entry::Link(target) => plan.links.push(Link {
                path,
                target: target.clone(),
            }),
            Entry::File => plan.copies.push((source(name), path)),
            Entry::Other => {}
        }
    }
    plan.sort();
    plan
}

impl RootPlan {
    /// Shows a directory of the host: as one overlay, or entry by entry where a mount below it
    /// forbids that.
    fn show(&mut self, host: &Host<'_>, path: PathBuf) {
        let blocked = host.user_namespace
            && host
                .mounts
                .iter()
                .chain(host.pseudo_mounts)
                .any(|mount| mount != &path && mount.starts_with(&path));
        if !blocked {
            self.overlays.push(Overlay {
                lower: vec![path.clone()],
                path,
            });
            return;
        }
        self.directories.push(Directory {
            path: path.clone(),
            mode: 0o755,
        });
        for (name, entry) in (host.list)(&path) {
            let path = path.join(name);
            if is_hidden(&path) || host.pseudo_mounts.contains(&path) || host.own.contains(&path) {
                if let (Entry::Directory, Some(mode)) = (&entry, empty_mode(&path)) {
                    self.directories.push(Directory { path, mode });
                }
                continue;
            }
            match entry {
                Entry::Directory => self.show(host, path),
                Entry::Link(target) => self.links.push(Link { path, target }),
                Entry::File => self.copies.push((path.clone(), path)),
                Entry::Other => {}
            }
        }
    }

    /// Opens a path that somebody asked for.
    fn open(&mut self, host: &Host<'_>, path: &Path) {
        // What lies in an overlay inside a hidden directory has been opened with it.
        let visible = self
            .overlay_of(path)
            .is_some_and(|overlay| !is_hidden(path) || is_hidden(&overlay.path));
        if visible || is_own(host, path) || path == Path::new("/") || is_fresh_kernel(path) {
            return;
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default();
        let entries = (host.list)(parent);
        let entry = entries.iter().find(|(entry, _)| name == entry.as_str());
        match entry.map(|(_, entry)| entry) {
            Some(Entry::Directory) => self.show(host, path.to_owned()),
            // Inside an overlay it is enough not to hide it.
            Some(Entry::File) if !self.covers(path) => {
                self.copies.push((path.to_owned(), path.to_owned()));
            }
            Some(Entry::Link(target)) if !self.covers(path) => {
                self.links.push(Link {
                    path: path.to_owned(),
                    target: target.clone(),
                });
            }
            Some(Entry::File | Entry::Link(_) | Entry::Other) | None => {}
        }
    }

    /// Decides what the overlays' writable layers cover.
    fn hide(&mut self, host: &Host<'_>) {
        let mut hidden: Vec<Hidden> = Vec::new();
        let mut nothing = |path: PathBuf| hidden.push(Hidden { path, empty: None });
        for path in visibility::ABSENT {
            nothing(path.into());
        }
        for (parent, only) in visibility::ONLY {
            for (name, _) in (host.list)(Path::new(parent)) {
                if !only.contains(&name.as_str()) {
                    nothing(Path::new(parent).join(name));
                }
            }
        }
        for home in host.homes {
            for secret in visibility::HOME_SECRETS {
                nothing(home.join(secret));
            }
        }
        for own in host.own {
            nothing(own.clone());
        }
        for (path, mode) in visibility::EMPTY {
            hidden.push(Hidden {
                path: path.into(),
                empty: Some(*mode),
            });
        }
        hidden.retain(|hidden| {
            let path = &hidden.path;
            let asked = host.shown.contains(path) && !host.own.contains(path);
            !asked
                && self
                    .overlay_of(path)
                    .is_some_and(|overlay| overlay.path != *path)
        });
        hidden.sort_by(|a, b| a.path.cmp(&b.path));
        // What is below something hidden need not be hidden again.
        let mut kept: Vec<Hidden> = Vec::new();
        for entry in hidden {
            let below = kept.iter().any(|above| {
                entry.path.starts_with(&above.path)
                    && self.overlay_of(&entry.path).map(|o| &o.path)
                        == self.overlay_of(&above.path).map(|o| &o.path)
            });
            if !below {
                kept.push(entry);
            }
        }
        self.hidden = kept;
    }

    fn sort(&mut self) {
        self.directories.sort_by(|a, b| a.path.cmp(&b.path));
        self.directories.dedup_by(|a, b| a.path == b.path);
        self.overlays.sort_by(|a, b| a.path.cmp(&b.path));
        self.overlays.dedup_by(|a, b| a.path == b.path);
        let overlaid: BTreeSet<&PathBuf> = self.overlays.iter().map(|o| &o.path).collect();
        self.directories
            .retain(|directory| !overlaid.contains(&directory.path));
    }

    /// The innermost overlay that holds a path.
    pub(crate) fn overlay_of(&self, path: &Path) -> Option<&Overlay> {
        self.overlays
            .iter()
            .filter(|overlay| path.starts_with(&overlay.path))
            .max_by_key(|overlay| overlay.path.components().count())
    }

    fn covers(&self, path: &Path) -> bool {
        self.overlay_of(path).is_some()
    }

    fn has_overlay(&self, path: &Path) -> bool {
        self.overlays.iter().any(|overlay| overlay.path == path)
    }
}

fn empty_mode(path: &Path) -> Option<u32> {
    visibility::EMPTY
        .iter()
        .find(|(empty, _)| Path::new(empty) == path)
        .map(|(_, mode)| *mode)
}

fn is_hidden(path: &Path) -> bool {
    let listed = visibility::ABSENT
        .iter()
        .any(|hidden| path.starts_with(hidden))
        || visibility::EMPTY
            .iter()
            .any(|(hidden, _)| path.starts_with(hidden));
    listed
        || visibility::ONLY.iter().any(|(parent, only)| {
            path.strip_prefix(parent)
                .ok()
                .and_then(|rest| rest.components().next())
                .is_some_and(|first| !only.iter().any(|name| first.as_os_str() == *name))
        })
        || visibility::FRESH
            .iter()
            .any(|fresh| path.starts_with(Path::new("/").join(fresh)))
}

fn is_own(host: &Host<'_>, path: &Path) -> bool {
    host.own.iter().any(|own| path.starts_with(own))
}

/// The kernel's own trees are mounted afresh; showing the host's would undo the isolation.
fn is_fresh_kernel(path: &Path) -> bool {
    ["/dev", "/proc", "/sys"]
        .iter()
        .any(|kernel| path.starts_with(kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of a host as `path` (directory), `path=` (file) or `path>target` (link).
    fn list_of(tree: &'static [&'static str]) -> impl Fn(&Path) -> Vec<(String, Entry)> {
        move |directory| {
            tree.iter()
                .filter_map(|line| {
                    let (path, entry) = match (line.split_once('>'), line.strip_suffix('=')) {
                        (Some((path, target)), _) => (path, Entry::Link(target.into())),
                        (None, Some(path)) => (path, Entry::File),
                        (None, None) => (*line, Entry::Directory),
                    };
                    let path = Path::new(path);
                    (path.parent() == Some(directory)).then(|| {
                        (
                            path.file_name().unwrap().to_str().unwrap().to_owned(),
                            entry,
                        )
                    })
                })
                .collect()
        }
    }

    const TREE: &[&str] = &[
        "/bin>usr/bin",
        "/dev",
        "/etc",
        "/home",
        "/home/ann",
        "/home/ann/work",
        "/home/ann/.cargo",
        "/home/ann/.cargo/bin",
        "/note=",
        "/opt",
        "/opt/big",
        "/opt/small",
        "/opt/file=",
        "/proc",
        "/root",
        "/tmp",
        "/tmp/build",
        "/usr",
        "/var",
        "/var/lib",
        "/var/lib/apt",
        "/var/lib/floe",
        "/var/lib/mysql",
    ];

    fn paths(list: &[&str]) -> Vec<PathBuf> {
        list.iter().map(PathBuf::from).collect()
    }

    fn plan(shown: &[&str], mounts: &[&str], user_namespace: bool) -> RootPlan {
        plan_host(&Host {
            list: &list_of(TREE),
            mounts: &paths(mounts),
            pseudo_mounts: &[],
            user_namespace,
            shown: &paths(shown),
            homes: &paths(&["/home/ann", "/root"]),
            own: &paths(&["/var/lib/floe"]),
        })
    }

    fn overlays(plan: &RootPlan) -> Vec<&str> {
        plan.overlays
            .iter()
            .map(|overlay| overlay.path.to_str().unwrap())
            .collect()
    }

    fn hidden(plan: &RootPlan) -> Vec<&str> {
        plan.hidden
            .iter()
            .map(|hidden| hidden.path.to_str().unwrap())
            .collect()
    }

    #[test]
    fn top_directories_are_overlays_and_private_ones_are_empty() {
        let plan = plan(&[], &[], false);
        assert_eq!(overlays(&plan), ["/etc", "/opt", "/usr", "/var"]);
        let directories: Vec<_> = plan
            .directories
            .iter()
            .map(|d| d.path.to_str().unwrap())
            .collect();
        assert_eq!(directories, ["/home", "/root", "/tmp"]);
        assert_eq!(
            plan.links,
            [Link {
                path: "/bin".into(),
                target: "usr/bin".into()
            }]
        );
        assert_eq!(plan.copies, [("/note".into(), "/note".into())]);
    }

    #[test]
    fn services_data_and_floes_own_are_hidden_but_packages_are_not() {
        let plan = plan(&[], &[], false);
        let hidden = hidden(&plan);
        for path in ["/etc/shadow", "/var/lib/mysql", "/var/lib/floe", "/var/log"] {
            assert!(hidden.contains(&path), "{path}: {hidden:?}");
        }
        assert!(!hidden.contains(&"/var/lib/apt"));
    }

    #[test]
    fn the_current_directory_is_shown_inside_a_hidden_home_without_its_secrets() {
        let plan = plan(&["/home/ann/work"], &[], false);
        assert!(overlays(&plan).contains(&"/home/ann/work"));
        assert!(!overlays(&plan).contains(&"/home/ann"));
        let home = self::plan(&["/home/ann"], &[], false);
        assert!(hidden(&home).contains(&"/home/ann/.ssh"));
    }

    #[test]
    fn show_opens_what_is_hidden_but_never_floes_own_or_the_kernels() {
        let plan = plan(
            &["/etc/shadow", "/var/lib/mysql", "/proc", "/tmp/build"],
            &[],
            false,
        );
        assert!(!hidden(&plan).contains(&"/etc/shadow"));
        assert!(!hidden(&plan).contains(&"/var/lib/mysql"));
        assert!(overlays(&plan).contains(&"/tmp/build"));
        assert!(!overlays(&plan).contains(&"/proc"));
        let own = self::plan(&["/var/lib/floe"], &[], false);
        assert!(hidden(&own).contains(&"/var/lib/floe"));
    }

    #[test]
    fn a_submount_has_its_own_overlay() {
        let plan = plan(&[], &["/opt/big", "/home/ann"], false);
        assert_eq!(
            overlays(&plan),
            ["/etc", "/opt", "/opt/big", "/usr", "/var"]
        );
    }

    #[test]
    fn a_locked_submount_splits_its_directory_for_a_user_namespace() {
        let plan = plan(&[], &["/opt/big"], true);
        assert_eq!(
            overlays(&plan),
            ["/etc", "/opt/big", "/opt/small", "/usr", "/var"]
        );
        assert!(plan.directories.contains(&Directory {
            path: "/opt".into(),
            mode: 0o755
        }));
        assert!(
            plan.copies
                .contains(&("/opt/file".into(), "/opt/file".into()))
        );
    }
}
