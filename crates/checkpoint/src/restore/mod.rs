//! Restore of a process tree: a list of steps (docs/design/restore.md).
//!
//! Everything is built in stopped processes that share the engine's table of descriptors; the tree
//! runs only when all of it is whole. Until then every process is killed if the engine fails or
//! dies, and ghosts and other temporary names go with it.

mod files;
mod load;
mod memory;
mod task;
mod tree;

pub(crate) use load::Task;

use crate::error::{Error, Result};
use crate::image::{Directory, checksum};
use crate::network_lock::Held;

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// The root joins the caller's session and group if its own were not dumped.
    pub shell_job: bool,
    /// The root becomes a sibling of the engine, not its child.
    pub sibling: bool,
    /// Restore established TCP connections.
    pub tcp_established: bool,
    /// Established TCP connections come back closed.
    pub tcp_close: bool,
    /// For tests: fail at the step with this number.
    pub fail_at: Option<u32>,
}

/// What a restore made.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// The root's process id.
    pub root: i32,
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
    let mut steps = Steps {
        count: 0,
        fail_at: options.fail_at,
    };
    checksum::verify(images)?;
    let plan = load::load(images, options)?;
    steps.step("loaded")?;
    // Dropped, it unlocks: a restore that fails leaves no lock behind.
    let mut lock = Held::of_dump(plan.network_lock, plan.root(), plan.locked.clone());
    let mut files = files::Files::new(images, &plan)?;
    let mut forest = tree::spawn(&plan, options)?;
    steps.step("processes")?;
    tree::join_groups(&plan, &mut forest)?;
    files.open_all(&plan, &forest)?;
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
    tree::end_the_dead(&plan, &forest)?;
    for (task, stub) in plan.tasks.iter().zip(&forest.stubs) {
        task::restore_process(task, stub, &plan.filters)?;
        steps.step("process")?;
    }
    for (task, stub) in plan.tasks.iter().zip(&mut forest.stubs) {
        task::finish(task, stub)?;
    }
    files.close_halves()?;
    lock.release();
    files.finish()?;
    steps.step("ready")?;
    forest.release(&plan)?;
    Ok(Restored {
        root: plan.root(),
        steps: steps.count,
    })
}
