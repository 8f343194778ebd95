//! `floe attach`

use anyhow::Result;
use clap::Args;

use crate::runtime::Runtime;
use crate::session::{Session, Streams};
use crate::store::Store;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Do not connect its standard input
    #[arg(long)]
    no_stdin: bool,
    /// Do not pass the signals that floe gets on to the container
    #[arg(long)]
    no_sig_proxy: bool,
    /// Keys that detach, instead of the container's own
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    let mut container = store.find(&flags.container)?;
    container.running_pid(&store)?;
    if let Some(keys) = &flags.detach_keys {
        container.record.detach_keys.clone_from(keys);
    }
    let session = Session::connect(&container)?;
    let streams = Streams {
        input: container.record.interactive && !flags.no_stdin,
        terminal: container.record.terminal,
        signals: !flags.no_sig_proxy,
    };
    let outcome = session.attach(&container, &runtime, streams, false)?;
    super::run::finish(&store, &container, outcome)
}
