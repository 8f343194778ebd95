//! The limits of an IPC namespace. What is in it: see the files of each object.

use crate::error::{Context, Error, Result};
use crate::image::ipc::IpcVarEntry;
use crate::image::{Directory, Kind};
use crate::procfs;

fn name(id: u32) -> String {
    format!("ipcns-var-{id}.img")
}

fn path(key: &str) -> String {
    format!("{}/sys/{key}", procfs::root())
}

fn numbers(key: &str) -> Result<Vec<u64>> {
    let path = path(key);
    let text = std::fs::read_to_string(&path).during("read", &path)?;
    let number = |word: &str| word.parse().ok();
    Ok(text.split_whitespace().filter_map(number).collect())
}

fn number(key: &str) -> Result<u64> {
    Ok(numbers(key)?.first().copied().unwrap_or(0))
}

/// A limit that a kernel may lack.
fn optional(key: &str) -> Result<u32> {
    match number(key) {
        Err(error) if error.errno() == Some(sys::Errno::NOENT) => Ok(0),
        other => other.map(|value| value as u32),
    }
}

/// The limits of the caller's namespace.
pub(crate) fn dump(images: &Directory, id: u32) -> Result<()> {
    let entry = IpcVarEntry {
        sem_ctls: numbers("kernel/sem")?.iter().map(|n| *n as u32).collect(),
        msg_ctlmax: number("kernel/msgmax")? as u32,
        msg_ctlmnb: number("kernel/msgmnb")? as u32,
        msg_ctlmni: number("kernel/msgmni")? as u32,
        auto_msgmni: optional("kernel/auto_msgmni")?,
        shm_ctlmax: number("kernel/shmmax")?,
        shm_ctlall: number("kernel/shmall")?,
        shm_ctlmni: number("kernel/shmmni")? as u32,
        shm_rmid_forced: number("kernel/shm_rmid_forced")? as u32,
        mq_queues_max: optional("fs/mqueue/queues_max")?,
        mq_msg_max: optional("fs/mqueue/msg_max")?,
        mq_msgsize_max: optional("fs/mqueue/msgsize_max")?,
        mq_msg_default: Some(optional("fs/mqueue/msg_default")?),
        mq_msgsize_default: Some(optional("fs/mqueue/msgsize_default")?),
        ..IpcVarEntry::default()
    };
    images.write(&name(id), Kind::IpcnsVar, &[entry])
}

/// Sets the limits of the caller's namespace.
pub(crate) fn restore(images: &Directory, id: u32) -> Result<()> {
    let entry: IpcVarEntry = images.read_one(&name(id), Kind::IpcnsVar)?;
    if entry.sem_ctls.len() != 4 {
        return Err(Error::because(
            "read image",
            name(id),
            "it needs four semaphore limits",
        ));
    }
    let semaphores: Vec<String> = entry.sem_ctls.iter().map(u32::to_string).collect();
    let small = [
        ("kernel/msgmax", Some(entry.msg_ctlmax)),
        ("kernel/msgmnb", Some(entry.msg_ctlmnb)),
        ("kernel/msgmni", Some(entry.msg_ctlmni)),
        ("kernel/shmmni", Some(entry.shm_ctlmni)),
        ("kernel/shm_rmid_forced", Some(entry.shm_rmid_forced)),
        ("fs/mqueue/queues_max", Some(entry.mq_queues_max)),
        ("fs/mqueue/msg_max", Some(entry.mq_msg_max)),
        ("fs/mqueue/msgsize_max", Some(entry.mq_msgsize_max)),
        ("fs/mqueue/msg_default", entry.mq_msg_default),
        ("fs/mqueue/msgsize_default", entry.mq_msgsize_default),
    ];
    set("kernel/sem", &semaphores.join("\t"))?;
    set("kernel/shmmax", &entry.shm_ctlmax.to_string())?;
    set("kernel/shmall", &entry.shm_ctlall.to_string())?;
    for (key, value) in small {
        if let Some(value) = value.filter(|value| *value != 0 || key.ends_with("forced")) {
            set(key, &value.to_string())?;
        }
    }
    Ok(())
}

/// Only what differs is written: some limits want more rights than reading them.
fn set(key: &str, value: &str) -> Result<()> {
    let path = path(key);
    let now = std::fs::read_to_string(&path).unwrap_or_default();
    if now.trim_end() == value {
        return Ok(());
    }
    std::fs::write(&path, value).during("write", path)
}
