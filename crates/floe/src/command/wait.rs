//! `floe wait`

use anyhow::Result;
use clap::Args;

use crate::output::{self, Format};
use crate::session::{Outcome, Session};
use crate::store::Store;
use crate::store::container::Container;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Waits for the end of containers and prints their statuses.
pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    super::each(&store, &flags.containers, |container| {
        let code = status(&store, container)?;
        match flags.format {
            Format::Table => output::line(&code.to_string()),
            Format::Json => output::json(&serde_json::json!({
                "id": container.record.id, "name": container.record.name, "exitCode": code,
            })),
        }
    })
}

fn status(store: &Store, container: &Container) -> Result<u8> {
    container.state(store)?;
    if let Ok(session) = Session::connect(container)
        && let Some(Outcome::Exited(code)) = session.wait(None)?
    {
        return Ok(code);
    }
    let state = container.state(store)?;
    match state.exit {
        Some(exit) => Ok(exit.code),
        None => anyhow::bail!("container `{}` has never run", container.record.name),
    }
}
