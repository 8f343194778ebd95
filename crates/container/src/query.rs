//! Looking at containers: state, list, processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde::Serialize;

use crate::create::START_SOCKET;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::record::{self, Record};
use crate::spec;

/// What `state` and `list` print: the specification's state with runc's additions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    /// 0 when there is no process.
    pub pid: i32,
    pub status: spec::Status,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of the user that made the container, or its uid.
    pub owner: String,
}

impl State {
    /// The part that hooks are given.
    pub(crate) fn into_state(self) -> spec::State {
        spec::State {
            oci_version: self.oci_version,
            id: self.id,
            status: self.status,
            pid: self.pid,
            bundle: self.bundle,
            annotations: self.annotations,
        }
    }
}

/// The state of a container.
///
/// # Errors
/// There is none of this id, or its record cannot be read.
pub fn state(root: &Path, id: &ContainerId) -> Result<State> {
    let Some(record) = record::read(root, id)? else {
        // A `create` that was killed before its first record, or is at it right now.
        return Err(Error::not_found(id.as_str()));
    };
    let status = status_of(root, id, &record);
    let alive = status != spec::Status::Stopped;
    Ok(State {
        oci_version: spec::VERSION.to_owned(),
        id: id.to_string(),
        pid: if alive { record.init_process_pid } else { 0 },
        status,
        annotations: record::read_config(root, id)
            .map(|spec| spec.annotations)
            .unwrap_or_default(),
        bundle: record.bundle,
        rootfs: record.rootfs,
        created: record.created,
        owner: owner_name(record.owner),
    })
}

/// The states of all containers, sorted by id. One that cannot be read is left out.
///
/// # Errors
/// The directory cannot be read.
pub fn list(root: &Path) -> Result<Vec<State>> {
    Ok(record::list(root)?
        .iter()
        .filter_map(|id| state(root, id).ok())
        .collect())
}

/// Where a container is in its life.
pub(crate) fn status(root: &Path, id: &ContainerId) -> Result<spec::Status> {
    let record = record::read(root, id)?.ok_or_else(|| Error::not_found(id.as_str()))?;
    Ok(status_of(root, id, &record))
}

fn status_of(root: &Path, id: &ContainerId, record: &Record) -> spec::Status {
    if record.init_process_pid == 0 {
        return spec::Status::Creating;
    }
    if record.process().is_none_or(|process| is_dead(process.pid)) {
        return spec::Status::Stopped;
    }
    if record
        .group()
        .frozen()
        .is_ok_and(|frozen| frozen != cgroup::group::Frozen::No)
    {
        return spec::Status::Paused;
    }
    if root.join(id.as_str()).join(START_SOCKET).exists() {
        spec::Status::Created
    } else {
        spec::Status::Running
    }
}

fn is_dead(pid: Pid) -> bool {
    sys::process::Status::read(pid).is_ok_and(|status| status.is_dead())
}

/// The pids of all processes in the container's groups, in the caller's numbering.
///
/// # Errors
/// There is no such container, or its groups cannot be read.
pub fn processes(root: &Path, id: &ContainerId) -> Result<Vec<i32>> {
    let record = record::read(root, id)?.ok_or_else(|| Error::not_found(id.as_str()))?;
    let pids = record.group().procs_recursive();
    let pids = pids.map_err(|error| Error::new("read the processes", error))?;
    Ok(pids
        .into_iter()
        .map(|pid| pid.as_raw_nonzero().get())
        .collect())
}

/// The process that the container was configured with, for `exec` to vary.
///
/// # Errors
/// There is no such container, or its record cannot be read.
pub fn process(root: &Path, id: &ContainerId) -> Result<spec::Process> {
    let config = record::read_config(root, id)?;
    config
        .process
        .ok_or_else(|| Error::plain("config.json: process is missing"))
}

/// The login name of a uid on the host.
fn owner_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}
