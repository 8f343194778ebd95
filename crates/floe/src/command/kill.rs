//! `floe kill`

use anyhow::Result;
use clap::Args;
use monitor::wire::Request;

use crate::output;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::store::Store;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    let signal = crate::parse::signal(&flags.signal)?;
    super::each(&store, &flags.containers, |container| {
        container.running_pid(&store)?;
        let session = Session::connect(container)?;
        if signal == 9 || signal == container.record.stop_signal {
            // Its end is asked for: no restart.
            session.request(&Request::Hold)?;
        }
        runtime.kill(&container.record.id, signal)?;
        if signal == 9 {
            session.wait(Some(std::time::Duration::from_secs(10)))?;
        }
        crate::events::record(
            &store,
            container,
            "kill",
            &[("signal", &signal.to_string())],
        );
        output::line(&container.record.name)
    })
}
