//! `floe run`

use anyhow::Result;
use clap::Args;

use crate::flags::CreateFlags;
use crate::output;
use crate::runtime::{Runtime, launch, start_error};
use crate::session::{Outcome, Session, Streams};
use crate::store::Store;
use crate::store::container::Container;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Flags {
    /// Leave it running in the background and print its id
    #[arg(short, long)]
    detach: bool,
    /// Do not pass the signals that floe gets on to the container
    #[arg(long)]
    no_sig_proxy: bool,
    #[command(flatten)]
    create: CreateFlags,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Makes and starts a container; its exit status, unless it is left in the background.
pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    let create = &flags.create;
    if create.process.tty
        && create.process.interactive
        && !flags.detach
        && !crate::terminal::is_input()
    {
        anyhow::bail!("-it: standard input is not a terminal\nleave out -t");
    }
    let container = crate::create::create(&store, create)?;
    if flags.detach {
        super::start::detached(&store, &container, &runtime).inspect_err(|_| {
            super::rm::after_failed_start(&store, &container);
        })?;
        output::line(&container.record.id)?;
        return Ok(0);
    }
    let streams = Streams {
        input: create.process.interactive,
        terminal: create.process.tty,
        signals: !flags.no_sig_proxy,
    };
    let code = attached(&store, &container, &runtime, streams)?;
    Ok(code)
}

/// Starts a container with the caller's streams; its exit status.
fn attached(
    store: &Store,
    container: &Container,
    runtime: &Runtime,
    streams: Streams,
) -> Result<u8> {
    let lock = container.lock()?;
    let launched = launch(store, container, runtime).and_then(|()| Session::connect(container));
    drop(lock);
    let session = launched.inspect_err(|_| super::rm::after_failed_start(store, container))?;
    let outcome = session.attach(container, runtime, streams, true)?;
    finish(store, container, outcome)
}

/// Turns the end of a session into an exit status, and removes what is to be removed.
pub(super) fn finish(store: &Store, container: &Container, outcome: Outcome) -> Result<u8> {
    match outcome {
        Outcome::Exited(code) => {
            if container.record.remove {
                super::rm::remove(store, container, true)?;
            }
            Ok(code)
        }
        Outcome::Detached => Ok(0),
        Outcome::Failed => {
            let error = start_error(container, "the runtime could not start the container");
            super::rm::after_failed_start(store, container);
            Err(error)
        }
        Outcome::Lost => {
            // Notices that the monitor is gone and cleans up after it.
            container.state(store)?;
            anyhow::bail!("the monitor of `{}` was killed", container.record.name)
        }
    }
}
