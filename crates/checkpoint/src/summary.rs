//! What a directory of images holds, for people: nothing is made, and the pages are not read.

use std::collections::HashMap;
use std::fmt;

use crate::error::Result;
use crate::files::inet_socket;
use crate::image::Directory;
use crate::image::file::{FdTypes, FileEntry};
use crate::image::socket::{InetSkEntry, UnixSkEntry};
use crate::memory::status;
use crate::pages::PageSource;
use crate::restore::{self, Task};

/// What a dump holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Parents before their children.
    pub processes: Vec<ProcessSummary>,
    /// Bytes of memory that processes share.
    pub shared_memory: u64,
    /// Open files but sockets, in the order of their numbers in the images.
    pub files: Vec<FileSummary>,
    /// Sockets, in the same order.
    pub sockets: Vec<FileSummary>,
}

impl Summary {
    /// Bytes of memory, private and shared.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let private: u64 = self.processes.iter().map(|process| process.memory).sum();
        private + self.shared_memory
    }
}

/// A process of a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSummary {
    pub pid: i32,
    /// 0: the root of the tree.
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// The name of its first thread.
    pub name: String,
    pub state: ProcessState,
    /// Ids of all threads, the first one's first.
    pub threads: Vec<i32>,
    /// The effective user of the first thread.
    pub user: u32,
    /// Bytes of its own memory in the images.
    pub memory: u64,
    /// How many mappings it has.
    pub mappings: usize,
    /// How many descriptors are open in it.
    pub descriptors: usize,
}

/// What a process was doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessState {
    #[default]
    Running,
    Stopped,
    /// It had ended, and its parent had not asked yet.
    Dead,
}

/// An open file of a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSummary {
    /// `file`, `pipe`, `tcp`, …
    pub kind: &'static str,
    /// The path, or what else tells it from others.
    pub name: String,
    /// Process and number of each descriptor.
    pub descriptors: Vec<(i32, u32)>,
}

impl fmt::Display for FileSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Reads all images but pages, with the checks of a restore.
///
/// # Errors
/// An image is missing or damaged.
pub fn summarize(images: &Directory) -> Result<Summary> {
    let plan = restore::read(images)?;
    let mut parents = HashMap::new();
    for task in &plan.tasks {
        for child in &task.children {
            parents.insert(plan.tasks[*child].pid, task.pid);
        }
    }
    let mut summary = Summary::default();
    let mut holders: HashMap<u32, Vec<(i32, u32)>> = HashMap::new();
    let mut shared = Vec::new();
    for task in &plan.tasks {
        let parent = parents.get(&task.pid).copied().unwrap_or(0);
        summary.processes.push(process(images, task, parent)?);
        for descriptor in &task.descriptors {
            let holder = (task.pid, descriptor.fd);
            holders.entry(descriptor.id).or_default().push(holder);
        }
        let of_shared = |status: u32| status & status::ANON_SHARED != 0;
        let vmas = task.mm.vmas.iter().filter(|vma| of_shared(vma.status));
        shared.extend(vmas.map(|vma| vma.shmid));
    }
    shared.extend(plan.memfds.iter().map(|inode| u64::from(inode.shmid)));
    shared.sort_unstable();
    shared.dedup();
    for id in shared {
        summary.shared_memory += stored(images, &format!("shmem-{id}"))?;
    }
    let mut entries: Vec<&FileEntry> = plan.files.values().collect();
    entries.sort_by_key(|entry| entry.id);
    for entry in entries {
        // What is only mapped, or only a part of another entry, is no open file.
        let Some(descriptors) = holders.remove(&entry.id) else {
            continue;
        };
        let (kind, name, socket) = file(entry);
        let list = if socket {
            &mut summary.sockets
        } else {
            &mut summary.files
        };
        list.push(FileSummary {
            kind,
            name,
            descriptors,
        });
    }
    Ok(summary)
}

/// Bytes of pages in the images under this name.
fn stored(images: &Directory, name: &str) -> Result<u64> {
    let source = PageSource::open(images, name)?;
    Ok(source.map_or(0, |source| source.runs.iter().map(|run| run.length).sum()))
}

fn process(images: &Directory, task: &Task, parent: i32) -> Result<ProcessSummary> {
    let core = &task.cores[0];
    let creds = core
        .thread_core
        .as_ref()
        .and_then(|thread| thread.creds.as_ref());
    let dead = task.is_dead();
    Ok(ProcessSummary {
        pid: task.pid,
        parent,
        group: task.pgid,
        session: task.sid,
        name: core
            .tc
            .as_ref()
            .map(|tc| tc.comm.clone())
            .unwrap_or_default(),
        state: match task.state() {
            crate::task::DEAD => ProcessState::Dead,
            crate::task::STOPPED => ProcessState::Stopped,
            _ => ProcessState::Running,
        },
        threads: task.threads.clone(),
        user: creds.map_or(0, |creds| creds.euid),
        memory: if dead {
            0
        } else {
            stored(images, &task.pid.to_string())?
        },
        mappings: task.mm.vmas.len(),
        descriptors: task.descriptors.len(),
    })
}

/// Kind, name, and whether it is a socket.
fn file(entry: &FileEntry) -> (&'static str, String, bool) {
    if let Some(socket) = &entry.isk {
        let (kind, name) = inet(socket);
        return (kind, name, true);
    }
    if let Some(socket) = &entry.usk {
        return ("unix", unix(socket), true);
    }
    if let Some(reg) = &entry.reg {
        return ("file", reg.name.clone(), false);
    }
    let plain = |kind| (kind, String::new(), false);
    match FdTypes::try_from(entry.r#type).unwrap_or(FdTypes::Und) {
        FdTypes::Pipe => {
            let id = entry.pipe.as_ref().map_or(0, |pipe| pipe.pipe_id);
            ("pipe", id.to_string(), false)
        }
        FdTypes::Fifo => plain("fifo"),
        FdTypes::Eventfd => plain("eventfd"),
        FdTypes::Eventpoll => plain("epoll"),
        FdTypes::Inotify => plain("inotify"),
        FdTypes::Fanotify => plain("fanotify"),
        FdTypes::Signalfd => plain("signalfd"),
        FdTypes::Timerfd => plain("timerfd"),
        FdTypes::Tty => plain("terminal"),
        FdTypes::Ns => plain("namespace"),
        FdTypes::Memfd => plain("memfd"),
        FdTypes::Pidfd => plain("pidfd"),
        FdTypes::Netlinksk => ("netlink", String::new(), true),
        FdTypes::Packetsk => ("packet", String::new(), true),
        _ => plain("other"),
    }
}

fn inet(socket: &InetSkEntry) -> (&'static str, String) {
    let kind = match (socket.proto as i32, socket.r#type as i32) {
        (libc::IPPROTO_TCP, _) => "tcp",
        (libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE, _) => "udp",
        (_, libc::SOCK_RAW) => "raw",
        _ => "inet",
    };
    let end = |words: &[u32], port: u32| {
        let address = inet_socket::ip_address(words).map_or("*".to_owned(), |ip| match ip {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        });
        format!("{address}:{port}")
    };
    let local = end(&socket.src_addr, socket.src_port);
    if inet_socket::is_listening(socket) {
        return (kind, format!("{local} listening"));
    }
    if socket.dst_port == 0 {
        return (kind, local);
    }
    (
        kind,
        format!("{local} to {}", end(&socket.dst_addr, socket.dst_port)),
    )
}

fn unix(socket: &UnixSkEntry) -> String {
    let text = String::from_utf8_lossy(&socket.name);
    let name = text.trim_end_matches('\0').replace('\0', "@");
    if name.is_empty() {
        return format!("#{}", socket.ino);
    }
    name
}
