//! `floe restart`

use anyhow::{Result, bail};
use clap::Args;

use crate::output;
use crate::runtime::Runtime;
use crate::store::Store;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Seconds until it is killed, instead of the container's own
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u64>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    super::each(&store, &flags.containers, |container| {
        if container.record.remove {
            bail!(
                "container `{}` is removed when it ends (--rm)",
                container.record.name
            );
        }
        super::stop::stop(&store, &runtime, container, None, flags.time)?;
        super::start::detached(&store, container, &runtime)?;
        output::line(&container.record.name)
    })
}
