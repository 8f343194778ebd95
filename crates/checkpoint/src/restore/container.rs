//! Restore of a tree that has namespaces of its own.
//!
//! The caller's process makes the root of the tree in new namespaces, for it becomes the caller's
//! child; everything else is done by the inner half of the engine ([`crate::inner`]), which shares
//! the table of descriptors with both. If anything fails, the caller's process ends the root, and
//! with it all that lives in its pid namespace.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal};
use sys::rtnetlink::Socket;

use super::load::Plan;
use super::mounts::MountNamespaces;
use super::tree::{self, Forest};
use super::{Place, RestoreOptions, Restored, Stage, Steps, build};
use crate::error::{Context, Error, Result};
use crate::files::tty::Terminals;
use crate::image::Directory;
use crate::inject::Injector;
use crate::inner::{self, Descriptors, Inner, Outside, Report};
use crate::mount::restore::{Given, Made};
use crate::mount::{self, plan as mount_plan};
use crate::namespace::{self, Kind, id_of};
use crate::procfs;

/// A directory that exists everywhere; the engine has a procfs of its own.
const YARD: &str = "/proc";
const CLONED: u8 = 1;
const WHOLE: u8 = 2;

/// What the caller's process gives to the inner half.
struct Outer<'a> {
    images: &'a Directory,
    plan: &'a Plan,
    options: &'a RestoreOptions,
    given: Option<Given>,
}

pub(crate) fn restore(
    images: &Directory,
    plan: &Plan,
    options: &RestoreOptions,
    steps: Steps,
    hook: &mut dyn FnMut(Stage, Pid) -> Result<()>,
) -> Result<Restored> {
    check(plan, options)?;
    let outer = Outer {
        images,
        plan,
        options,
        given: take_mounts(plan, options)?,
    };
    let root = Root(Some(tree::create_root(
        plan,
        options,
        made_kinds(plan, options),
    )?));
    let pid = root.pid()?;
    let pidfd =
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).during("open process", pid)?;
    let outline = namespace::Outline::of(pid)?;
    let namespace = outline.open_pid_namespace(pid.as_raw_nonzero().get())?;
    let mut counted = steps;
    let inner = inner::start(
        namespace.as_ref(),
        &plan.task_ids(),
        Descriptors::Shared,
        |outside| {
            let consoles = outer.work(outside, outline.inner_pid, &mut counted)?;
            Ok(encode(counted.count, consoles))
        },
    )?;
    let result = attend(&inner, pid, hook);
    match result {
        Ok(payload) => {
            inner.reap();
            root.keep();
            drop(pidfd);
            let (steps, consoles) = decode(&payload)?;
            Ok(Restored {
                root: pid.as_raw_nonzero().get(),
                consoles,
                steps,
            })
        }
        Err(error) => {
            // The root's pid namespace ends only when nobody in it is left to reap.
            inner.end();
            drop(root);
            Err(error)
        }
    }
}

/// The consoles stay open in the table that both halves share.
fn encode(steps: u32, consoles: Vec<(u32, OwnedFd)>) -> Vec<u8> {
    let mut words = vec![steps];
    for (index, fd) in consoles {
        words.extend([index, fd.into_raw_fd() as u32]);
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Takes over what [`encode`] left open.
fn decode(payload: &[u8]) -> Result<(u32, Vec<(u32, OwnedFd)>)> {
    let words: Vec<u32> = payload
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let Some((steps, rest)) = words.split_first() else {
        return Ok((0, Vec::new()));
    };
    let mut consoles = Vec::new();
    for pair in rest.chunks_exact(2) {
        let fd = sys::fd::adopt(pair[1] as i32).during("take over", "a console")?;
        consoles.push((pair[0], fd));
    }
    Ok((*steps, consoles))
}

/// Answers the inner half until it is done.
fn attend(
    inner: &Inner,
    root: Pid,
    hook: &mut dyn FnMut(Stage, Pid) -> Result<()>,
) -> Result<Vec<u8>> {
    loop {
        match inner.next()? {
            Report::Done(payload) => return Ok(payload),
            Report::Failed(error) => return Err(error),
            Report::Stage(stage) => {
                let stage = if stage == CLONED {
                    Stage::Cloned
                } else {
                    Stage::Whole
                };
                inner.answer(&hook(stage, root))?;
            }
        }
    }
}

/// The root of the tree; dropping it ends it.
struct Root(Option<Pid>);

impl Root {
    fn pid(&self) -> Result<Pid> {
        self.0
            .ok_or_else(|| Error::because("restore", "the root", "it is gone"))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            // A sibling is its parent's to reap.
            let _ = sys::ptrace::wait(pid);
        }
    }
}

fn check(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let has = |kind: Kind| plan.namespaces & kind.flag() != 0;
    if has(Kind::User) {
        let cause = "it has a user namespace of its own, which is not supported yet";
        return Err(Error::because("restore process", plan.root(), cause));
    }
    if has(Kind::Pid) && plan.root() != 1 {
        let cause = "it has a pid namespace of its own and is not its first process";
        return Err(Error::because("restore process", plan.root(), cause));
    }
    if has(Kind::Mount) && options.root.is_none() {
        let cause = "it has a mount namespace of its own; name its new root (--root)";
        return Err(Error::because("restore process", plan.root(), cause));
    }
    Ok(())
}

/// The kinds that the root is born with; the others it founds or joins itself.
fn made_kinds(plan: &Plan, options: &RestoreOptions) -> u64 {
    let later = Kind::Cgroup.flag() | Kind::Time.flag();
    let joined = joined_kinds(options);
    plan.namespaces & !later & !joined
}

fn joined_kinds(options: &RestoreOptions) -> u64 {
    let kinds = options.join.iter().map(|(kind, _)| kind.flag());
    kinds.fold(0, |all, flag| all | flag)
}

/// Copies of the mounts that the caller gives, while its own mount namespace is at hand.
fn take_mounts(plan: &Plan, options: &RestoreOptions) -> Result<Option<Given>> {
    let Some(root) = options.root.as_ref().filter(|_| !plan.mounts.is_empty()) else {
        return Ok(None);
    };
    let take = |place: &Place| match place {
        Place::Path(path) => mount::restore::take(path),
        Place::Tree(fd) => {
            rustix::io::fcntl_dupfd_cloexec(fd, 0).during("duplicate", "a mount of the caller")
        }
    };
    let mut mounts = HashMap::new();
    for (key, place) in &options.mounts {
        mounts.insert(key.clone(), take(place)?);
    }
    Ok(Some(Given {
        root: take(root)?,
        mounts,
    }))
}

impl Outer<'_> {
    /// All that the inner half does.
    fn work(&self, outside: &Outside, root: i32, steps: &mut Steps) -> Result<Vec<(u32, OwnedFd)>> {
        inner::live_in(&inner::private_proc()?)?;
        let root = Pid::from_raw(root)
            .ok_or_else(|| Error::because("restore", "the root", "it has no id inside"))?;
        let forest = tree::adopt_root(self.plan, root)?;
        outside.stage(CLONED)?;
        steps.step("root")?;
        self.found_namespaces(&forest)?;
        let caller = self.callers_network()?;
        self.enter(root)?;
        let objects = self.fill_namespaces(caller)?;
        steps.step("namespaces")?;
        let made = self.mount(&forest)?;
        steps.step("mounts")?;
        let context = super::Context {
            images: self.images,
            plan: self.plan,
            options: self.options,
        };
        let surroundings = match made {
            Some(made) => (
                Terminals::own(made.terminals),
                MountNamespaces::new(self.plan, made.namespaces),
            ),
            None => Default::default(),
        };
        build(&context, forest, surroundings, steps, &mut || {
            objects.finish()?;
            outside.stage(WHOLE)
        })
    }

    /// Where the other ends of network devices are.
    fn callers_network(&self) -> Result<Option<(OwnedFd, Socket)>> {
        if !self.has(Kind::Network) {
            return Ok(None);
        }
        let path = format!("{}/self/ns/net", procfs::root());
        let namespace = File::open(&path).during("open", path)?;
        let socket = Socket::open().during("open", "a routing socket")?;
        Ok(Some((namespace.into(), socket)))
    }

    fn has(&self, kind: Kind) -> bool {
        self.plan.namespaces & kind.flag() != 0
    }

    fn joins(&self, kind: Kind) -> bool {
        joined_kinds(self.options) & kind.flag() != 0
    }

    /// The root founds or joins what it was not born with.
    fn found_namespaces(&self, forest: &Forest) -> Result<()> {
        let root = forest.seed()?;
        for (kind, fd) in &self.options.join {
            let fd = fd.as_raw_fd() as u64;
            let arguments = [fd, kind.flag(), 0, 0, 0, 0];
            root.call("join a namespace in", libc::SYS_setns, arguments)?;
        }
        if self.has(Kind::Cgroup) && !self.joins(Kind::Cgroup) {
            let arguments = [Kind::Cgroup.flag(), 0, 0, 0, 0, 0];
            root.call("make a cgroup namespace for", libc::SYS_unshare, arguments)?;
        }
        if self.has(Kind::Time) && !self.joins(Kind::Time) {
            let id = id_of(&self.plan.root_ids(), Kind::Time);
            namespace::time::restore(self.images, id, root)?;
        }
        Ok(())
    }

    /// The engine goes where the root is.
    fn enter(&self, root: Pid) -> Result<()> {
        // Not the clocks: what is restored here counts from now.
        let not = Kind::Pid.flag() | Kind::User.flag() | Kind::Time.flag();
        let kinds = (self.plan.namespaces | joined_kinds(self.options)) & !not;
        let pidfd =
            rustix::process::pidfd_open(root, PidfdFlags::empty()).during("open process", root)?;
        let here = inner::working_directory()?;
        if kinds != 0 {
            sys::namespace::join_process(&pidfd, kinds).during("join", "the tree's namespaces")?;
        }
        inner::live_in(&here)
    }

    fn fill_namespaces(&self, caller: Option<(OwnedFd, Socket)>) -> Result<crate::ipc::Restored> {
        let mut objects = crate::ipc::Restored::default();
        let ids = self.plan.root_ids();
        let own = |kind: Kind| self.has(kind) && !self.joins(kind);
        if own(Kind::Uts) {
            namespace::uts::restore(self.images, id_of(&ids, Kind::Uts))?;
        }
        if own(Kind::Ipc) {
            namespace::ipc::restore(self.images, id_of(&ids, Kind::Ipc))?;
            objects = crate::ipc::restore(self.images, id_of(&ids, Kind::Ipc))?;
        }
        if own(Kind::Network) && !self.options.empty_network {
            let own = format!("{}/self/ns/net", procfs::root());
            let outside = namespace::network::Outside {
                caller,
                own: Some(File::open(&own).during("open", own)?.into()),
                external: self.options.external.clone(),
            };
            let id = id_of(&ids, Kind::Network);
            namespace::network::restore(self.images, id, &outside)?;
        }
        Ok(objects)
    }

    fn mount(&self, forest: &Forest) -> Result<Option<Made>> {
        let Some(given) = self.given.as_ref().filter(|_| !self.joins(Kind::Mount)) else {
            return Ok(None);
        };
        let entries = &self.plan.mounts;
        let plan = mount_plan::plan(entries)?;
        let here = inner::working_directory()?;
        let made = mount::restore::restore(entries, &plan, given, Path::new(YARD), self.images)?;
        let root = rustix::fs::open(
            "/",
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .during("open", "/")?;
        inner::live_in(&here)?;
        change_root(forest.seed()?, &root, forest.scratch())?;
        Ok(Some(made))
    }
}

/// Gives the stub the root that the engine has.
fn change_root(stub: &Injector, root: &OwnedFd, scratch: u64) -> Result<()> {
    sys::process_memory::write_all(stub.thread, scratch, b".\0")
        .during("write into", stub.thread)?;
    let fd = root.as_raw_fd() as u64;
    stub.call(
        "enter the new root in",
        libc::SYS_fchdir,
        [fd, 0, 0, 0, 0, 0],
    )?;
    stub.call(
        "change the root of",
        libc::SYS_chroot,
        [scratch, 0, 0, 0, 0, 0],
    )
    .map(drop)
}
