//! `floe stop`

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use monitor::wire::Request;

use crate::output;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::store::Store;
use crate::store::container::{Container, Word};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Seconds until it is killed, instead of the container's own
    #[arg(short, long, alias = "timeout", value_name = "SECONDS")]
    time: Option<u64>,
    /// Signal instead of the container's own
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    let signal = flags
        .signal
        .as_deref()
        .map(crate::parse::signal)
        .transpose()?;
    super::each(&store, &flags.containers, |container| {
        stop(&store, &runtime, container, signal, flags.time)?;
        output::line(&container.record.name)
    })
}

/// Asks a container to end, and kills it if it does not in time. One that has ended is no error.
pub(super) fn stop(
    store: &Store,
    runtime: &Runtime,
    container: &Container,
    signal: Option<i32>,
    timeout: Option<u64>,
) -> Result<()> {
    let record = &container.record;
    let word = container.state(store)?.word;
    if !word.is_live() {
        return Ok(());
    }
    let Ok(session) = Session::connect(container) else {
        return Ok(());
    };
    session.request(&Request::Hold)?;
    if word == Word::Paused {
        super::pause::resume(store, runtime, container)?;
    }
    let asked = runtime.kill(&record.id, signal.unwrap_or(record.stop_signal));
    let timeout = Duration::from_secs(timeout.unwrap_or(record.stop_timeout));
    // A signal that could not be sent was late: the end is on its way, or the kill tells why.
    if asked.is_err() || session.wait(Some(timeout))?.is_none() {
        let killed = runtime.kill(&record.id, 9);
        if session.wait(Some(Duration::from_secs(10)))?.is_none() {
            killed?;
            anyhow::bail!("container `{}` does not end, though killed", record.name);
        }
    }
    crate::events::record(store, container, "stop", &[]);
    Ok(())
}
