//! Making the first process in the right namespaces.
//!
//! New namespaces come with one clone3. Where an existing pid or user namespace is joined, only a
//! child of the joining process lives in it, and one who has joined may lack rights outside; so a
//! launcher joins, clones the process with the runtime as its parent (CLONE_PARENT), and ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use sys::clone::{Clone, Side, clone};
use sys::namespace::Kind;

use crate::error::{During, Error, Result};
use crate::protocol::{self, Message};

/// What the process is made into.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// `CLONE_NEW*` of the clone itself.
    pub(crate) flags: u64,
    /// Namespaces to join first, in order.
    pub(crate) join: &'a Join,
    pub(crate) group: Option<BorrowedFd<'a>>,
    /// The pids that restore or `--pid` ask for.
    pub(crate) set_tid: &'a [i32],
}

/// Existing namespaces.
#[derive(Debug)]
pub(crate) enum Join {
    /// By their files.
    Files(Vec<(Kind, OwnedFd)>),
    /// Those of a process, all at once.
    Process { pidfd: OwnedFd, flags: u64 },
}

impl Join {
    fn is_empty(&self) -> bool {
        match self {
            Join::Files(files) => files.is_empty(),
            Join::Process { flags, .. } => *flags == 0,
        }
    }

    fn joins(&self, kind: Kind) -> bool {
        match self {
            Join::Files(files) => files.iter().any(|(joined, _)| *joined == kind),
            Join::Process { flags, .. } => flags & kind.flag() != 0,
        }
    }

    fn enter(&self) -> Result<()> {
        match self {
            Join::Files(files) => files.iter().try_for_each(|(kind, file)| {
                sys::namespace::join(file.as_fd(), *kind)
                    .during(|| format!("join the `{}` namespace", kind.file()))
            }),
            Join::Process { pidfd, flags } => {
                sys::namespace::join_process(pidfd, *flags).during(|| "join the namespaces")
            }
        }
    }
}

/// A process that was made, still ours to wait for.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Whether it was born in the v2 group.
    pub(crate) in_group: bool,
}

/// Makes the process. In it `child` runs, and ends with its exit status if it ever returns; `ours`
/// and `theirs` are the two ends of the protocol's socket. `ours` is closed in every child: the
/// process would else hold its own parent's end open, and wait for ever for one that was killed.
pub(crate) fn launch(
    launch: &Launch<'_>,
    ours: &OwnedFd,
    theirs: OwnedFd,
    child: impl FnOnce(OwnedFd) -> i32,
) -> Result<Child> {
    if launch.join.is_empty() {
        return directly(launch, ours, theirs, child);
    }
    match clone(&Clone::default()).during(|| "clone the launcher")? {
        Side::Child => {
            let closed = sys::fd::close_copy(ours.as_fd());
            if closed.is_err() {
                sys::process::leave(1)
            }
            let socket = rustix::io::fcntl_dupfd_cloexec(&theirs, 3);
            let error = match relay(launch, theirs, child) {
                Ok(()) => sys::process::leave(0),
                Err(error) => error,
            };
            if let Ok(socket) = socket {
                let _unheard = protocol::send(
                    &socket,
                    &Message::Failed {
                        text: error.to_string(),
                    },
                );
            }
            sys::process::leave(1)
        }
        Side::Parent { pid: launcher, .. } => {
            drop(theirs);
            let born = protocol::receive(ours);
            rustix::io::retry_on_intr(|| waitpid(Some(launcher), WaitOptions::empty()))
                .during(|| "wait for the launcher")?;
            adopt(born?)
        }
    }
}

/// The launcher's process is our child and not waited for yet, so its pid is its own.
fn adopt(born: Option<Message>) -> Result<Child> {
    match born {
        Some(Message::Born { pid }) => {
            let pid = Pid::from_raw(pid).ok_or_else(|| Error::plain("the launcher sent no pid"))?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).during(|| "open the pidfd")?;
            Ok(Child {
                pid,
                pidfd,
                in_group: false,
            })
        }
        Some(Message::Failed { text }) => Err(Error::plain(text)),
        other => Err(Error::plain(format!("the launcher sent {other:?}"))),
    }
}

fn directly(
    launch: &Launch<'_>,
    ours: &OwnedFd,
    theirs: OwnedFd,
    child: impl FnOnce(OwnedFd) -> i32,
) -> Result<Child> {
    let options = Clone {
        flags: launch.flags,
        set_tid: launch.set_tid,
        cgroup: launch.group,
    };
    let mut in_group = launch.group.is_some();
    let side = clone(&options).or_else(|errno| match errno {
        // The group cannot take processes yet (threaded, or its parent is busy), or may not be
        // written by us: the runtime attaches the process as on v1, and reports if that fails.
        sys::Errno::BUSY | sys::Errno::OPNOTSUPP | sys::Errno::ACCESS if in_group => {
            in_group = false;
            clone(&Clone {
                cgroup: None,
                ..options
            })
        }
        errno => Err(errno),
    });
    match side.during(|| "clone the container's process")? {
        Side::Child => sys::process::leave(match sys::fd::close_copy(ours.as_fd()) {
            Ok(()) => child(theirs),
            Err(_) => 1,
        }),
        Side::Parent { pid, pidfd } => Ok(Child {
            pid,
            pidfd,
            in_group,
        }),
    }
}

/// The launcher: joins, clones, tells the pid.
fn relay(launch: &Launch<'_>, theirs: OwnedFd, child: impl FnOnce(OwnedFd) -> i32) -> Result<()> {
    // A process of the joined namespaces could trace us from the moment we are visible in them
    // (CVE-2016-9962). The mark is inherited, and goes with the exec.
    if launch.join.joins(Kind::Pid) || launch.join.joins(Kind::User) {
        sys::process::set_dumpable(false).during(|| "become untraceable")?;
    }
    launch.join.enter()?;
    let flags = launch.flags | sys::clone::PARENT;
    let options = Clone {
        flags,
        set_tid: launch.set_tid,
        cgroup: None,
    };
    match clone(&options).during(|| "clone the container's process")? {
        Side::Child => sys::process::leave(child(theirs)),
        Side::Parent { pid, .. } => protocol::send(
            &theirs,
            &Message::Born {
                pid: pid.as_raw_nonzero().get(),
            },
        ),
    }
}
