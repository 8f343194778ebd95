//! Small numbers for kernel objects that have no name: which tasks share what.

use std::cmp::Ordering;
use std::collections::HashMap;

use rustix::process::Pid;
use sys::kcmp::{self, Kind};

use crate::error::{Context, Result};
use crate::image::core::TaskKobjIdsEntry;
use crate::namespace::{self, Inodes};

/// Objects of one kind, sorted by the kernel's own order.
#[derive(Debug)]
struct Objects {
    kind: Kind,
    sorted: Vec<(Pid, u32)>,
    last: u32,
}

impl Objects {
    /// Number 1 is the engine's own.
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            sorted: Vec::new(),
            last: 1,
        }
    }

    /// The object's number, and whether this is the first task with it.
    fn number(&mut self, task: Pid) -> Result<(u32, bool)> {
        let (mut low, mut high) = (0, self.sorted.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let (other, id) = self.sorted[middle];
            match kcmp::compare(task, other, self.kind).during("compare tasks with", task)? {
                Ordering::Equal => return Ok((id, false)),
                Ordering::Less => high = middle,
                Ordering::Greater => low = middle + 1,
            }
        }
        self.last += 1;
        self.sorted.insert(low, (task, self.last));
        Ok((self.last, true))
    }
}

/// Hands out the numbers of `ids-PID.img`.
#[derive(Debug)]
pub(crate) struct Ids {
    memory: Objects,
    files: Objects,
    file_system: Objects,
    signal_handlers: Objects,
    namespaces: HashMap<u64, u32>,
}

/// A task's numbers, and which of its objects are new.
#[derive(Debug)]
pub(crate) struct TaskIds {
    pub(crate) entry: TaskKobjIdsEntry,
    pub(crate) new_memory: bool,
    pub(crate) new_files: bool,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self {
            memory: Objects::new(Kind::Memory),
            files: Objects::new(Kind::Files),
            file_system: Objects::new(Kind::FileSystem),
            signal_handlers: Objects::new(Kind::SignalHandlers),
            namespaces: HashMap::new(),
        }
    }

    /// The engine's own numbers: what a task must have to be outside of any container.
    pub(crate) fn of_engine(&mut self, host: &Inodes) -> TaskKobjIdsEntry {
        let mut entry = TaskKobjIdsEntry {
            vm_id: 1,
            files_id: 1,
            fs_id: 1,
            sighand_id: 1,
            ..Default::default()
        };
        self.number_namespaces(host, &mut entry);
        entry
    }

    pub(crate) fn of_task(&mut self, task: Pid) -> Result<TaskIds> {
        let (vm_id, new_memory) = self.memory.number(task)?;
        let (files_id, new_files) = self.files.number(task)?;
        let (fs_id, _) = self.file_system.number(task)?;
        let (sighand_id, _) = self.signal_handlers.number(task)?;
        let mut entry = TaskKobjIdsEntry {
            vm_id,
            files_id,
            fs_id,
            sighand_id,
            ..Default::default()
        };
        self.number_namespaces(&Inodes::of(&task.to_string())?, &mut entry);
        Ok(TaskIds {
            entry,
            new_memory,
            new_files,
        })
    }

    fn number_namespaces(&mut self, inodes: &Inodes, entry: &mut TaskKobjIdsEntry) {
        for (inode, kind) in inodes.0.into_iter().zip(namespace::KINDS) {
            let next = self.namespaces.len() as u32 + 1;
            let id = *self.namespaces.entry(inode).or_insert(next);
            namespace::set_id(entry, kind, id);
        }
    }
}
