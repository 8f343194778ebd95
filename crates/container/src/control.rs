//! Acting on a container that exists: signals, pausing, limits, deletion.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::plan::resources;
use crate::record::{self, Directory, Record};
use crate::{groups, hooks, query, spec};

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The container's first process.
    Init,
    /// Every process in its groups.
    All,
}

/// Sends a signal. SIGKILL reaches every process of a container that shares its pid namespace: it
/// is how engines end a container.
///
/// # Errors
/// There is no such container ([`crate::Kind::NotFound`]) or its process is gone
/// ([`crate::Kind::NotRunning`]); with [`Target::All`] a process that is gone is none.
pub fn kill(root: &Path, id: &ContainerId, signal: Signal, target: Target) -> Result<()> {
    let record = record::read(root, id)?.ok_or_else(|| Error::not_found(id.as_str()))?;
    if target == Target::All {
        return kill_group(&record, signal);
    }
    if query::status(root, id)? == spec::Status::Stopped {
        return Err(Error::not_running());
    }
    let process = record.process().ok_or_else(Error::not_running)?;
    if signal == Signal::KILL && !record.own_pids {
        // Without a pid namespace of its own the container's other processes would live on.
        return kill_group(&record, signal);
    }
    let group = record.group();
    match process.signal(signal) {
        Ok(()) => {}
        Err(sys::Errno::SRCH) => return Err(Error::not_running()),
        Err(errno) => {
            let cause = sys::errno::describe(errno);
            return Err(Error::new(format!("signal process {}", process.pid), cause));
        }
    }
    // A frozen process dies only once it is thawed (v1).
    if signal == Signal::KILL
        && group
            .frozen()
            .is_ok_and(|now| now != cgroup::group::Frozen::No)
    {
        group.thaw().map_err(|error| Error::new("thaw", error))?;
    }
    Ok(())
}

fn kill_group(record: &Record, signal: Signal) -> Result<()> {
    let group = record.group();
    group
        .kill(signal)
        .map_err(|error| Error::new("kill the processes of the groups", error))
}

/// Freezes every process of the container.
///
/// # Errors
/// It is neither created nor running, or the groups have no freezer.
pub fn pause(root: &Path, id: &ContainerId) -> Result<()> {
    let _directory = Directory::open(root, id)?;
    match query::status(root, id)? {
        spec::Status::Created | spec::Status::Running => {}
        other => return Err(wrong_status("pause", other)),
    }
    with_group(root, id, cgroup::Group::freeze)
}

/// Lets a paused container go on.
///
/// # Errors
/// It is not paused.
pub fn resume(root: &Path, id: &ContainerId) -> Result<()> {
    let _directory = Directory::open(root, id)?;
    match query::status(root, id)? {
        spec::Status::Paused => {}
        other => return Err(wrong_status("resume", other)),
    }
    with_group(root, id, cgroup::Group::thaw)
}

fn wrong_status(verb: &str, status: spec::Status) -> Error {
    let status = format!("{status:?}").to_lowercase();
    match status.as_str() {
        "stopped" => Error::not_running(),
        _ => Error::plain(format!("cannot {verb} a container that is {status}")),
    }
}

fn with_group(
    root: &Path,
    id: &ContainerId,
    act: impl FnOnce(&cgroup::Group) -> cgroup::Result<()>,
) -> Result<()> {
    let record = record::read(root, id)?.ok_or_else(|| Error::not_found(id.as_str()))?;
    act(&record.group()).map_err(|error| Error::new("groups", error))
}

/// Changes the limits of a container; what `wanted` does not mention keeps its value.
///
/// # Errors
/// The container is stopped, or a value is refused.
pub fn update(root: &Path, id: &ContainerId, wanted: &spec::Resources) -> Result<()> {
    spec::validate_resources(wanted).map_err(|error| Error::plain(error.to_string()))?;
    let _directory = Directory::open(root, id)?;
    if query::status(root, id)? == spec::Status::Stopped {
        return Err(Error::not_running());
    }
    let record = record::read(root, id)?.ok_or_else(|| Error::not_found(id.as_str()))?;
    let mut wanted = resources::translate(wanted)?;
    // Engines repeat the device rules of `create` in part; they are not theirs to change.
    wanted.devices.clear();
    groups::update(&record, &wanted)
}

/// Whether a container that still runs is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// A running one is refused.
    No,
    /// It is killed, and one that does not exist is none.
    Yes,
}

/// How long a killed process may take to be gone.
const GRACE: Duration = Duration::from_secs(10);

/// Deletes a container: its processes, groups and state. Failures of `poststop` hooks are returned.
///
/// # Errors
/// It runs and `force` is not given; something cannot be removed, in which case all else is, and
/// another `delete` goes on.
pub fn delete(root: &Path, id: &ContainerId, force: Force) -> Result<Vec<Error>> {
    let directory = match force {
        Force::No => Directory::open(root, id),
        Force::Yes => Directory::seize(root, id),
    };
    let directory = match directory {
        Err(error) if force == Force::Yes && error.kind() == crate::Kind::NotFound => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let Some(record) = record::read(root, id)? else {
        return directory.remove().map(|()| Vec::new());
    };
    let status = query::status(root, id)?;
    let stopped = matches!(status, spec::Status::Stopped | spec::Status::Created);
    if !stopped && force == Force::No && status != spec::Status::Creating {
        let status = format!("{status:?}").to_lowercase();
        return Err(Error::plain(format!(
            "cannot delete container `{id}` that is not stopped: {status}"
        )));
    }
    let hooks = if record.late_hooks {
        late_hooks(root, id)
    } else {
        None
    };
    end_processes(&record)?;
    groups::remove(&record)?;
    directory.remove()?;
    Ok(hooks.map_or_else(Vec::new, |(hooks, state)| {
        hooks::run_all("poststop", &hooks, &state)
    }))
}

/// The hooks that run when the container is gone, and what they are told. Read before its files go.
fn late_hooks(root: &Path, id: &ContainerId) -> Option<(Vec<spec::Hook>, spec::State)> {
    let config = record::read_config(root, id).ok()?;
    let state = query::state(root, id).ok()?.into_state();
    let state = spec::State {
        status: spec::Status::Stopped,
        pid: 0,
        ..state
    };
    Some((config.hooks.poststop, state))
}

/// Kills what is left: the first process, and whoever shares its groups but not its pid namespace.
fn end_processes(record: &Record) -> Result<()> {
    kill_group(record, Signal::KILL)?;
    if let Some(process) = record.process() {
        // It may not have reached its groups when its runtime was killed.
        let _gone = process.signal(Signal::KILL);
        let gone = process.wait_exit(Some(GRACE)).unwrap_or(true);
        if !gone {
            let seconds = GRACE.as_secs();
            return Err(Error::plain(format!(
                "process {} is still there {seconds} s after SIGKILL",
                process.pid
            )));
        }
    }
    Ok(())
}
