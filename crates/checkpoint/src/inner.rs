//! The engine's other half: a process inside the namespaces of the tree.
//!
//! Problem: pids, paths, sockets, clocks and `/proc` mean something else inside a container, and
//! every part of a dump or restore names some of them. Solution: that part runs in a process of the
//! tree's own namespaces, on a copy of the engine's memory, where all of them mean what the images
//! mean. It reports to the caller's process, which alone knows the host: it runs the caller's hooks,
//! and ends the tree if the inner half dies.
//!
//! Rejected: translating every pid and path at the edge. There are dozens of places, each of which
//! would be wrong in silence; and a path that the container controls would be looked up on the host.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::Pid;
use sys::clone::Side;

use crate::error::{Context, Error, Result};
use crate::{host, procfs};

/// A report is never longer.
const MAX_REPORT: usize = 64 << 10;
const STAGE: u8 = b'S';
const DONE: u8 = b'D';
const FAILED: u8 = b'F';
const GO: u8 = b'G';
const CRASHED: i32 = 101;

/// What the inner half says.
#[derive(Debug)]
pub(crate) enum Report {
    /// It waits for an answer.
    Stage(u8),
    /// All worked; what it found out.
    Done(Vec<u8>),
    /// It gave up.
    Failed(Error),
}

/// The inner half's end of the line.
#[derive(Debug)]
pub(crate) struct Outside(OwnedFd);

impl Outside {
    fn say(&self, tag: u8, payload: &[u8]) -> Result<()> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(payload);
        sys::message::send(&self.0, &bytes).during("report to", "the caller")
    }

    /// Has the caller do its part; an error of the caller is returned.
    pub(crate) fn stage(&self, stage: u8) -> Result<()> {
        self.say(STAGE, &[stage])?;
        let mut buffer = vec![0; MAX_REPORT];
        let (length, _) =
            sys::message::receive(&self.0, &mut buffer).during("ask", "the caller")?;
        match buffer[..length].split_first() {
            Some((&GO, _)) => Ok(()),
            Some((_, rest)) => Err(Error::decode(rest)),
            None => Err(Error::because("ask", "the caller", "it is gone")),
        }
    }

    /// Reports success and waits to be killed.
    pub(crate) fn done_for_ever(&self, payload: &[u8]) -> Result<()> {
        self.say(DONE, payload)?;
        let mut buffer = [0; 16];
        loop {
            match sys::message::receive(&self.0, &mut buffer) {
                Ok((0, _)) | Err(_) => return Ok(()),
                Ok(_) => {}
            }
        }
    }
}

/// The inner half, as the caller's process sees it.
#[derive(Debug)]
pub(crate) struct Inner {
    pid: Pid,
    pidfd: OwnedFd,
    line: OwnedFd,
    /// In a shared table, closing them here would close them there.
    _shared: (Outside, OwnedFd),
}

/// Whether the two halves share one table of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descriptors {
    Copied,
    Shared,
}

/// Starts the inner half. `pid_namespace`: where it is born. `taken`: ids that it must not have.
///
/// `body` runs on a copy of the caller's memory; what it returns is reported.
pub(crate) fn start(
    pid_namespace: Option<&OwnedFd>,
    taken: &[i32],
    descriptors: Descriptors,
    body: impl FnOnce(&Outside) -> Result<Vec<u8>>,
) -> Result<Inner> {
    check_alone()?;
    let (line, other) = sys::message::pair().during("make", "a line to the inner engine")?;
    let own = pid_namespace.map(|_| own_pid_namespace()).transpose()?;
    let mounts = host::mounts()?;
    if let Some(namespace) = pid_namespace {
        join_pid_namespace(namespace)?;
    }
    let side = clone(pid_namespace.is_some(), taken, descriptors);
    let outside = Outside(other);
    if let Ok(Side::Child) = side {
        host::remember(mounts);
        let status = catch_unwind(AssertUnwindSafe(|| tell(&outside, body(&outside))));
        sys::process::leave(status.unwrap_or(CRASHED));
    }
    if let Some(namespace) = &own {
        join_pid_namespace(namespace)?;
    }
    match side.during("start", "the inner engine")? {
        Side::Child => Err(Error::because("start", "the inner engine", "it came back")),
        Side::Parent { pid, pidfd } => Ok(Inner {
            pid,
            pidfd,
            line,
            _shared: (outside, mounts),
        }),
    }
}

fn tell(outside: &Outside, result: Result<Vec<u8>>) -> i32 {
    let told = match result {
        Ok(payload) => outside.say(DONE, &payload),
        Err(error) => outside.say(FAILED, &error.encode()),
    };
    i32::from(told.is_err())
}

/// A copy of a process with threads may find locks held for ever.
fn check_alone() -> Result<()> {
    let own = rustix::process::getpid();
    if procfs::numbers_in(own, "task")?.len() > 1 {
        let cause = "the calling program has threads, and containers need it to have one";
        return Err(Error::because("start", "the inner engine", cause));
    }
    Ok(())
}

fn own_pid_namespace() -> Result<OwnedFd> {
    let path = format!("{}/self/ns/pid", procfs::root());
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during("open", path)
}

fn join_pid_namespace(namespace: &OwnedFd) -> Result<()> {
    sys::namespace::join(namespace.as_fd(), sys::namespace::Kind::Pid)
        .during("join", "the pid namespace")
}

/// In a foreign pid namespace a high id is asked for: the kernel then hands out the same ids
/// afterwards as if we had never been there.
fn clone(foreign: bool, taken: &[i32], descriptors: Descriptors) -> sys::Result<Side> {
    let make = |ids: &[i32]| match descriptors {
        Descriptors::Shared => sys::inner_process::clone_sharing_files(ids),
        Descriptors::Copied => sys::clone::clone(&sys::clone::Clone {
            set_tid: ids,
            ..sys::clone::Clone::default()
        }),
    };
    if !foreign {
        return make(&[]);
    }
    let mut last = Err(sys::Errno::AGAIN);
    for id in (300..32_760).rev().filter(|id| !taken.contains(id)) {
        last = make(&[id]);
        match &last {
            Err(sys::Errno::EXIST) => {}
            // A namespace with a smaller pid_max.
            Err(sys::Errno::INVAL) if id > 400 => {}
            _ => return last,
        }
    }
    last
}

impl Inner {
    /// The next report; an inner half that ended without one is an error.
    pub(crate) fn next(&self) -> Result<Report> {
        let mut waiting = [
            PollFd::new(&self.line, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut waiting, None))
            .during("wait for", "the inner engine")?;
        if !waiting[0].revents().contains(PollFlags::IN) {
            let cause = "it ended without a word";
            return Err(Error::because("wait for", "the inner engine", cause));
        }
        let mut buffer = vec![0; MAX_REPORT];
        let (length, _) =
            sys::message::receive(&self.line, &mut buffer).during("hear", "the inner engine")?;
        match buffer[..length].split_first() {
            Some((&STAGE, [stage, ..])) => Ok(Report::Stage(*stage)),
            Some((&DONE, payload)) => Ok(Report::Done(payload.to_vec())),
            Some((&FAILED, payload)) => Ok(Report::Failed(Error::decode(payload))),
            _ => Err(Error::because("hear", "the inner engine", "it stammers")),
        }
    }

    /// Answers a [`Report::Stage`].
    pub(crate) fn answer(&self, result: &Result<()>) -> Result<()> {
        let bytes = match result {
            Ok(()) => vec![GO],
            Err(error) => [&[FAILED], &error.encode()[..]].concat(),
        };
        sys::message::send(&self.line, &bytes).during("answer", "the inner engine")
    }

    /// Waits until it is gone.
    pub(crate) fn reap(self) {
        let _ = sys::ptrace::wait(self.pid);
    }

    /// Ends it, if it has not ended.
    pub(crate) fn end(self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        self.reap();
    }
}

/// Moves the calling inner half into `kinds` of the namespaces behind `pidfd`, with a procfs of its
/// own as the working directory.
pub(crate) fn enter(pidfd: &OwnedFd, kinds: u64) -> Result<()> {
    let proc = private_proc()?;
    if kinds != 0 {
        sys::namespace::join_process(pidfd, kinds).during("join", "the tree's namespaces")?;
    }
    live_in(&proc)
}

/// Moves the calling inner half into another mount namespace; its procfs stays at hand.
pub(crate) fn visit_mounts(namespace: &OwnedFd) -> Result<()> {
    let here = working_directory()?;
    sys::namespace::join(namespace.as_fd(), sys::namespace::Kind::Mount)
        .during("join", "a mount namespace")?;
    live_in(&here)
}

/// The procfs that the inner half lives in.
pub(crate) fn working_directory() -> Result<OwnedFd> {
    rustix::fs::open(
        procfs::root(),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .during("open", "proc")
}

/// The mount namespace of a process, or of `self`.
pub(crate) fn mount_namespace(task: &str) -> Result<OwnedFd> {
    let path = format!("{}/{task}/ns/mnt", procfs::root());
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during("open", path)
}

/// A procfs of the caller's pid namespace that nobody can mount over.
pub(crate) fn private_proc() -> Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|context| {
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        })
        .during("mount", "proc")
}

/// Makes a procfs the working directory, from where everything here is read.
pub(crate) fn live_in(proc: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(proc).during("enter", "proc")?;
    procfs::is_working_directory();
    Ok(())
}
