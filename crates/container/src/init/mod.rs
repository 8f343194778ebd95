//! The container's first process, from its clone to its exec.
//!
//! What happens here runs in the container's namespaces with the runtime's privileges, so nothing
//! that the container's files say may be believed: paths are resolved by descriptor inside the
//! root ([`sys::in_root`]), `/proc` is a private instance ([`sys::procfs`]).
//!
//! The process is a copy of the single-threaded runtime, so it may allocate; it never prints, and
//! every failure goes to the parent as one message.

mod console;
mod credentials;
mod device;
mod filesystem;
mod groups;
mod mask;
pub(crate) mod mount;
mod namespace;
mod rootfs;
mod security;
mod start;

use std::os::fd::OwnedFd;

use sys::procfs::Procfs;

use crate::error::{During, Error, Result};
use crate::plan::Plan;
use crate::protocol::{self, Message};
use crate::seccomp::Filter;

/// Descriptors that the parent opened before the clone, for the child has no right or no way to.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// Where `start` will connect to.
    pub(crate) start: Option<OwnedFd>,
    /// Where the terminal's master goes.
    pub(crate) console: Option<OwnedFd>,
    /// The security modules of the host.
    pub(crate) labels: crate::label::Modules,
    /// Where the seccomp listener goes.
    pub(crate) seccomp: Option<OwnedFd>,
    /// Detached sources of bind mounts, by index of the mount step.
    pub(crate) sources: std::collections::BTreeMap<usize, OwnedFd>,
    /// Network devices that are moved in, by their new names, and the addresses that they had.
    pub(crate) devices: Vec<(String, Vec<sys::netlink::Address>)>,
}

/// What the steps share.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    pub(crate) plan: &'a Plan,
    /// The container's groups, for its view of them.
    pub(crate) groups: &'a cgroup::Group,
    pub(crate) layout: &'a cgroup::Layout,
    /// The other end is the runtime.
    pub(crate) socket: OwnedFd,
    pub(crate) inherited: Inherited,
    /// The private `/proc`.
    proc: Option<Procfs>,
    /// The root file system's topmost directory.
    root: Option<OwnedFd>,
    /// Where that is, as the kernel tells it, until the root changes.
    root_path: std::path::PathBuf,
    /// The host's `/dev/null`, for masks and devices, taken before the root changes.
    null: Option<OwnedFd>,
    /// Mounts that become read-only last, by index of the mount step.
    late_read_only: Vec<(usize, OwnedFd)>,
    /// Our pid as the runtime numbers it.
    pid: i32,
    /// The first process of the container that we join, as the runtime numbers it.
    joined: Option<i32>,
    /// The seccomp filter, compiled.
    filter: Option<Filter>,
    /// The working directory could be entered before the user was taken.
    in_directory: bool,
    /// The program, found and checked.
    program: Option<std::ffi::CString>,
    /// The program's environment, complete.
    environment: Vec<std::ffi::CString>,
}

type Step = fn(&mut Init<'_>) -> Result<()>;

/// From the clone to the root file system.
const ENTER: &[(&str, Step)] = &[
    ("wait for the runtime", wait_for_parent),
    ("time namespace", namespace::enter_time),
    ("become root of the user namespace", namespace::become_root),
    ("session keyring", start::join_keyring),
    ("cgroup namespace", namespace::enter_cgroup),
    ("loopback device", namespace::loopback),
    ("", namespace::devices),
    ("hostname", namespace::names),
    ("private /proc", open_proc),
];

/// The file systems of a mount namespace of the container's own.
const MOUNT: &[(&str, Step)] = &[
    ("propagation of /", rootfs::stop_propagation),
    ("root file system", rootfs::attach),
    ("", mount::all),
    ("devices", device::all),
    ("terminal", console::open),
    ("hooks", runtime_hooks),
    ("", mask::sysctls),
    ("", mask::read_only_paths),
    ("", mask::masked_paths),
    ("", mount::read_only),
    ("change root", rootfs::change),
    ("root file system", rootfs::finish),
];

/// The same where the mount namespace is another's or the host's: its file systems are not ours to
/// change.
const MOUNT_NOTHING: &[(&str, Step)] = &[
    ("root file system", rootfs::open_joined),
    ("terminal", console::open_joined),
    ("hooks", runtime_hooks),
    ("", mask::sysctls),
];

/// What `create` can find out about the program. After this only `start` is missing.
const PREPARE: &[(&str, Step)] = &[
    ("", start::directory),
    ("", start::program),
    ("", security::compile_filter),
];

/// What only `start` brings.
const START: &[(&str, Step)] = &[("hooks", start::hooks)];

/// What a process needs that joins a running container, before [`PREPARE`].
const JOIN: &[(&str, Step)] = &[
    ("wait for the runtime", wait_for_parent),
    ("become root of the user namespace", namespace::become_root),
    ("session keyring", start::join_keyring),
    ("root file system", rootfs::open_joined),
    ("terminal", console::open_joined),
];

/// Everything that comes last, from privileged to not.
const FINISH: &[(&str, Step)] = &[
    ("", start::scheduling),
    ("rlimits", start::limits),
    ("", security::label),
    ("standard streams", start::own_streams),
    ("prepare to execute", start::prepare),
    ("", security::filter_while_privileged),
    ("credentials", credentials::set),
    ("", security::filter_last),
];

impl<'a> Init<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        (layout, groups): (&'a cgroup::Layout, &'a cgroup::Group),
        socket: OwnedFd,
        inherited: Inherited,
    ) -> Init<'a> {
        Init {
            plan,
            groups,
            layout,
            socket,
            inherited,
            proc: None,
            pid: 0,
            joined: None,
            filter: None,
            root: None,
            root_path: std::path::PathBuf::new(),
            null: None,
            late_read_only: Vec::new(),
            in_directory: false,
            program: None,
            environment: Vec::new(),
        }
    }

    fn proc(&self) -> Result<&Procfs> {
        self.proc
            .as_ref()
            .ok_or_else(|| Error::plain("no private /proc"))
    }

    fn root(&self) -> Result<&OwnedFd> {
        self.root
            .as_ref()
            .ok_or_else(|| Error::plain("no root file system"))
    }
}

/// Runs the process to its exec. It never returns: what goes wrong is told to whoever waits.
pub(crate) fn run(mut init: Init<'_>) -> ! {
    let mounts = if init.plan.namespaces.makes(sys::namespace::Kind::Mount) {
        MOUNT
    } else {
        MOUNT_NOTHING
    };
    if let Err(error) = walk(&[ENTER, mounts, PREPARE], &mut init) {
        fail(&init.socket, &error);
    }
    // From here on the runtime that made us is gone, and `start` is who waits.
    let starter = match start::wait(&mut init) {
        Ok(starter) => starter,
        Err(error) => fail(&init.socket, &error),
    };
    if let Err(error) = walk(&[START], &mut init) {
        fail(&starter, &error);
    }
    finish(&mut init, &starter)
}

/// Runs a process that joins a container, by its first process, to its exec. Its runtime waits for
/// that.
pub(crate) fn join(mut init: Init<'_>, container: i32) -> ! {
    init.joined = Some(container);
    let ready = walk(&[JOIN, PREPARE], &mut init).and_then(|()| {
        start::close_for_join(&mut init).map_err(|error| error.within("close descriptors"))
    });
    if let Err(error) = ready {
        fail(&init.socket, &error);
    }
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(&init.socket, 3) else {
        sys::process::leave(1)
    };
    finish(&mut init, &socket)
}

/// The last steps, and the exec.
fn finish(init: &mut Init<'_>, socket: &OwnedFd) -> ! {
    let error = match walk(&[FINISH], init) {
        Ok(()) => start::execute(init),
        Err(error) => error,
    };
    fail(socket, &error)
}

/// Runs lists of steps in order; the first step that fails gives its name to the error.
fn walk(lists: &[&[(&str, Step)]], init: &mut Init<'_>) -> Result<()> {
    for (name, step) in lists.iter().copied().flatten() {
        step(init).map_err(|error| match *name {
            "" => error, // the step names its object itself
            name => error.within(name),
        })?;
    }
    Ok(())
}

fn fail(socket: &OwnedFd, error: &Error) -> ! {
    // Nobody is left to tell if this fails.
    let _unheard = protocol::send(
        socket,
        &Message::Failed {
            text: error.to_string(),
        },
    );
    sys::process::leave(1)
}

fn wait_for_parent(init: &mut Init<'_>) -> Result<()> {
    match protocol::receive(&init.socket)? {
        Some(Message::Proceed { pid }) => init.pid = pid,
        _ => return Err(Error::plain("the runtime is gone")),
    }
    Ok(())
}

fn open_proc(init: &mut Init<'_>) -> Result<()> {
    init.proc = Some(Procfs::private().during(|| "mount")?);
    Ok(())
}

/// Lets the runtime run its hooks, then runs those of the container's namespaces.
fn runtime_hooks(init: &mut Init<'_>) -> Result<()> {
    let hooks = &init.plan.spec.hooks;
    if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
        protocol::send(&init.socket, &Message::Mounted)?;
        protocol::expect(&init.socket, &Message::HooksDone)?;
    }
    let state = crate::hooks::state(init.plan, crate::spec::Status::Creating, init.pid);
    crate::hooks::run("createContainer", &hooks.create_container, &state)
}
