//! `create`: from a bundle to a process that waits for `start`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen};
use sys::namespace::Kind;

use crate::error::{During, Error, Result};
use crate::groups::{self, Groups};
use crate::id::ContainerId;
use crate::init::{self, Inherited, Init};
use crate::launch::{Child, Join, Launch, launch};
use crate::plan::{Options, Plan};
use crate::protocol::{self, Message};
use crate::record::{self, Directory, Record};
use crate::{hooks, id_map, label, prepare, spec};

/// What to create, and from what.
#[derive(Debug)]
pub struct Create<'a> {
    /// The directory of all containers' state.
    pub root: &'a Path,
    pub id: ContainerId,
    /// Absolute.
    pub bundle: &'a Path,
    pub options: Options,
    /// A connected socket that takes the terminal's master.
    pub console: Option<OwnedFd>,
    /// Where the process's pid is written, decimal, with no newline.
    pub pid_file: Option<PathBuf>,
}

/// A container that was created.
#[derive(Debug)]
pub struct Created {
    /// The process's pid in the caller's numbering; the caller is its parent.
    pub pid: rustix::process::Pid,
    pub pidfd: OwnedFd,
    /// What in the configuration was ignored, a line each.
    pub warnings: Vec<String>,
}

/// Creates a container whose process waits for [`crate::start`].
///
/// # Errors
/// Whatever fails, nothing stays: no process, group, mount or state.
pub fn create(request: Create<'_>) -> Result<Created> {
    let (plan, text, warnings) = read_bundle(&request)?;
    record::refuse_taken(request.root, &plan.id)?;
    let layout = cgroup::Layout::detect().during(|| "find the groups")?;
    let mut groups = Groups::place(&plan, &layout)?;
    refuse_inhabited(groups.outer())?;
    let directory = Directory::create(request.root, &plan.id)?;
    let record = first_record(&plan, &groups);
    let made = directory
        .store(&record)
        .and_then(|()| directory.write("config.json", &text))
        .and_then(|()| make(&plan, &mut groups, &directory, request.console))
        .and_then(|child| {
            let record = Record {
                cgroup_paths: groups.outer().paths(),
                resctrl: groups.resctrl(),
                ..record.clone()
            };
            finish(
                &directory,
                record,
                groups.outer(),
                child,
                request.pid_file.as_deref(),
            )
        });
    match made {
        Ok(child) => Ok(Created {
            pid: child.pid,
            pidfd: child.pidfd,
            warnings,
        }),
        Err(error) => {
            let adopted_cgroups = groups.outer().adopted();
            Err(undo(
                &Record {
                    adopted_cgroups,
                    resctrl: groups.resctrl(),
                    ..record
                },
                directory,
                &error,
            ))
        }
    }
}

/// Refuses a group that others live in: they would be limited, and killed, with the container.
pub(crate) fn refuse_inhabited(group: &cgroup::Group) -> Result<()> {
    for (name, path) in group.paths() {
        let one = cgroup::Group::open(&BTreeMap::from([(name, path.clone())]));
        let processes = one.procs_recursive().during(|| "linux.cgroupsPath")?;
        if !processes.is_empty() {
            let count = processes.len();
            let operation = format!("linux.cgroupsPath: group `{}`", path.display());
            return Err(Error::new(operation, format!("has {count} processes")));
        }
    }
    Ok(())
}

pub(crate) fn read_bundle(request: &Create<'_>) -> Result<(Plan, Vec<u8>, Vec<String>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let named = || format!("open the bundle `{}`", request.bundle.display());
    let bundle = rustix::fs::open(request.bundle, flags, Mode::empty()).during(named)?;
    let plain = |error: spec::Error| Error::plain(error.to_string());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(&bundle, "config.json", flags, Mode::empty())
        .during(|| format!("open `{}/config.json`", request.bundle.display()))?;
    let text = spec::read_document("config.json", &mut std::fs::File::from(file)).map_err(plain)?;
    let spec = spec::parse(&text).map_err(plain)?;
    let mut warnings = spec::validate(&spec).map_err(plain)?;
    let terminal = spec
        .process
        .as_ref()
        .is_some_and(|process| process.terminal);
    if terminal && request.console.is_none() {
        return Err(Error::plain(
            "process.terminal: needs --console-socket when detached",
        ));
    }
    if !terminal && request.console.is_some() {
        return Err(Error::plain("--console-socket: process.terminal is false"));
    }
    let plan = Plan::new(
        request.id.clone(),
        request.bundle,
        spec,
        request.options.clone(),
    )?;
    prepare::inherited_fds(&plan.process)?;
    warnings.extend(prepare::missing_capabilities(&plan));
    if !plan.namespaces.makes(Kind::Mount) && !plan.mounts.is_empty() {
        let text = "mounts: not made, for the container has no mount namespace of its own";
        warnings.push(text.to_owned());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&plan.rootfs, flags, Mode::empty())
        .during(|| format!("root.path: open `{}`", plan.rootfs.display()))?;
    Ok((plan, text, warnings))
}

/// The record before anything is made: a runtime killed from here on leaves nothing that `delete`
/// cannot find.
pub(crate) fn first_record(plan: &Plan, groups: &Groups<'_>) -> Record {
    Record {
        id: plan.id.to_string(),
        created: humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string(),
        cgroup_paths: groups.outer().paths(),
        resctrl: groups.resctrl(),
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.clone(),
        namespaces: plan.namespaces.all_flags(),
        systemd_unit: plan
            .options
            .systemd_cgroup
            .then(|| plan.linux().cgroups_path.clone().unwrap_or_default()),
        owner: rustix::process::geteuid().as_raw(),
        own_pids: plan.namespaces.makes(Kind::Pid),
        inner_group: plan.inner_group(),
        late_hooks: !plan.spec.hooks.poststart.is_empty() || !plan.spec.hooks.poststop.is_empty(),
        ..Record::default()
    }
}

/// Makes groups and process, and leads the process to where it waits.
///
/// Problem: Linux 6.18 compares how often the *caller's* group was killed (`cgroup.kill`) with how
/// often the new process's was, and kills a process that is born in a group by `CLONE_INTO_CGROUP`
/// if the numbers differ. They do below a group that outlived a kill. Such a process dies before
/// its first instruction, so it has run no hook: a second one is born beside the group and moved.
fn make(
    plan: &Plan,
    groups: &mut Groups<'_>,
    directory: &Directory,
    console: Option<OwnedFd>,
) -> Result<Child> {
    groups.before()?;
    let birthplace = groups.birthplace()?;
    let first = console.as_ref().map(OwnedFd::try_clone).transpose();
    let first = first.map_err(|error| Error::new("duplicate the console socket", error))?;
    match attempt(plan, groups, directory, first, birthplace.as_ref()) {
        Err(failure) if failure.stillborn => {
            attempt(plan, groups, directory, console, None).map_err(|failure| failure.error)
        }
        other => other.map_err(|failure| failure.error),
    }
}

/// Why there is no process.
struct Failure {
    error: Error,
    /// It was killed before it said a word.
    stillborn: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure {
            error,
            stillborn: false,
        }
    }
}

fn attempt(
    plan: &Plan,
    groups: &mut Groups<'_>,
    directory: &Directory,
    console: Option<OwnedFd>,
    birthplace: Option<&OwnedFd>,
) -> std::result::Result<Child, Failure> {
    let inherited = Inherited {
        start: Some(listen_for_start(directory.path())?),
        console,
        labels: label::Modules::of_host(),
        seccomp: prepare::seccomp_agent(plan)?,
        sources: prepare::sources(plan)?,
        devices: prepare::device_addresses(&plan.linux())?,
    };
    let join = Join::Files(prepare::namespace_files(&plan.namespaces)?);
    let (ours, theirs) = sys::message::pair().during(|| "make a socket pair")?;
    let order = Launch {
        flags: plan.namespaces.clone_flags(),
        join: &join,
        group: birthplace.map(AsFd::as_fd),
        set_tid: &[],
    };
    let child = launch(&order, &ours, theirs, |socket| {
        let view = (groups.layout(), groups.process());
        init::run(Init::new(plan, view, socket, inherited))
    })?;
    let mut hooks_ran = false;
    let Err(error) = lead(plan, groups, &child, &ours, &mut hooks_ran) else {
        return Ok(child);
    };
    let stillborn = child.in_group && !hooks_ran && was_killed(&child);
    // The groups' kill reaches it only once it is in them.
    let _gone = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
    Err(Failure { error, stillborn })
}

/// Whether somebody's SIGKILL ended the process, or ends it just now.
fn was_killed(child: &Child) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
    let mut ends = [PollFd::new(&child.pidfd, PollFlags::IN)];
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    let _in_time = poll(&mut ends, Some(&moment));
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), peek);
    let signal = status
        .ok()
        .flatten()
        .and_then(|status| status.terminating_signal());
    signal == Some(Signal::KILL.as_raw())
}

/// The socket at which the process waits. It is bound through the directory's descriptor, for the
/// path may be longer than a socket's address.
fn listen_for_start(directory: &Path) -> Result<OwnedFd> {
    let during = || "make the start socket";
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .during(during)?;
    let address = start_address(directory)?;
    // A first attempt may have left one.
    match rustix::fs::unlink(directory.join(START_SOCKET)) {
        Ok(()) | Err(sys::Errno::NOENT) => {}
        Err(errno) => return Err(errno).during(during),
    }
    bind(&socket, &address.0).during(during)?;
    listen(&socket, 1).during(during)?;
    Ok(socket)
}

/// The address of a container's start socket, and the descriptor that it goes through.
pub(crate) fn start_address(directory: &Path) -> Result<(SocketAddrUnix, OwnedFd)> {
    use std::os::fd::AsRawFd;
    let during = || format!("open `{}`", directory.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty()).during(during)?;
    let path = format!("/proc/self/fd/{}/{START_SOCKET}", directory.as_raw_fd());
    let address = SocketAddrUnix::new(path.as_str()).during(during)?;
    Ok((address, directory))
}

/// The start socket's name in the container's directory.
pub(crate) const START_SOCKET: &str = "start.sock";

/// The runtime's part while the process sets itself up.
fn lead(
    plan: &Plan,
    groups: &mut Groups<'_>,
    child: &Child,
    socket: &OwnedFd,
    hooks_ran: &mut bool,
) -> Result<()> {
    groups.attach(child)?;
    let linux = plan.linux();
    if plan.namespaces.makes(Kind::User) {
        id_map::write(child.pid, &linux)?;
    }
    prepare::oom_score(plan, child.pid)?;
    prepare::raise_limits(&plan.process, child.pid)?;
    prepare::move_devices(&linux, child.pid)?;
    let pid = child.pid.as_raw_nonzero().get();
    protocol::send(socket, &Message::Proceed { pid })?;
    let runtime_hooks = &plan.spec.hooks;
    if !runtime_hooks.prestart.is_empty() || !runtime_hooks.create_runtime.is_empty() {
        protocol::expect(socket, &Message::Mounted)?;
        *hooks_ran = true;
        // For `prestart` the container counts as created (config.md: "after the `start` operation
        // is called"), though like all peers we call it from `create`.
        let state = hooks::state(plan, spec::Status::Created, pid);
        hooks::run("prestart", &runtime_hooks.prestart, &state)?;
        let state = hooks::state(plan, spec::Status::Creating, pid);
        hooks::run("createRuntime", &runtime_hooks.create_runtime, &state)?;
        protocol::send(socket, &Message::HooksDone)?;
    }
    protocol::expect(socket, &Message::Ready)
}

/// Records the process: from here on the container exists.
pub(crate) fn finish(
    directory: &Directory,
    record: Record,
    groups: &cgroup::Group,
    child: Child,
    pid_file: Option<&Path>,
) -> Result<Child> {
    let status = sys::process::Status::read(child.pid).during(|| "read the process's start")?;
    let pid = child.pid.as_raw_nonzero().get();
    let kinds = Kind::ALL
        .iter()
        .filter(|kind| record.namespaces & kind.flag() != 0);
    let namespace_paths: BTreeMap<String, String> = kinds
        .map(|kind| {
            (
                kind.file().to_owned(),
                format!("/proc/{pid}/ns/{}", kind.file()),
            )
        })
        .collect();
    let record = Record {
        init_process_pid: pid,
        init_process_start: status.start,
        adopted_cgroups: groups.adopted(),
        namespace_paths,
        ..record
    };
    let stored = directory.store(&record).and_then(|()| match pid_file {
        Some(path) => record::write_atomically(path, pid.to_string().as_bytes(), record::PUBLIC)
            .map_err(|error| error.within("--pid-file")),
        None => Ok(()),
    });
    if stored.is_err() {
        // It waits for a `start` that cannot come, and may be in no group that is killed.
        let _gone = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
    }
    stored.map(|()| child)
}

/// Takes everything back. Goes on after errors and reports them all after the first cause.
pub(crate) fn undo(record: &Record, directory: Directory, error: &Error) -> Error {
    let killed = record
        .group()
        .kill(rustix::process::Signal::KILL)
        .during(|| "kill");
    let removed = groups::remove(record);
    let cleaned = directory.remove();
    let failures = [killed, removed, cleaned]
        .into_iter()
        .filter_map(Result::err);
    failures.fold(error.clone(), |all, next| {
        Error::plain(format!("{all}; and cleaning up: {next}"))
    })
}
