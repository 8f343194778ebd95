//! `exec`: one more process in a running container.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::error::{During, Error, Result};
use crate::id::ContainerId;
use crate::init::{self, Inherited, Init};
use crate::launch::{Child, Join, Launch, launch};
use crate::plan::{Options, Plan};
use crate::protocol::{self, Message};
use crate::record::{self, Record};
use crate::{groups, label, prepare, query, spec};

/// What to execute, and where.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The directory of all containers' state.
    pub root: &'a Path,
    pub id: ContainerId,
    pub process: spec::Process,
    pub options: Options,
    /// A connected socket that takes the terminal's master.
    pub console: Option<OwnedFd>,
    pub pid_file: Option<PathBuf>,
    /// Allow it in a paused container, where the process starts once that is resumed.
    pub ignore_paused: bool,
    /// Groups below the container's own, by controller; the empty name is all of them.
    pub groups: Vec<(String, PathBuf)>,
}

/// A process that was started.
#[derive(Debug)]
pub struct Executed {
    /// In the caller's numbering; the caller is its parent.
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// Starts a process in a container and returns once its program runs.
///
/// # Errors
/// The container does not run, or the program cannot be executed; no process is left then.
pub fn exec(request: Exec<'_>) -> Result<Executed> {
    let (plan, record) = read(&request)?;
    let layout = cgroup::Layout::detect().map_err(|error| Error::new("find the groups", error))?;
    let init = record.process().ok_or_else(Error::not_running)?;
    let groups = record.process_group();
    let inherited = Inherited {
        start: None,
        console: request.console,
        labels: label::Modules::of_host(),
        seccomp: prepare::seccomp_agent(&plan)?,
        ..Inherited::default()
    };
    let join = Join::Process {
        pidfd: init.pidfd,
        flags: record.namespaces,
    };
    let (ours, theirs) = sys::message::pair().during(|| "make a socket pair")?;
    let order = Launch {
        flags: 0,
        join: &join,
        group: None,
        set_tid: &[],
    };
    let child = launch(&order, &ours, theirs, |socket| {
        let init = Init::new(&plan, (&layout, &groups), socket, inherited);
        init::join(init, record.init_process_pid)
    })?;
    let place = Place {
        groups: &groups,
        below: &request.groups,
        first: init.pid,
        record: &record,
    };
    let led = lead(&plan, &place, &child, &ours).and_then(|()| match &request.pid_file {
        None => Ok(()),
        Some(path) => {
            let pid = child.pid.as_raw_nonzero().get().to_string();
            record::write_atomically(path, pid.as_bytes(), record::PUBLIC)
                .map_err(|error| error.within("--pid-file"))
        }
    });
    match led {
        Ok(()) => Ok(Executed {
            pid: child.pid,
            pidfd: child.pidfd,
        }),
        Err(error) => {
            let _gone =
                rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
            let options = rustix::process::WaitOptions::empty();
            let _reaped =
                rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child.pid), options));
            Err(error)
        }
    }
}

/// The container's configuration with another process.
fn read(request: &Exec<'_>) -> Result<(Plan, Record)> {
    let (root, id) = (request.root, &request.id);
    spec::validate_process(&request.process).map_err(|error| Error::plain(error.to_string()))?;
    let record = record::read(root, id)?.ok_or_else(|| Error::not_found(id.as_str()))?;
    match query::status(root, id)? {
        spec::Status::Created | spec::Status::Running => {}
        spec::Status::Paused if request.ignore_paused => {}
        spec::Status::Paused => {
            return Err(Error::plain(
                "cannot exec in a paused container (use --ignore-paused)",
            ));
        }
        spec::Status::Stopped => return Err(Error::not_running()),
        spec::Status::Creating => return Err(Error::plain("the container is not created yet")),
    }
    if request.process.terminal != request.console.is_some() {
        let needs = "process.terminal and --console-socket must come together when detached";
        return Err(Error::plain(needs));
    }
    let mut spec = record::read_config(root, id)?;
    spec.process = Some(request.process.clone());
    spec.mounts.clear();
    let plan = Plan::new(id.clone(), &record.bundle, spec, request.options.clone())?;
    prepare::inherited_fds(&plan.process)?;
    Ok((plan, record))
}

/// Where the process is put.
struct Place<'a> {
    /// The group of the container's processes.
    groups: &'a cgroup::Group,
    /// Groups below it that were asked for.
    below: &'a [(String, PathBuf)],
    /// The container's first process.
    first: Pid,
    record: &'a Record,
}

fn lead(plan: &Plan, place: &Place<'_>, child: &Child, socket: &OwnedFd) -> Result<()> {
    let process = plan.spec.process.as_ref();
    let affinity = process.and_then(|process| process.exec_cpu_affinity.as_ref());
    let initial = affinity.and_then(|affinity| affinity.initial.as_deref());
    set_affinity(child.pid, "initial", initial)?;
    attach(place, child.pid)?;
    groups::attach_resctrl(place.record, child.pid)?;
    set_affinity(
        child.pid,
        "final",
        affinity.and_then(|affinity| affinity.last.as_deref()),
    )?;
    prepare::oom_score(plan, child.pid)?;
    prepare::raise_limits(&plan.process, child.pid)?;
    let pid = child.pid.as_raw_nonzero().get();
    protocol::send(socket, &Message::Proceed { pid })?;
    // The other end closes at exec.
    match protocol::receive(socket)? {
        None => Ok(()),
        Some(Message::Failed { text }) => Err(Error::plain(text)),
        Some(other) => Err(Error::plain(format!("received {other:?}"))),
    }
}

/// Attaches to the container's groups, or to those below them that were asked for.
fn attach(place: &Place<'_>, pid: Pid) -> Result<()> {
    let (groups, below) = (place.groups, place.below);
    if below.is_empty() {
        let attached = groups.attach_beside(pid, place.first);
        return attached.during(|| "attach the process to the groups");
    }
    let paths = groups.paths().into_iter().map(|(name, path)| {
        let wanted = below.iter().find(|(controller, _)| *controller == name);
        let wanted = wanted.or_else(|| below.iter().find(|(controller, _)| controller.is_empty()));
        let path = wanted.map_or(path.clone(), |(_, below)| {
            path.join(below.strip_prefix("/").unwrap_or(below))
        });
        (name, path)
    });
    let group = cgroup::Group::open(&paths.collect());
    group
        .attach(pid)
        .map_err(|error| Error::new("--cgroup", error))
}

fn set_affinity(pid: Pid, field: &str, list: Option<&str>) -> Result<()> {
    let Some(list) = list else { return Ok(()) };
    let named = || format!("process.execCPUAffinity.{field}: `{list}`");
    let ranges = spec::ranges(list).ok_or_else(|| Error::new(named(), "is no list"))?;
    let processors: Vec<u32> = ranges.into_iter().flatten().collect();
    sys::scheduling::set_affinity(Some(pid), &processors).during(named)
}
