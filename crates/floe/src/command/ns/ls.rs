//! `floe ns ls`

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use sys::namespace::Kind;

use super::kept;
use crate::output::{self, Format};
use crate::store::Store;
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Only of these kinds: user, ipc, uts, net, pid, cgroup, time, mnt
    #[arg(short, long, value_name = "KIND", value_delimiter = ',')]
    r#type: Vec<String>,
    /// Only those of a process
    #[arg(short, long, value_name = "PID")]
    pid: Option<i32>,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only those of a container
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
}

/// One namespace.
#[derive(Debug)]
struct Namespace {
    kind: Kind,
    inode: u64,
    /// The user namespace that owns it, and its parent where it has one; unknown outside ours.
    owner: Option<u64>,
    parent: Option<u64>,
    owner_uid: Option<u32>,
    /// Processes in the host's numbering and in that of their own pid namespaces.
    processes: Vec<Process>,
    containers: Vec<String>,
    kept: Vec<String>,
}

#[derive(Debug, Clone)]
struct Process {
    pid: i32,
    /// From ours inwards; the last is its own.
    numbers: Vec<i32>,
    name: String,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let kinds = if flags.r#type.is_empty() {
        Kind::ALL.to_vec()
    } else {
        super::kinds(&flags.r#type)?
    };
    let pid = match &flags.container {
        Some(name) => Some(store.find(name)?.running_pid(&store)?),
        None => flags.pid,
    };
    let mut namespaces: Vec<Namespace> = collect(&store)?.into_values().collect();
    namespaces.retain(|namespace| {
        kinds.contains(&namespace.kind)
            && pid.is_none_or(|pid| namespace.processes.iter().any(|process| process.pid == pid))
    });
    namespaces.sort_by_key(|namespace| (namespace.kind.file(), namespace.inode));
    match flags.format {
        Format::Json => output::json(&namespaces.iter().map(Namespace::json).collect::<Vec<_>>())?,
        Format::Table => {
            let head = [
                "NAMESPACE",
                "TYPE",
                "PROCESSES",
                "PID",
                "PID INSIDE",
                "OWNER",
                "PARENT",
                "CONTAINERS",
                "KEPT AS",
                "PROGRAM",
            ];
            let rows: Vec<_> = namespaces.iter().map(Namespace::row).collect();
            output::print(&text::table(&head, &rows))?;
        }
    }
    Ok(0)
}

fn collect(store: &Store) -> Result<BTreeMap<(Kind, u64), Namespace>> {
    let mut namespaces = BTreeMap::new();
    let containers = running(store)?;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Some(process) = process(pid) else {
            continue;
        };
        for kind in Kind::ALL {
            // It may have ended, or be somebody else's.
            let Ok(file) = File::open(format!("/proc/{pid}/ns/{}", kind.file())) else {
                continue;
            };
            let Some(namespace) = add(&mut namespaces, kind, &file) else {
                continue;
            };
            namespace.processes.push(process.clone());
            if let Some(name) = containers.get(&pid) {
                namespace.containers.push(name.clone());
            }
        }
    }
    for (name, path) in kept::all(store) {
        let Ok(file) = File::open(&path) else {
            continue;
        };
        let flag = sys::nsfs::kind(&file).ok();
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| Some(kind.flag()) == flag.map(u64::from));
        if let Some(namespace) = kind.and_then(|kind| add(&mut namespaces, kind, &file)) {
            namespace.kept.push(name);
        }
    }
    for namespace in namespaces.values_mut() {
        namespace.processes.sort_by_key(|process| process.pid);
    }
    Ok(namespaces)
}

/// The first processes of running containers.
fn running(store: &Store) -> Result<BTreeMap<i32, String>> {
    let mut running = BTreeMap::new();
    for container in store.all()? {
        if let Ok(pid) = container.running_pid(store) {
            running.insert(pid, container.record.name);
        }
    }
    Ok(running)
}

fn add<'a>(
    namespaces: &'a mut BTreeMap<(Kind, u64), Namespace>,
    kind: Kind,
    file: &File,
) -> Option<&'a mut Namespace> {
    let inode = file.metadata().ok()?.ino();
    Some(namespaces.entry((kind, inode)).or_insert_with(|| {
        let inode_of = |fd: std::os::fd::OwnedFd| File::from(fd).metadata().ok().map(|m| m.ino());
        Namespace {
            kind,
            inode,
            owner: sys::nsfs::owner(file).ok().and_then(inode_of),
            parent: sys::nsfs::parent(file).ok().and_then(inode_of),
            owner_uid: sys::nsfs::owner_uid(file).ok(),
            processes: Vec::new(),
            containers: Vec::new(),
            kept: Vec::new(),
        }
    }))
}

fn process(pid: i32) -> Option<Process> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let numbers = field("NSpid:")?
        .split_ascii_whitespace()
        .filter_map(|n| n.parse().ok());
    Some(Process {
        pid,
        numbers: numbers.collect(),
        name: field("Name:")?.trim().to_owned(),
    })
}

impl Namespace {
    fn json(&self) -> Value {
        let processes: Vec<Value> = self
            .processes
            .iter()
            .map(|p| json!({ "pid": p.pid, "numbers": p.numbers, "name": p.name }))
            .collect();
        json!({
            "type": self.kind.file(),
            "inode": self.inode,
            "ownerUserNamespace": self.owner,
            "ownerUid": self.owner_uid,
            "parent": self.parent,
            "processes": processes,
            "containers": self.containers,
            "keptAs": self.kept,
        })
    }

    fn row(&self) -> Vec<String> {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
        let first = self.processes.first();
        let inside = first.and_then(|process| process.numbers.last());
        vec![
            self.inode.to_string(),
            self.kind.file().to_owned(),
            self.processes.len().to_string(),
            first.map_or("-".to_owned(), |process| process.pid.to_string()),
            inside.map_or("-".to_owned(), ToString::to_string),
            number(self.owner),
            number(self.parent),
            self.containers.join(","),
            self.kept.join(","),
            first
                .map(|process| process.name.clone())
                .unwrap_or_default(),
        ]
    }
}
