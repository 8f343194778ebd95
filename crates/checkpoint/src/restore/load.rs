//! Reads and checks the images; what follows trusts the result.

use std::collections::{HashMap, HashSet};

use rustix::process::Signal;

use super::RestoreOptions;
use crate::error::{Error, Result};
use crate::files::inet_socket;
use crate::image::core::{CoreEntry, TaskKobjIdsEntry};
use crate::image::file::{FdinfoEntry, FileEntry, FileLockEntry, RemapFilePathEntry};
use crate::image::memory::{MemfdInodeEntry, MmEntry, VmaEntry};
use crate::image::namespace::MntEntry;
use crate::image::tree::{FsEntry, InventoryEntry, PstreeEntry, SeccompFilter};
use crate::image::tty::TtyInfoEntry;
use crate::image::{Directory, Kind};
use crate::memory::{PAGE, status};
use crate::namespace;
use crate::network_lock::{Ends, NetworkLock};
use crate::seccomp;
use crate::task::{ALIVE, DEAD, STOPPED};

/// More tasks or mappings than this are not believed.
const MAX_TASKS: usize = 1 << 20;

/// One process of the images.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) pid: i32,
    pub(crate) pgid: i32,
    pub(crate) sid: i32,
    pub(crate) children: Vec<usize>,
    /// Thread ids, the leader's first.
    pub(crate) threads: Vec<i32>,
    /// One per thread.
    pub(crate) cores: Vec<CoreEntry>,
    pub(crate) ids: TaskKobjIdsEntry,
    pub(crate) mm: MmEntry,
    pub(crate) fs: FsEntry,
    pub(crate) descriptors: Vec<FdinfoEntry>,
}

impl Task {
    fn core(&self) -> &CoreEntry {
        &self.cores[0]
    }

    pub(crate) fn state(&self) -> u32 {
        self.core().tc.as_ref().map_or(ALIVE, |tc| tc.task_state)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state() == DEAD
    }

    /// The signal that stopped it; SIGSTOP if the image does not tell.
    pub(crate) fn stop_signal(&self) -> Signal {
        let signal = self
            .core()
            .tc
            .as_ref()
            .and_then(|tc| tc.stop_signo)
            .unwrap_or(0);
        match signal as i32 {
            libc::SIGTSTP => Signal::TSTP,
            libc::SIGTTIN => Signal::TTIN,
            libc::SIGTTOU => Signal::TTOU,
            _ => Signal::STOP,
        }
    }

    pub(crate) fn exit_code(&self) -> u32 {
        self.core().tc.as_ref().map_or(0, |tc| tc.exit_code)
    }

    pub(crate) fn is_session_leader(&self) -> bool {
        self.sid == self.pid
    }
}

/// All that a restore needs to know, in memory.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Parents stand before their children.
    pub(crate) tasks: Vec<Task>,
    pub(crate) files: HashMap<u32, FileEntry>,
    /// By the id of the file that is remapped.
    pub(crate) remaps: HashMap<u32, RemapFilePathEntry>,
    pub(crate) locks: Vec<FileLockEntry>,
    pub(crate) memfds: Vec<MemfdInodeEntry>,
    pub(crate) terminals: Vec<TtyInfoEntry>,
    pub(crate) filters: Vec<SeccompFilter>,
    /// How the dump kept packets away, and from what.
    pub(crate) network_lock: NetworkLock,
    pub(crate) locked: Vec<Ends>,
    /// Flags of the namespaces that the tree has of its own.
    pub(crate) namespaces: u64,
    /// The mounts of all its mount namespaces, one after the other.
    pub(crate) mounts: Vec<MntEntry>,
    /// The number of each mount namespace, and how many mounts it has; the root's first.
    pub(crate) mount_tables: Vec<(u32, usize)>,
}

impl Plan {
    /// What the root of the tree shares with whom.
    pub(crate) fn root_ids(&self) -> TaskKobjIdsEntry {
        self.tasks
            .first()
            .map_or_else(TaskKobjIdsEntry::default, |task| task.ids.clone())
    }

    /// All ids that tasks of the tree have or need.
    pub(crate) fn task_ids(&self) -> Vec<i32> {
        let own = |task: &Task| [vec![task.pgid, task.sid], task.threads.clone()].concat();
        self.tasks.iter().flat_map(own).collect()
    }

    pub(crate) fn root(&self) -> i32 {
        self.tasks.first().map_or(0, |task| task.pid)
    }
}

pub(crate) fn load(images: &Directory, options: &RestoreOptions) -> Result<Plan> {
    let inventory: InventoryEntry = images.read_one("inventory.img", Kind::Inventory)?;
    if inventory.img_version > 2 {
        let cause = format!(
            "format {} is newer than what floe knows",
            inventory.img_version
        );
        return Err(Error::because("read image", "inventory.img", cause));
    }
    let tree: Vec<PstreeEntry> = images.read("pstree.img", Kind::Pstree)?;
    let tasks = load_tasks(images, &tree)?;
    let mut files = HashMap::new();
    let mut locked = Vec::new();
    for entry in images.read::<FileEntry>("files.img", Kind::Files)? {
        let mut entry = entry;
        let id = entry.id;
        let socket = entry.isk.as_ref();
        let connected = socket.filter(|socket| inet_socket::is_connected_tcp(socket));
        locked.extend(connected.and_then(Ends::of));
        if let Some(socket) = entry.isk.as_mut().filter(|_| options.tcp_close) {
            inet_socket::close(socket);
        }
        if files.insert(id, entry).is_some() {
            return Err(Error::because(
                "read image",
                "files.img",
                format!("file {id} is there twice"),
            ));
        }
    }
    let remaps = images.read::<RemapFilePathEntry>("remap-fpath.img", Kind::RemapFpath)?;
    let remaps = remaps
        .into_iter()
        .map(|remap| (remap.orig_id, remap))
        .collect();
    let locks = images.read("filelocks.img", Kind::FileLocks)?;
    let memfds = images.read("memfd.img", Kind::MemfdInode)?;
    let terminals = images.read("tty-info.img", Kind::TtyInfo)?;
    let root_ids = tasks.first().map(|task| &task.ids);
    let namespaces = match (&inventory.root_ids, root_ids) {
        (Some(host), Some(root)) => namespace::difference(host, root),
        _ => 0,
    };
    let mut mounts = Vec::new();
    let mut mount_tables: Vec<(u32, usize)> = Vec::new();
    if namespaces & namespace::Kind::Mount.flag() != 0 {
        for task in tasks.iter().filter(|task| !task.is_dead()) {
            let id = namespace::id_of(&task.ids, namespace::Kind::Mount);
            if mount_tables.iter().any(|(known, _)| *known == id) {
                continue;
            }
            let table: Vec<MntEntry> =
                images.read(&format!("mountpoints-{id}.img"), Kind::Mounts)?;
            mount_tables.push((id, table.len()));
            mounts.extend(table);
        }
    }
    Ok(Plan {
        namespaces,
        mounts,
        mount_tables,
        tasks,
        files,
        remaps,
        locks,
        memfds,
        terminals,
        filters: seccomp::load(images)?,
        network_lock: NetworkLock::of_number(inventory.network_lock_method),
        locked,
    })
}

fn load_tasks(images: &Directory, tree: &[PstreeEntry]) -> Result<Vec<Task>> {
    let damaged = |cause: String| Error::because("read image", "pstree.img", cause);
    if tree.is_empty() || tree.len() > MAX_TASKS {
        return Err(damaged(format!("{} processes", tree.len())));
    }
    let mut order: HashMap<u32, usize> = HashMap::new();
    let mut seen = HashSet::new();
    let mut tasks: Vec<Task> = Vec::new();
    for entry in tree {
        for id in entry.threads.iter().copied() {
            if id == 0 || id > i32::MAX as u32 || !seen.insert(id) {
                return Err(damaged(format!("thread {id} is impossible or there twice")));
            }
        }
        let parent = match (entry.ppid, tasks.is_empty()) {
            (_, true) => None,
            (ppid, false) => {
                let parent = order.get(&ppid).copied();
                Some(
                    parent
                        .ok_or_else(|| damaged(format!("process {} has no parent", entry.pid)))?,
                )
            }
        };
        let task = load_task(images, entry)?;
        if let Some(root) = tasks.first().filter(|_| !task.is_dead()) {
            check_namespaces(&root.ids, &task)?;
        }
        if let Some(parent) = parent {
            let own = tasks.len();
            tasks[parent].children.push(own);
        }
        order.insert(entry.pid, tasks.len());
        tasks.push(task);
    }
    Ok(tasks)
}

fn load_task(images: &Directory, entry: &PstreeEntry) -> Result<Task> {
    let pid = entry.pid;
    let mut threads: Vec<i32> = entry.threads.iter().map(|tid| *tid as i32).collect();
    if !threads.contains(&(pid as i32)) {
        threads.insert(0, pid as i32);
    }
    threads.sort_by_key(|tid| *tid != pid as i32);
    let mut task = Task {
        pid: pid as i32,
        pgid: entry.pgid as i32,
        sid: entry.sid as i32,
        children: Vec::new(),
        threads,
        cores: vec![images.read_one(&format!("core-{pid}.img"), Kind::Core)?],
        ids: TaskKobjIdsEntry::default(),
        mm: MmEntry::default(),
        fs: FsEntry::default(),
        descriptors: Vec::new(),
    };
    let known = [ALIVE, DEAD, STOPPED];
    if !known.contains(&task.state()) {
        let cause = format!(
            "process {pid} is in state {}, which floe does not know",
            task.state()
        );
        return Err(Error::because(
            "read image",
            format!("core-{pid}.img"),
            cause,
        ));
    }
    if task.is_dead() {
        task.threads.truncate(1);
        return Ok(task);
    }
    for tid in &task.threads[1..] {
        task.cores
            .push(images.read_one(&format!("core-{tid}.img"), Kind::Core)?);
    }
    task.ids = images.read_one(&format!("ids-{pid}.img"), Kind::Ids)?;
    task.mm = images.read_one(&format!("mm-{pid}.img"), Kind::Mm)?;
    check_mappings(pid, &task.mm.vmas)?;
    task.fs = images.read_one(&format!("fs-{pid}.img"), Kind::Fs)?;
    task.descriptors = images.read(&format!("fdinfo-{}.img", task.ids.files_id), Kind::Fdinfo)?;
    check_descriptors(&task)?;
    Ok(task)
}

fn check_namespaces(root: &TaskKobjIdsEntry, task: &Task) -> Result<()> {
    let other = namespace::difference(root, &task.ids) & !namespace::NESTED;
    if other == 0 {
        return Ok(());
    }
    let cause = format!(
        "it has namespaces ({}) that the root of the tree does not have",
        namespace::names(other)
    );
    Err(Error::because("restore process", task.pid, cause))
}

fn check_mappings(pid: u32, vmas: &[VmaEntry]) -> Result<()> {
    let mut last = 0..0;
    for vma in vmas.iter().filter(|vma| vma.status & status::VSYSCALL == 0) {
        let aligned = vma.start.is_multiple_of(PAGE) && vma.end.is_multiple_of(PAGE);
        let mut sane = vma.start < vma.end && vma.end <= crate::arch::TASK_SIZE;
        if vma.status & status::GUARD != 0 {
            // It lies in the mapping before it.
            sane &= last.start <= vma.start && vma.end <= last.end;
        } else {
            sane &= vma.start >= last.end;
            last = vma.start..vma.end;
        }
        if !aligned || !sane {
            let cause = format!("mapping {:x}-{:x} is impossible", vma.start, vma.end);
            return Err(Error::because("read image", format!("mm-{pid}.img"), cause));
        }
    }
    Ok(())
}

fn check_descriptors(task: &Task) -> Result<()> {
    let mut seen = HashSet::new();
    for descriptor in &task.descriptors {
        if descriptor.fd > 1 << 24 || !seen.insert(descriptor.fd) {
            let name = format!("fdinfo-{}.img", task.ids.files_id);
            let cause = format!("descriptor {} is impossible or there twice", descriptor.fd);
            return Err(Error::because("read image", name, cause));
        }
    }
    Ok(())
}
