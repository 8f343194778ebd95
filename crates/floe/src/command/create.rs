//! `floe create`

use anyhow::Result;
use clap::Args;

use crate::flags::CreateFlags;
use crate::output;
use crate::store::Store;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Flags {
    #[command(flatten)]
    create: CreateFlags,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Makes a container and prints its id.
pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let container = crate::create::create(&store, &flags.create)?;
    output::line(&container.record.id)?;
    Ok(0)
}
