//! Dump of a process tree: a list of steps (docs/design/dump.md).

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use sys::namespace::Kind as NamespaceKind;

use crate::error::{Context, Error, Result};
use crate::external::External;
use crate::files::pipe::PipeData;
use crate::files::socket::Queues;
use crate::files::{self, FileTable, tcp, tty, unix_socket};
use crate::freeze::{FrozenTree, Process, State};
use crate::freezer::Freezer;
use crate::ids::{Ids, TaskIds};
use crate::image::core::TaskKobjIdsEntry;
use crate::image::file::{FileEntry, FileLockEntry, RemapFilePathEntry};
use crate::image::memory::MemfdInodeEntry;
use crate::image::namespace::MntEntry;
use crate::image::tree::{
    DumpStatsEntry, FsEntry, InventoryEntry, PluginsEntry, PstreeEntry, StatsEntry,
};
use crate::image::tty::TtyInfoEntry;
use crate::image::{Directory, Kind};
use crate::inner::{self, Descriptors, Report};
use crate::namespace::{self, Inodes, MountTable, Outline};
use crate::network_lock::{Held, NetworkLock};
use crate::pages::PageSink;
use crate::procfs::{Lines, Mapping, Stat};
use crate::shared_memory::SharedObject;
use crate::{memory, network_lock, obstacle, seccomp, task};

const IMAGE_VERSION: u32 = 2;

/// What becomes of the tree after a dump that worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Afterwards {
    /// It is ended.
    #[default]
    Kill,
    /// It runs on.
    Run,
    /// It is left stopped by SIGSTOP.
    Stop,
}

/// How to dump.
#[derive(Clone, Debug, Default)]
pub struct DumpOptions {
    /// The root of the tree.
    pub tree: i32,
    /// What becomes of the tree.
    pub afterwards: Afterwards,
    /// The root may belong to a session or group that is not dumped.
    pub shell_job: bool,
    /// Files whose name was removed while others exist get a temporary one.
    pub link_remap: bool,
    /// Dump file locks; without it a held lock is an error.
    pub file_locks: bool,
    /// Dump established TCP connections; without it they are an error.
    pub tcp_established: bool,
    /// Established TCP connections are dumped as closed ones.
    pub tcp_close: bool,
    /// How packets of TCP connections are kept away until they are restored.
    pub network_lock: NetworkLock,
    /// An unlinked file that takes more bytes on disk than this is an error; `None` = no limit.
    pub ghost_limit: Option<u64>,
    /// Sockets whose peer is outside the tree are allowed.
    pub external_unix_sockets: bool,
    /// The group of the tree (v1's freezer, or v2), by which it is stopped and thawed again; one
    /// that was frozen before stays so unless the tree is ended.
    pub freeze_group: Option<PathBuf>,
    /// Connections that nobody has accepted yet are dropped.
    pub skip_in_flight: bool,
    /// What the tree uses that is not part of it.
    pub external: Vec<External>,
    /// The network namespace comes back with nothing in it.
    pub empty_network: bool,
    /// For tests: fail at the step with this number.
    pub fail_at: Option<u32>,
    /// For tests: look for pages as on a kernel without PAGEMAP_SCAN.
    pub pagemap_words: bool,
}

/// What a dump did.
#[derive(Clone, Debug, Default)]
pub struct DumpStatistics {
    /// Pages of private memory.
    pub pages_written: u64,
    /// Pages of shared memory.
    pub shared_pages_written: u64,
    /// How long stopping the tree took.
    pub freezing: Duration,
    /// How long the tree stood still.
    pub frozen: Duration,
    /// How many steps there were.
    pub steps: u32,
}

impl DumpStatistics {
    fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.pages_written,
            self.shared_pages_written,
            self.freezing.as_micros() as u64,
            self.frozen.as_micros() as u64,
            u64::from(self.steps),
        ];
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    fn decode(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            let bytes = bytes.get(at * 8..at * 8 + 8);
            bytes.map_or(0, |bytes| {
                bytes
                    .iter()
                    .rev()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            })
        };
        Self {
            pages_written: number(0),
            shared_pages_written: number(1),
            freezing: Duration::from_micros(number(2)),
            frozen: Duration::from_micros(number(3)),
            steps: number(4) as u32,
        }
    }
}

/// What a device and inode, the open flags and the path identify.
type PathKey = (u64, u64, u32, String);

/// A dump in progress.
#[derive(Debug)]
pub(crate) struct Dump<'a> {
    pub(crate) options: &'a DumpOptions,
    pub(crate) images: &'a Directory,
    pub(crate) files: FileTable,
    pub(crate) paths: HashMap<PathKey, u32>,
    pub(crate) ghosts: HashMap<(u64, u64), u32>,
    pub(crate) remaps: Vec<RemapFilePathEntry>,
    /// With the id of the file description.
    pub(crate) locks: Vec<(u32, FileLockEntry)>,
    pub(crate) temporary_links: Vec<String>,
    pub(crate) pipe_data: PipeData,
    pub(crate) queues: Queues,
    pub(crate) terminals: Vec<TtyInfoEntry>,
    /// By number.
    pub(crate) masters: Vec<(u32, OwnedFd)>,
    /// Of all processes of the tree.
    pub(crate) stats: Vec<Stat>,
    /// By inode; `None` until one is met.
    pub(crate) unix_sockets: Option<HashMap<u32, unix_socket::Info>>,
    /// TCP sockets in repair mode.
    pub(crate) repaired: Vec<OwnedFd>,
    /// TCP connections by file id, not yet read.
    pub(crate) connections: Vec<(u32, OwnedFd)>,
    pub(crate) network_lock: Option<Held>,
    /// Files met in flight, open in the engine so that they can be recognized.
    pub(crate) in_flight: Vec<OwnedFd>,
    /// With device and inode.
    pub(crate) memfds: Vec<((u64, u64), MemfdInodeEntry)>,
    pub(crate) shared_objects: Vec<SharedObject>,
    pub(crate) filters: seccomp::Filters,
    pub(crate) statistics: DumpStatistics,
    /// Until the tree is stopped.
    freezer: Option<Freezer>,
    pub(crate) frozen_at: Option<Instant>,
    /// The caller's namespaces.
    pub(crate) host: Inodes,
    /// Flags of the namespaces that the tree has of its own; the engine is in them.
    pub(crate) own_namespaces: u64,
    /// The mounts of the tree, if it has mounts of its own.
    pub(crate) mounts: Vec<MntEntry>,
    /// Whose they are, in the same order; the first is the root's.
    pub(crate) mount_tables: Vec<MountTable>,
    /// The mount namespace of the root.
    pub(crate) mount_namespace: Option<OwnedFd>,
    /// What the root of the tree shares with whom.
    pub(crate) root_ids: TaskKobjIdsEntry,
    last_pages_id: u32,
}

impl<'a> Dump<'a> {
    pub(crate) fn new(options: &'a DumpOptions, images: &'a Directory, outline: &Outline) -> Self {
        Self {
            options,
            images,
            files: FileTable::default(),
            paths: HashMap::new(),
            ghosts: HashMap::new(),
            remaps: Vec::new(),
            locks: Vec::new(),
            temporary_links: Vec::new(),
            pipe_data: PipeData::default(),
            queues: Queues::default(),
            terminals: Vec::new(),
            masters: Vec::new(),
            stats: Vec::new(),
            unix_sockets: None,
            repaired: Vec::new(),
            connections: Vec::new(),
            network_lock: None,
            in_flight: Vec::new(),
            memfds: Vec::new(),
            shared_objects: Vec::new(),
            filters: seccomp::Filters::default(),
            statistics: DumpStatistics::default(),
            freezer: None,
            frozen_at: None,
            host: outline.host,
            own_namespaces: outline.own,
            mounts: Vec::new(),
            mount_tables: Vec::new(),
            mount_namespace: None,
            root_ids: TaskKobjIdsEntry::default(),
            last_pages_id: 0,
        }
    }

    /// A sink for the pages of one address space.
    pub(crate) fn page_sink(&mut self) -> Result<PageSink> {
        self.last_pages_id += 1;
        PageSink::create(self.images, self.last_pages_id)
    }

    /// Marks a place where a dump can fail, for the test that tries them all.
    fn step(&mut self, name: &str) -> Result<()> {
        self.statistics.steps += 1;
        if self.options.fail_at == Some(self.statistics.steps) {
            return Err(Error::because("dump", name, "a failure was asked for"));
        }
        Ok(())
    }
}

/// Dumps the tree into `images`. On an error the tree runs on as it was.
///
/// # Errors
/// The tree holds something that cannot be dumped, or the images cannot be written.
pub fn dump(images: &Directory, options: &DumpOptions) -> Result<DumpStatistics> {
    let root = Pid::from_raw(options.tree)
        .ok_or_else(|| Error::because("dump", options.tree, "it is no process id"))?;
    obstacle::look(root)?;
    images.begin();
    let outline = Outline::of(root)?;
    let freezer = options.freeze_group.as_deref();
    let freezer = freezer.map(Freezer::open).transpose()?;
    if outline.own != 0 {
        return dump_container(images, options, &outline, freezer);
    }
    let mut dump = Dump::new(options, images, &outline);
    dump.freezer = freezer;
    let tree = dump_tree(root, &mut dump)?;
    finish(tree, options.afterwards);
    write_statistics(&mut dump)?;
    Ok(dump.statistics)
}

/// The work is done by a process inside the tree's namespaces ([`inner`]).
fn dump_container(
    images: &Directory,
    options: &DumpOptions,
    outline: &Outline,
    freezer: Option<Freezer>,
) -> Result<DumpStatistics> {
    let root = Pid::from_raw(outline.inner_pid)
        .ok_or_else(|| Error::because("dump", options.tree, "it has no id inside"))?;
    let own_pids = outline.has(NamespaceKind::Pid);
    if own_pids && outline.inner_pid != 1 {
        let cause = "it is not the first process of its pid namespace; dump that one";
        return Err(Error::because("dump process", options.tree, cause));
    }
    if outline.has(NamespaceKind::User) {
        let cause = "it has a user namespace of its own, which is not supported yet";
        return Err(Error::because("dump process", options.tree, cause));
    }
    let namespace = outline.open_pid_namespace(options.tree)?;
    let killed_by_caller = own_pids && options.afterwards == Afterwards::Kill;
    let inner = inner::start(
        namespace.as_ref(),
        &[],
        Descriptors::Copied,
        |outside| -> Result<Vec<u8>> {
            inner::enter(&outline.pidfd, outline.own & !NamespaceKind::Pid.flag())?;
            let mut dump = Dump::new(options, images, outline);
            dump.freezer = freezer;
            let tree = dump_tree(root, &mut dump)?;
            if killed_by_caller {
                // From inside, the first process cannot be killed; it stays stopped until then.
                write_statistics(&mut dump)?;
                outside.done_for_ever(&dump.statistics.encode())?;
                return Err(Error::because("dump", root, "nobody ended it"));
            }
            finish(tree, options.afterwards);
            write_statistics(&mut dump)?;
            Ok(dump.statistics.encode())
        },
    )?;
    match inner.next() {
        Ok(Report::Done(payload)) => {
            if killed_by_caller {
                let signal = rustix::process::Signal::KILL;
                rustix::process::pidfd_send_signal(&outline.pidfd, signal)
                    .during("end process", options.tree)?;
            }
            inner.reap();
            if killed_by_caller {
                sys::process::wait_exit(&outline.pidfd, None).during("wait for", options.tree)?;
            }
            Ok(DumpStatistics::decode(&payload))
        }
        Ok(Report::Failed(error)) => {
            inner.reap();
            Err(error)
        }
        Ok(Report::Stage(_)) => {
            inner.end();
            Err(Error::because(
                "dump",
                options.tree,
                "the inner engine asks what it must not",
            ))
        }
        Err(error) => {
            inner.end();
            Err(error)
        }
    }
}

/// Stops the tree and writes everything down. On an error it runs on as it was.
fn dump_tree(root: Pid, dump: &mut Dump<'_>) -> Result<FrozenTree> {
    let started = Instant::now();
    let mut tree = FrozenTree::stop(root, dump.freezer.take())?;
    dump.statistics.freezing = started.elapsed();
    dump.frozen_at = Some(Instant::now());
    let result = dump_stopped(&mut tree, dump);
    // Dropped, the lock goes; a restore takes off the one that stays.
    let lock = dump.network_lock.take();
    if result.is_ok() && dump.options.afterwards == Afterwards::Kill {
        if let Some(lock) = lock {
            network_lock::keep(lock);
        }
    } else {
        drop(lock);
        dump.repaired.iter().for_each(tcp::resume);
    }
    if let Err(error) = result {
        for link in &dump.temporary_links {
            let _ = std::fs::remove_file(link);
        }
        tree.thaw();
        return Err(error);
    }
    Ok(tree)
}

fn finish(tree: FrozenTree, afterwards: Afterwards) {
    match afterwards {
        Afterwards::Kill => tree.kill(),
        Afterwards::Run => tree.thaw(),
        Afterwards::Stop => {
            for process in &tree.processes {
                let _ = rustix::process::kill_process(process.pid, rustix::process::Signal::STOP);
            }
            tree.thaw();
        }
    }
}

fn dump_stopped(tree: &mut FrozenTree, dump: &mut Dump<'_>) -> Result<()> {
    dump.step("stopped")?;
    check_root(tree, dump.options)?;
    dump.stats = tree
        .processes
        .iter()
        .map(|process| process.stat.clone())
        .collect();
    let mut ids = Ids::new();
    let engine = ids.of_engine(&dump.host);
    namespace::prepare(dump)?;
    let mut root_ids = None;
    for process in &mut tree.processes {
        let away = process.injector.is_some() && namespace::visit(process.pid, dump)?;
        let task_ids = dump_process(process, &mut ids, dump)?;
        if away {
            namespace::leave(dump)?;
        }
        if let Some(task_ids) = task_ids {
            namespace::number_mounts(process.pid, &task_ids.entry, dump)?;
            let root = root_ids.get_or_insert_with(|| task_ids.entry.clone());
            namespace::check_task(process.pid, root, &task_ids.entry)?;
        }
    }
    dump.root_ids = root_ids.unwrap_or_default();
    dump.step("namespaces")?;
    namespace::dump(dump)?;
    dump.step("images of the tree")?;
    let entries: Vec<PstreeEntry> = tree
        .processes
        .iter()
        .map(|process| tree_entry(process, tree))
        .collect();
    dump.images.write("pstree.img", Kind::Pstree, &entries)?;
    write_files(dump)?;
    write_inventory(engine, dump)?;
    dump.images.save_checksums()?;
    dump.step("all written")
}

fn check_root(tree: &FrozenTree, options: &DumpOptions) -> Result<()> {
    let Some(root) = tree.processes.first() else {
        return Ok(());
    };
    let own = root.pid.as_raw_nonzero().get();
    if root.state == State::Zombie(root.stat.exit_code) {
        return Err(Error::because("dump process", own, "it has ended already"));
    }
    let inside = |id: i32| {
        tree.processes
            .iter()
            .any(|process| process.pid.as_raw_nonzero().get() == id)
    };
    if !options.shell_job && (!inside(root.stat.sid) || !inside(root.stat.pgid)) {
        let cause = "its session or group leader is outside the tree; dump that too, or say it is a shell job (--shell-job)";
        return Err(Error::because("dump process", own, cause));
    }
    Ok(())
}

fn dump_process(
    process: &mut Process,
    ids: &mut Ids,
    dump: &mut Dump<'_>,
) -> Result<Option<TaskIds>> {
    let pid = process.pid;
    dump.step("process")?;
    if let State::Zombie(_) = process.state {
        let (cores, _) = task::dump(process)?;
        dump.images
            .write(&format!("core-{pid}.img"), Kind::Core, &cores)?;
        return Ok(None);
    }
    for thread in &process.threads {
        obstacle::check_thread(pid, thread.tid)?;
    }
    let mappings = memory::mappings(process)?;
    let task_ids = ids.of_task(pid)?;
    if !task_ids.new_memory {
        let cause = "it shares its memory with another process";
        return Err(Error::because("dump process", pid, cause));
    }
    let (cores, facts) = task::dump(process)?;
    dump.step("registers")?;
    for (thread, mut core) in process.threads.iter().zip(cores) {
        dump.filters.dump(thread.tid, &mut core)?;
        core.ids = (thread.tid == pid).then(|| task_ids.entry.clone());
        dump.images
            .write(&format!("core-{}.img", thread.tid), Kind::Core, &[core])?;
    }
    dump.images.write(
        &format!("ids-{pid}.img"),
        Kind::Ids,
        std::slice::from_ref(&task_ids.entry),
    )?;
    if task_ids.new_files {
        dump.step("files")?;
        let table = files::dump_table(pid, dump)?;
        dump.images.write(
            &format!("fdinfo-{}.img", task_ids.entry.files_id),
            Kind::Fdinfo,
            &table,
        )?;
    }
    dump.step("directories")?;
    dump_directories(pid, dump)?;
    dump.step("memory")?;
    dump_memory(process, &mappings, facts, dump)?;
    Ok(Some(task_ids))
}

fn dump_memory(
    process: &Process,
    mappings: &[Mapping],
    facts: task::MemoryFacts,
    dump: &mut Dump<'_>,
) -> Result<()> {
    memory::dump(process, mappings, facts, dump)
}

fn dump_directories(pid: Pid, dump: &mut Dump<'_>) -> Result<()> {
    let cwd_id = files::regular::dump_path(pid, "cwd", 0, dump)?;
    let root_id = files::regular::dump_path(pid, "root", 0, dump)?;
    let umask = Some(Lines::status(pid, pid)?.octal("Umask"));
    let entry = FsEntry {
        cwd_id,
        root_id,
        umask,
    };
    dump.images
        .write(&format!("fs-{pid}.img"), Kind::Fs, &[entry])
}

fn tree_entry(process: &Process, tree: &FrozenTree) -> PstreeEntry {
    let number = |pid: Pid| pid.as_raw_nonzero().get() as u32;
    let root = tree.processes.first().map(|root| root.pid);
    let ppid = if Some(process.pid) == root {
        0
    } else {
        process.stat.ppid as u32
    };
    let mut threads: Vec<u32> = process
        .threads
        .iter()
        .map(|thread| number(thread.tid))
        .collect();
    if threads.is_empty() {
        threads.push(number(process.pid));
    }
    PstreeEntry {
        pid: number(process.pid),
        ppid,
        pgid: process.stat.pgid as u32,
        sid: process.stat.sid as u32,
        threads,
    }
}

fn write_files(dump: &mut Dump<'_>) -> Result<()> {
    tcp::dump_connections(dump)?;
    dump.step("connections")?;
    unix_socket::resolve_peers(dump)?;
    std::mem::take(&mut dump.filters).save(dump.images)?;
    namespace::number_sockets(dump);
    std::mem::take(&mut dump.queues).save(dump.images)?;
    dump.images
        .write::<FileEntry>("files.img", Kind::Files, &dump.files.entries)?;
    std::mem::take(&mut dump.pipe_data).save(dump.images)?;
    tty::dump_data(dump)?;
    if !dump.terminals.is_empty() {
        dump.images
            .write("tty-info.img", Kind::TtyInfo, &dump.terminals)?;
    }
    if !dump.memfds.is_empty() {
        let inodes: Vec<_> = dump.memfds.iter().map(|(_, inode)| inode.clone()).collect();
        dump.images.write("memfd.img", Kind::MemfdInode, &inodes)?;
    }
    if !dump.remaps.is_empty() {
        dump.images
            .write("remap-fpath.img", Kind::RemapFpath, &dump.remaps)?;
    }
    if !dump.locks.is_empty() {
        if !dump.options.file_locks {
            let (_, lock) = &dump.locks[0];
            let object = format!("descriptor {} of process {}", lock.fd, lock.pid);
            let cause = "it holds a file lock; say that locks are to be dumped (--file-locks)";
            return Err(Error::because("dump", object, cause));
        }
        let locks: Vec<FileLockEntry> = dump.locks.iter().map(|(_, lock)| lock.clone()).collect();
        dump.images
            .write("filelocks.img", Kind::FileLocks, &locks)?;
    }
    Ok(())
}

fn write_inventory(engine: TaskKobjIdsEntry, dump: &Dump<'_>) -> Result<()> {
    let inventory = InventoryEntry {
        img_version: IMAGE_VERSION,
        fdinfo_per_id: Some(true),
        root_ids: Some(engine),
        ns_per_id: Some(true),
        root_cg_set: Some(1),
        lsmtype: Some(0),
        network_lock_method: dump
            .network_lock
            .as_ref()
            .map(|lock| lock.method().number()),
        tcp_close: dump.options.tcp_close.then_some(true),
        plugins_entry: Some(PluginsEntry::default()),
        ..InventoryEntry::default()
    };
    dump.images
        .write("inventory.img", Kind::Inventory, &[inventory])
}

fn write_statistics(dump: &mut Dump<'_>) -> Result<()> {
    let statistics = &mut dump.statistics;
    statistics.frozen = dump.frozen_at.map(|at| at.elapsed()).unwrap_or_default();
    let entry = StatsEntry {
        dump: Some(DumpStatsEntry {
            freezing_time: statistics.freezing.as_micros() as u32,
            frozen_time: statistics.frozen.as_micros() as u32,
            pages_written: statistics.pages_written,
            shpages_written: Some(statistics.shared_pages_written),
            ..DumpStatsEntry::default()
        }),
        restore: None,
    };
    dump.images.write("stats-dump", Kind::Stats, &[entry])
}
