//! Restore of a process tree: a list of steps (docs/design/restore.md).
//!
//! Everything is built in stopped processes that share the engine's table of descriptors; the tree
//! runs only when all of it is whole. Until then every process is killed if the engine fails or
//! dies, and ghosts and other temporary names go with it.

mod container;
mod files;
mod load;
mod memory;
mod mounts;
mod task;
mod tree;

pub(crate) use load::Task;
use mounts::MountNamespaces;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::Pid;
use sys::namespace::Kind as NamespaceKind;

use crate::error::{Error, Result};
use crate::external::External;
use crate::files::tty::Terminals;
use crate::image::{Directory, checksum};
use crate::network_lock::Held;

/// A place of the host for the tree.
#[derive(Debug)]
pub enum Place {
    /// A path, which the engine looks up once.
    Path(PathBuf),
    /// A detached mount (open_tree(2), fsmount(2)).
    Tree(OwnedFd),
}

/// A moment at which the caller has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The root of the tree exists in its new namespaces, empty and stopped: the time to put it into
    /// groups and to give it network devices.
    Cloned,
    /// All is whole; nothing runs yet.
    Whole,
}

/// How to restore.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// The root joins the caller's session and group if its own were not dumped.
    pub shell_job: bool,
    /// The root becomes a sibling of the engine, not its child.
    pub sibling: bool,
    /// Restore established TCP connections.
    pub tcp_established: bool,
    /// Established TCP connections come back closed.
    pub tcp_close: bool,
    /// The root of the tree's mount namespace; needed if that was dumped.
    pub root: Option<Place>,
    /// What is mounted where a mount was external, by its key.
    pub mounts: Vec<(String, Place)>,
    /// Namespaces to join instead of making them.
    pub join: Vec<(NamespaceKind, OwnedFd)>,
    /// Open files that take the place of what was outside, by key.
    pub inherit: Vec<(String, OwnedFd)>,
    /// What the caller says of network devices whose other end is outside.
    pub external: Vec<External>,
    /// The network namespace is left as it is made.
    pub empty_network: bool,
    /// For tests: fail at the step with this number.
    pub fail_at: Option<u32>,
}

/// What a restore made.
#[derive(Debug)]
pub struct Restored {
    /// The root's process id.
    pub root: i32,
    /// The masters of terminals of the tree's own whose other end was outside (a container's
    /// console), by number. Closing one hangs its terminal up.
    pub consoles: Vec<(u32, OwnedFd)>,
    /// How many steps there were.
    pub steps: u32,
}

/// Counts the places where a restore can fail, for the test that tries them all.
#[derive(Debug)]
pub(crate) struct Steps {
    count: u32,
    fail_at: Option<u32>,
}

impl Steps {
    fn step(&mut self, name: &str) -> Result<()> {
        self.count += 1;
        if self.fail_at == Some(self.count) {
            return Err(Error::because("restore", name, "a failure was asked for"));
        }
        Ok(())
    }
}

/// Reads and checks the images as a restore does.
pub(crate) fn read(images: &Directory) -> Result<load::Plan> {
    load::load(images, &RestoreOptions::default())
}

/// Restores the tree in `images`. On an error nothing of it is left.
///
/// # Errors
/// The images are damaged, or something that the tree needs is not there or taken.
pub fn restore(images: &Directory, options: &RestoreOptions) -> Result<Restored> {
    restore_with(images, options, &mut |_, _| Ok(()))
}

/// [`restore`], with the caller's part at each [`Stage`]; `hook` gets the root's process id. Its
/// error is the restore's.
///
/// # Errors
/// As [`restore`].
pub fn restore_with(
    images: &Directory,
    options: &RestoreOptions,
    hook: &mut dyn FnMut(Stage, Pid) -> Result<()>,
) -> Result<Restored> {
    let mut steps = Steps {
        count: 0,
        fail_at: options.fail_at,
    };
    checksum::verify(images)?;
    let plan = load::load(images, options)?;
    steps.step("loaded")?;
    if plan.namespaces != 0 {
        return container::restore(images, &plan, options, steps, hook);
    }
    let root = tree::create_root(&plan, options, 0)?;
    let forest = tree::adopt_root(&plan, root)?;
    hook(Stage::Cloned, root)?;
    let context = Context {
        images,
        plan: &plan,
        options,
    };
    let whole = &mut || hook(Stage::Whole, root);
    let consoles = build(&context, forest, Default::default(), &mut steps, whole)?;
    Ok(Restored {
        consoles,
        root: plan.root(),
        steps: steps.count,
    })
}

/// What a restore works from.
#[derive(Clone, Copy)]
struct Context<'a> {
    images: &'a Directory,
    plan: &'a load::Plan,
    options: &'a RestoreOptions,
}

/// Makes everything but the root, which stands alone in `forest`.
fn build(
    context: &Context<'_>,
    mut forest: tree::Forest,
    (terminals, mounts): (Terminals, MountNamespaces),
    steps: &mut Steps,
    whole: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<(u32, OwnedFd)>> {
    let Context {
        images,
        plan,
        options,
    } = *context;
    // Dropped, it unlocks: a restore that fails leaves no lock behind.
    let mut lock = Held::of_dump(plan.network_lock, plan.locked.clone());
    let mut files = files::Files::new(images, plan, &options.inherit, terminals)?;
    forest.grow_all(plan)?;
    mounts.distribute(&plan.tasks, &forest)?;
    files.mounts = mounts;
    steps.step("processes")?;
    tree::join_groups(plan, &mut forest)?;
    files.open_all(plan, &forest)?;
    steps.step("files")?;
    for (task, stub) in plan.tasks.iter().zip(&mut forest.stubs) {
        memory::rebuild(images, task, stub, &mut files)?;
        steps.step("memory")?;
    }
    for (task, stub) in plan.tasks.iter().zip(&forest.stubs) {
        files.place(task, stub)?;
        steps.step("descriptors")?;
    }
    for (task, stub) in plan.tasks.iter().zip(&mut forest.stubs) {
        task::restore_threads(task, stub)?;
        steps.step("threads")?;
    }
    files.hang_up();
    tree::end_the_dead(plan, &forest)?;
    for (task, stub) in plan.tasks.iter().zip(&forest.stubs) {
        task::restore_process(task, stub, &plan.filters)?;
        steps.step("process")?;
    }
    for (task, stub) in plan.tasks.iter().zip(&mut forest.stubs) {
        task::finish(task, stub)?;
    }
    files.close_halves()?;
    whole()?;
    lock.release();
    let consoles = files.finish()?;
    steps.step("ready")?;
    forest.release(plan)?;
    Ok(consoles)
}
