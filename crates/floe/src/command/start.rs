//! `floe start`

use anyhow::{Result, bail};
use clap::Args;

use crate::output;
use crate::runtime::{Runtime, launch, start_error};
use crate::session::{Outcome, Session, Streams};
use crate::store::Store;
use crate::store::container::{Container, Word};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Connect to its output, and wait for its end
    #[arg(short, long)]
    attach: bool,
    /// Connect to its input too
    #[arg(short, long)]
    interactive: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    if !flags.attach && !flags.interactive {
        return super::each(&store, &flags.containers, |container| {
            let state = container.state(&store)?;
            if state.word != Word::Running && state.word != Word::Paused {
                detached(&store, container, &runtime)?;
            }
            output::line(&container.record.name)
        });
    }
    let [name] = flags.containers.as_slice() else {
        bail!("--attach takes one container");
    };
    let container = store.find(name)?;
    let session = launched(&store, &container, &runtime)?;
    let streams = Streams {
        input: flags.interactive && container.record.interactive,
        terminal: container.record.terminal,
        signals: true,
    };
    let outcome = session.attach(&container, &runtime, streams, true)?;
    super::run::finish(&store, &container, outcome)
}

/// Starts a container and leaves it.
pub(super) fn detached(store: &Store, container: &Container, runtime: &Runtime) -> Result<()> {
    let session = launched(store, container, runtime)?;
    match session.start()? {
        // It runs, or has already ended: both are a start.
        Outcome::Detached | Outcome::Exited(_) => Ok(()),
        Outcome::Failed => Err(start_error(
            container,
            "the runtime could not start the container",
        )),
        Outcome::Lost => bail!("the monitor of `{}` was killed", container.record.name),
    }
}

/// A connection to the new monitor of a container that does not run.
fn launched(store: &Store, container: &Container, runtime: &Runtime) -> Result<Session> {
    let _lock = container.lock()?;
    let state = container.state_locked(store)?;
    if state.word.is_live() {
        bail!(
            "container `{}` is {}",
            container.record.name,
            state.word.name()
        );
    }
    if !container.wait_released() {
        bail!(
            "container `{}` is being started or ended",
            container.record.name
        );
    }
    launch(store, container, runtime)?;
    Session::connect(container)
}
