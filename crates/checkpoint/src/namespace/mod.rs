//! The namespaces that a tree has of its own: which, and what is in them.

pub(crate) mod ipc;
pub(crate) mod network;
pub(crate) mod time;
pub(crate) mod uts;

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
pub(crate) use sys::namespace::Kind;

use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::core::TaskKobjIdsEntry;
use crate::{inner, mount, procfs};

/// In the order in which the images number them.
pub(crate) const KINDS: [Kind; 8] = [
    Kind::Pid,
    Kind::Network,
    Kind::Ipc,
    Kind::Uts,
    Kind::Time,
    Kind::Mount,
    Kind::User,
    Kind::Cgroup,
];

/// A task's namespaces, by inode, in the order of [`KINDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inodes(pub(crate) [u64; 8]);

impl Inodes {
    /// `task`: a pid or `self`.
    pub(crate) fn of(task: &str) -> Result<Self> {
        let mut inodes = [0; 8];
        for (place, kind) in inodes.iter_mut().zip(KINDS) {
            let path = format!("{}/{task}/ns/{}", procfs::root(), kind.file());
            *place = std::fs::metadata(&path).during("stat", &path)?.ino();
        }
        Ok(Self(inodes))
    }

    /// The flags of the kinds in which the two differ.
    pub(crate) fn difference(&self, other: &Self) -> u64 {
        let pairs = self.0.iter().zip(&other.0).zip(KINDS);
        pairs
            .filter(|((own, other), _)| own != other)
            .fold(0, |flags, (_, kind)| flags | kind.flag())
    }
}

/// The number of a namespace in the images.
pub(crate) fn id_of(entry: &TaskKobjIdsEntry, kind: Kind) -> u32 {
    let id = match kind {
        Kind::Pid => entry.pid_ns_id,
        Kind::Network => entry.net_ns_id,
        Kind::Ipc => entry.ipc_ns_id,
        Kind::Uts => entry.uts_ns_id,
        Kind::Time => entry.time_ns_id,
        Kind::Mount => entry.mnt_ns_id,
        Kind::User => entry.user_ns_id,
        Kind::Cgroup => entry.cgroup_ns_id,
    };
    id.unwrap_or(0)
}

/// Sets the number of a namespace.
pub(crate) fn set_id(entry: &mut TaskKobjIdsEntry, kind: Kind, id: u32) {
    let place = match kind {
        Kind::Pid => &mut entry.pid_ns_id,
        Kind::Network => &mut entry.net_ns_id,
        Kind::Ipc => &mut entry.ipc_ns_id,
        Kind::Uts => &mut entry.uts_ns_id,
        Kind::Time => &mut entry.time_ns_id,
        Kind::Mount => &mut entry.mnt_ns_id,
        Kind::User => &mut entry.user_ns_id,
        Kind::Cgroup => &mut entry.cgroup_ns_id,
    };
    *place = Some(id);
}

/// The flags of the kinds in which two tasks of the images differ. Kinds that one does not name are
/// those of its parent.
pub(crate) fn difference(one: &TaskKobjIdsEntry, other: &TaskKobjIdsEntry) -> u64 {
    let differs = |kind: &Kind| {
        let (one, other) = (id_of(one, *kind), id_of(other, *kind));
        one != other && one != 0 && other != 0
    };
    KINDS
        .into_iter()
        .filter(differs)
        .fold(0, |flags, kind| flags | kind.flag())
}

/// The names of the kinds in `flags`.
pub(crate) fn names(flags: u64) -> String {
    let named = KINDS.into_iter().filter(|kind| flags & kind.flag() != 0);
    named.map(Kind::file).collect::<Vec<_>>().join(", ")
}

/// A tree as the host sees it, before anybody enters it.
#[derive(Debug)]
pub(crate) struct Outline {
    /// The caller's.
    pub(crate) host: Inodes,
    /// Flags of what the tree's root has of its own.
    pub(crate) own: u64,
    pub(crate) pidfd: OwnedFd,
    /// The root's id in its own pid namespace.
    pub(crate) inner_pid: i32,
}

impl Outline {
    pub(crate) fn of(root: Pid) -> Result<Self> {
        let pidfd =
            rustix::process::pidfd_open(root, PidfdFlags::empty()).during("open process", root)?;
        let host = Inodes::of("self")?;
        let own = host.difference(&Inodes::of(&root.to_string())?);
        let status = procfs::Lines::status(root, root)?;
        let inner_pid = status.numbers("NSpid").last().map_or(0, |pid| *pid as i32);
        Ok(Self {
            host,
            own,
            pidfd,
            inner_pid,
        })
    }

    /// Where the inner engine is born; `None`: where the caller is.
    pub(crate) fn open_pid_namespace(&self, root: i32) -> Result<Option<OwnedFd>> {
        if !self.has(Kind::Pid) {
            return Ok(None);
        }
        let path = format!("{}/{root}/ns/pid", procfs::root());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty())
            .during("open", path)
            .map(Some)
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.own & kind.flag() != 0
    }
}

/// The kinds that a task may have another of than the root of the tree.
pub(crate) const NESTED: u64 = Kind::Mount as u64;

/// Checks that a task lives where the tree's root does.
pub(crate) fn check_task(pid: Pid, root: &TaskKobjIdsEntry, task: &TaskKobjIdsEntry) -> Result<()> {
    let other = difference(root, task) & !NESTED;
    if other == 0 {
        return Ok(());
    }
    let cause = format!(
        "it has namespaces ({}) that the root of the tree does not have",
        names(other)
    );
    Err(Error::because("dump process", pid, cause))
}

/// The mount that an open file lies on, where mounts are dumped. `info`: its fdinfo.
pub(crate) fn mount_id(info: &str, dump: &Dump<'_>) -> Option<i32> {
    let id = procfs::Lines::parse(info).number("mnt_id") as u32;
    let known = dump.mounts.iter().any(|mount| mount.mnt_id == id);
    known.then_some(id as i32)
}

/// [`mount_id`] of a file that the engine has open.
pub(crate) fn mount_id_of(file: &OwnedFd, dump: &Dump<'_>) -> Result<Option<i32>> {
    if dump.own_namespaces & Kind::Mount.flag() == 0 {
        return Ok(None);
    }
    mount::dump::id_of(file).map(|id| Some(id as i32))
}

/// Sockets name their network namespace by its number.
pub(crate) fn number_sockets(dump: &mut Dump<'_>) {
    let id = Some(id_of(&dump.root_ids, Kind::Network));
    for entry in &mut dump.files.entries {
        let unix = entry.usk.as_mut().map(|socket| &mut socket.ns_id);
        let inet = entry.isk.as_mut().map(|socket| &mut socket.ns_id);
        let netlink = entry.nlsk.as_mut().map(|socket| &mut socket.ns_id);
        let packet = entry.psk.as_mut().map(|socket| &mut socket.ns_id);
        for place in [unix, inet, netlink, packet].into_iter().flatten() {
            *place = id;
        }
    }
}

/// Reads what the files of the tree are compared with.
pub(crate) fn prepare(dump: &mut Dump<'_>) -> Result<()> {
    if dump.own_namespaces & Kind::Mount.flag() != 0 {
        dump.mounts = mount::dump::table(&dump.options.external)?;
        dump.mount_namespace = Some(inner::mount_namespace("self")?);
        dump.mount_tables.push(MountTable {
            inode: Inodes::of("self")?.0[MOUNT],
            id: 0,
            holder: None,
            mounts: dump.mounts.len(),
        });
    }
    Ok(())
}

/// The position of mount namespaces in [`KINDS`].
const MOUNT: usize = 5;

/// One mount namespace of the tree. Its mounts stand in [`Dump::mounts`], one table after the other.
#[derive(Debug)]
pub(crate) struct MountTable {
    inode: u64,
    /// Its number in the images.
    pub(crate) id: u32,
    /// A process that is in it; `None`: the root of the tree.
    holder: Option<Pid>,
    /// How many mounts it has.
    pub(crate) mounts: usize,
}

impl MountTable {
    /// Goes there; [`leave`] comes back.
    pub(crate) fn visit(&self) -> Result<()> {
        match self.holder {
            Some(pid) => inner::visit_mounts(&inner::mount_namespace(&pid.to_string())?),
            None => Ok(()),
        }
    }
}

/// Goes where the process's paths lead somewhere; [`leave`] comes back.
pub(crate) fn visit(pid: Pid, dump: &mut Dump<'_>) -> Result<bool> {
    if dump.mount_tables.is_empty() {
        return Ok(false);
    }
    let inode = Inodes::of(&pid.to_string())?.0[MOUNT];
    if inode == dump.mount_tables[0].inode {
        return Ok(false);
    }
    inner::visit_mounts(&inner::mount_namespace(&pid.to_string())?)?;
    if !dump.mount_tables.iter().any(|table| table.inode == inode) {
        let mounts = mount::dump::table(&dump.options.external)?;
        dump.mount_tables.push(MountTable {
            inode,
            id: 0,
            holder: Some(pid),
            mounts: mounts.len(),
        });
        dump.mounts.extend(mounts);
    }
    Ok(true)
}

/// Comes back from [`visit`].
pub(crate) fn leave(dump: &Dump<'_>) -> Result<()> {
    match &dump.mount_namespace {
        Some(namespace) => inner::visit_mounts(namespace),
        None => Ok(()),
    }
}

/// Notes the numbers that the images give to the mount namespace of a task.
pub(crate) fn number_mounts(pid: Pid, task: &TaskKobjIdsEntry, dump: &mut Dump<'_>) -> Result<()> {
    if dump.mount_tables.is_empty() {
        return Ok(());
    }
    let inode = Inodes::of(&pid.to_string())?.0[MOUNT];
    for table in dump
        .mount_tables
        .iter_mut()
        .filter(|table| table.inode == inode)
    {
        table.id = id_of(task, Kind::Mount);
    }
    Ok(())
}

/// Writes what is in the namespaces of the root, which the engine is in as well.
pub(crate) fn dump(dump: &mut Dump<'_>) -> Result<()> {
    let own = dump.own_namespaces;
    let root = &dump.root_ids.clone();
    let has = |kind: Kind| own & kind.flag() != 0;
    if has(Kind::Uts) {
        uts::dump(dump.images, id_of(root, Kind::Uts))?;
    }
    if has(Kind::Ipc) {
        ipc::dump(dump.images, id_of(root, Kind::Ipc))?;
        crate::ipc::dump(id_of(root, Kind::Ipc), dump)?;
    }
    if has(Kind::Network) && !dump.options.empty_network {
        network::dump(dump.images, id_of(root, Kind::Network))?;
    }
    let time = if has(Kind::Time) {
        id_of(root, Kind::Time)
    } else {
        0
    };
    time::dump(dump.images, time)?;
    if has(Kind::Mount) {
        mount::dump::dump(dump)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_flags() {
        let one = Inodes([1, 2, 3, 4, 5, 6, 7, 8]);
        let mut other = one;
        other.0[1] = 9;
        other.0[5] = 9;
        assert_eq!(
            one.difference(&other),
            Kind::Network.flag() | Kind::Mount.flag()
        );
        assert_eq!(names(one.difference(&other)), "net, mnt");
        let mut entry = TaskKobjIdsEntry::default();
        set_id(&mut entry, Kind::Uts, 4);
        let mut second = TaskKobjIdsEntry::default();
        assert_eq!(difference(&entry, &second), 0);
        set_id(&mut second, Kind::Uts, 5);
        assert_eq!(difference(&entry, &second), Kind::Uts.flag());
    }
}
