//! In which order, and from what, mounts can be made again. Pure.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::image::namespace::MntEntry;
use crate::mount::{below, type_of};

/// More mounts than this are not believed: the limit of the kernel.
const MAX_MOUNTS: usize = 100_000;

/// Where mounts of one file system are copied from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The root that the caller gives.
    Root,
    /// What the caller gives under this key.
    Caller(String),
    /// A file system that is made anew, like that of this entry.
    New(usize),
}

/// One origin, and which directory of its file system it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) origin: Origin,
    pub(crate) device: u32,
    pub(crate) root: String,
}

/// One mount to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Position of its entry.
    pub(crate) entry: usize,
    /// Position of its source.
    pub(crate) source: usize,
    /// What of the source is mounted.
    pub(crate) path: String,
    /// Position of the entry that it is mounted on; `None` for the root.
    pub(crate) parent: Option<usize>,
    /// Where on that.
    pub(crate) target: String,
}

/// All of it. Parents stand before their children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) sources: Vec<Source>,
    pub(crate) steps: Vec<Step>,
}

/// The positions of the roots of namespaces: whose parent is not in the list.
pub(crate) fn roots_of(entries: &[MntEntry]) -> Vec<usize> {
    let ids: HashSet<u32> = entries.iter().map(|entry| entry.mnt_id).collect();
    let is_root = |entry: &MntEntry| {
        let alone = entry.mnt_id == entry.parent_mnt_id || !ids.contains(&entry.parent_mnt_id);
        entry.mountpoint == "/" && alone
    };
    (0..entries.len())
        .filter(|at| is_root(&entries[*at]))
        .collect()
}

/// Plans the mounts of one or several namespaces; the first is that of the tree's root.
///
/// # Errors
/// A mount hangs in the air, or is of a file system that can neither be made nor is given.
pub(crate) fn plan(entries: &[MntEntry]) -> Result<Plan> {
    if entries.len() > MAX_MOUNTS {
        return Err(Error::because("restore mounts", entries.len(), "too many"));
    }
    let roots = roots_of(entries);
    let root = *roots
        .first()
        .ok_or_else(|| Error::because("restore mounts", "/", "no mount is the root"))?;
    let mut plan = Plan {
        sources: given(entries, root),
        steps: Vec::new(),
    };
    let mut children: HashMap<u32, Vec<usize>> = HashMap::new();
    for (at, entry) in entries
        .iter()
        .enumerate()
        .filter(|(at, _)| !roots.contains(at))
    {
        children.entry(entry.parent_mnt_id).or_default().push(at);
    }
    let mut waiting: Vec<_> = roots.iter().rev().map(|root| (*root, None)).collect();
    while let Some((at, parent)) = waiting.pop() {
        let step = step(entries, (root, at), parent, &mut plan.sources)?;
        plan.steps.push(step);
        let mut below = children.remove(&entries[at].mnt_id).unwrap_or_default();
        // The deepest first: what lies above may hide what lies below. The last is popped first.
        below.sort_by_key(|child| {
            let point = &entries[*child].mountpoint;
            (point.matches('/').count(), std::cmp::Reverse(*child))
        });
        waiting.extend(below.into_iter().map(|child| (child, Some(at))));
    }
    if let Some(lost) = children.values().flatten().next() {
        let point = &entries[*lost].mountpoint;
        return Err(Error::because(
            "restore mount",
            point,
            "it hangs on no mount",
        ));
    }
    Ok(plan)
}

/// What the caller gives.
fn given(entries: &[MntEntry], root: usize) -> Vec<Source> {
    let source = |entry: &MntEntry, origin| Source {
        origin,
        device: entry.root_dev,
        root: entry.root.clone(),
    };
    let mut sources: Vec<Source> = entries
        .iter()
        .filter_map(|entry| Some(source(entry, Origin::Caller(key_of(entry)?.to_owned()))))
        .collect();
    // The layers of an overlay are the caller's: elsewhere they are others, and two overlays on one
    // writable layer spoil it.
    let kind = type_of(&entries[root]);
    if key_of(&entries[root]).is_none() && matches!(kind, None | Some("overlay")) {
        sources.push(source(&entries[root], Origin::Root));
    }
    sources
}

/// The key of a mount that the caller gives.
pub(crate) fn key_of(entry: &MntEntry) -> Option<&str> {
    let old = entry
        .ext_mount
        .unwrap_or(false)
        .then_some(entry.root.as_str());
    entry.ext_key.as_deref().or(old)
}

fn step(
    entries: &[MntEntry],
    (root, at): (usize, usize),
    parent: Option<usize>,
    sources: &mut Vec<Source>,
) -> Result<Step> {
    let entry = &entries[at];
    let (source, path) = match key_of(entry) {
        Some(key) => (caller_source(sources, key), String::new()),
        None => find_source(entries, at, at == root, sources)?,
    };
    let target = match parent {
        None => Some(String::new()),
        Some(parent) => below(&entries[parent].mountpoint, &entry.mountpoint).map(str::to_owned),
    };
    let target = target.ok_or_else(|| {
        let cause = "it does not lie below its parent";
        Error::because("restore mount", &entry.mountpoint, cause)
    })?;
    Ok(Step {
        entry: at,
        source,
        path,
        parent,
        target,
    })
}

fn caller_source(sources: &[Source], key: &str) -> usize {
    let same = |source: &Source| matches!(&source.origin, Origin::Caller(known) if known == key);
    sources.iter().position(same).unwrap_or(0)
}

fn find_source(
    entries: &[MntEntry],
    at: usize,
    is_root: bool,
    sources: &mut Vec<Source>,
) -> Result<(usize, String)> {
    let entry = &entries[at];
    if is_root
        && let Some(found) = sources
            .iter()
            .position(|source| source.origin == Origin::Root)
    {
        return Ok((found, String::new()));
    }
    let shown = |source: &&Source| source.device == entry.root_dev;
    let candidates = sources
        .iter()
        .enumerate()
        .filter(|(_, source)| shown(source));
    let best = candidates
        .filter_map(|(number, source)| Some((number, below(&source.root, &entry.root)?.to_owned())))
        .min_by_key(|(_, path)| path.len());
    if let Some(found) = best {
        return Ok(found);
    }
    if type_of(entry).is_none() {
        let kind = entry.fsname.as_deref().unwrap_or("unknown");
        let cause = format!(
            "its file system ({kind}, {}) is outside; name it (--external mnt[{}]:KEY)",
            entry.source, entry.mountpoint
        );
        return Err(Error::because("restore mount", &entry.mountpoint, cause));
    }
    // The first of the same file system that shows all of it tells the options.
    let whole = |other: &MntEntry| other.root_dev == entry.root_dev && other.root == "/";
    let model = entries.iter().position(whole).unwrap_or(at);
    sources.push(Source {
        origin: Origin::New(model),
        device: entry.root_dev,
        root: "/".to_owned(),
    });
    let path = below("/", &entry.root).unwrap_or_default().to_owned();
    Ok((sources.len() - 1, path))
}

/// What becomes of a mount's propagation once all are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// It becomes private.
    Private,
    /// It becomes unbindable.
    Unbindable,
    /// It joins this group.
    Peer(u32),
    /// It gets events of this group.
    Slave(u32),
    /// It gets events of what the caller gave.
    SlaveOfCaller,
}

/// The propagation of each mount.
pub(crate) fn propagation(entries: &[MntEntry]) -> Vec<Propagation> {
    let known: HashSet<u32> = groups(entries).iter().map(|group| group.id).collect();
    let of = |entry: &MntEntry| match (entry.shared_id.unwrap_or(0), entry.master_id.unwrap_or(0)) {
        (0, 0) if entry.flags & libc::MS_UNBINDABLE as u32 != 0 => Propagation::Unbindable,
        (0, 0) => Propagation::Private,
        (0, master) if known.contains(&master) => Propagation::Slave(master),
        (0, _) => Propagation::SlaveOfCaller,
        (group, _) => Propagation::Peer(group),
    };
    entries.iter().map(of).collect()
}

/// A group of mounts that get each other's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) id: u32,
    /// The group whose events it gets too.
    pub(crate) master: Option<u32>,
    /// One of its members.
    pub(crate) member: usize,
}

/// All groups; masters stand before their slaves.
pub(crate) fn groups(entries: &[MntEntry]) -> Vec<Group> {
    let mut waiting: Vec<Group> = Vec::new();
    for (member, entry) in entries.iter().enumerate() {
        let id = entry.shared_id.unwrap_or(0);
        if id != 0 && !waiting.iter().any(|group| group.id == id) {
            let master = entry.master_id.filter(|master| *master != 0);
            waiting.push(Group { id, master, member });
        }
    }
    let ids: HashSet<u32> = waiting.iter().map(|group| group.id).collect();
    for group in &mut waiting {
        group.master = group.master.filter(|master| ids.contains(master));
    }
    let mut ordered: Vec<Group> = Vec::new();
    while !waiting.is_empty() {
        let done: HashSet<u32> = ordered.iter().map(|group| group.id).collect();
        let (ready, rest): (Vec<Group>, Vec<Group>) = waiting
            .into_iter()
            .partition(|group| group.master.is_none_or(|master| done.contains(&master)));
        if ready.is_empty() {
            // A circle of masters, which no kernel makes.
            break;
        }
        ordered.extend(ready);
        waiting = rest;
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: u32, parent: u32, device: u32, root: &str, point: &str, code: u32) -> MntEntry {
        MntEntry {
            mnt_id: id,
            parent_mnt_id: parent,
            root_dev: device,
            root: root.to_owned(),
            mountpoint: point.to_owned(),
            fstype: code,
            ..MntEntry::default()
        }
    }

    fn external(mut entry: MntEntry, key: &str) -> MntEntry {
        entry.ext_key = Some(key.to_owned());
        entry
    }

    /// As a runtime makes them: masks from `/dev/null`, a read-only part of proc, a volume.
    fn container() -> Vec<MntEntry> {
        vec![
            mount(10, 1, 800, "/var/rootfs", "/", 0),
            mount(11, 10, 45, "/", "/proc", 1),
            mount(12, 10, 46, "/", "/dev", 5),
            mount(13, 12, 47, "/", "/dev/pts", 6),
            mount(14, 11, 45, "/sys", "/proc/sys", 1),
            mount(15, 11, 46, "/null", "/proc/kcore", 5),
            external(mount(16, 10, 800, "/srv/data", "/data", 0), "data"),
            mount(17, 10, 800, "/var/rootfs/a", "/b", 0),
        ]
    }

    #[test]
    fn an_overlay_as_root_is_the_callers() {
        let mut entries = container();
        entries[0].fstype = crate::image::namespace::Fstype::Overlayfs as u32;
        let plan = plan(&entries).unwrap();
        let root = plan.steps.iter().find(|step| step.entry == 0).unwrap();
        assert_eq!(plan.sources[root.source].origin, Origin::Root);
    }

    #[test]
    fn each_mount_finds_its_source() {
        let entries = container();
        let plan = plan(&entries).unwrap();
        let of = |point: &str| {
            let step = plan
                .steps
                .iter()
                .find(|step| entries[step.entry].mountpoint == point)
                .unwrap();
            (
                &plan.sources[step.source].origin,
                step.path.as_str(),
                step.target.as_str(),
            )
        };
        assert_eq!(of("/"), (&Origin::Root, "", ""));
        assert_eq!(of("/proc"), (&Origin::New(1), "", "proc"));
        assert_eq!(of("/proc/sys"), (&Origin::New(1), "sys", "sys"));
        assert_eq!(of("/proc/kcore"), (&Origin::New(2), "null", "kcore"));
        assert_eq!(
            of("/data"),
            (&Origin::Caller("data".to_owned()), "", "data")
        );
        assert_eq!(of("/b"), (&Origin::Root, "a", "b"));
        for (at, step) in plan.steps.iter().enumerate() {
            let parent = |parent| plan.steps[..at].iter().any(|other| other.entry == parent);
            assert!(step.parent.is_none_or(parent), "{step:?}");
        }
    }

    #[test]
    fn what_is_outside_has_to_be_named() {
        let mut entries = container();
        entries[6].ext_key = None;
        let error = plan(&entries).unwrap_err().to_string();
        assert!(error.contains("--external mnt[/data]:KEY"), "{error}");
    }

    #[test]
    fn the_deeper_mount_comes_before_the_one_that_hides_it() {
        let entries = [
            mount(10, 1, 800, "/", "/", 0),
            mount(11, 10, 45, "/", "/a", 5),
            mount(12, 10, 46, "/", "/a/b", 5),
        ];
        let order: Vec<usize> = plan(&entries)
            .unwrap()
            .steps
            .iter()
            .map(|s| s.entry)
            .collect();
        assert_eq!(order, [0, 2, 1]);
    }

    #[test]
    fn hanging_mounts_are_refused() {
        let mut entries = container();
        entries[3].parent_mnt_id = 99;
        assert!(plan(&entries).unwrap_err().to_string().contains("no mount"));
        assert!(plan(&[]).is_err());
    }

    #[test]
    fn groups_are_founded_before_they_are_joined() {
        let group = |id, shared, master| MntEntry {
            shared_id: Some(shared),
            master_id: Some(master),
            ..mount(id, 1, 1, "/", "/", 5)
        };
        let entries = [
            group(1, 0, 5),
            group(2, 5, 0),
            group(3, 5, 0),
            group(4, 6, 5),
            group(5, 0, 77),
            group(6, 0, 0),
        ];
        let group = |id, master, member| Group { id, master, member };
        assert_eq!(groups(&entries), [group(5, None, 1), group(6, Some(5), 3)]);
        let expected = [
            Propagation::Slave(5),
            Propagation::Peer(5),
            Propagation::Peer(5),
            Propagation::Peer(6),
            Propagation::SlaveOfCaller,
            Propagation::Private,
        ];
        assert_eq!(propagation(&entries), expected);
    }
}
