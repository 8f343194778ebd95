//! `floe pause`

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::output;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::container::{Container, PAUSED, Word};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(super) containers: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    super::each(&store, &flags.containers, |container| {
        let _lock = container.lock()?;
        let word = container.state_locked(&store)?.word;
        if word != Word::Running {
            bail!(
                "container `{}` is {}, not running",
                container.record.name,
                word.name()
            );
        }
        runtime.run("pause", [&container.record.id])?;
        let mark = container.run_dir.join(PAUSED);
        std::fs::write(&mark, "").with_context(|| format!("write `{}`", mark.display()))?;
        crate::events::record(&store, container, "pause", &[]);
        output::line(&container.record.name)
    })
}

/// Lets a paused container go on.
pub(super) fn resume(store: &Store, runtime: &Runtime, container: &Container) -> Result<()> {
    runtime.run("resume", [&container.record.id])?;
    let mark = container.run_dir.join(PAUSED);
    std::fs::remove_file(&mark).with_context(|| format!("remove `{}`", mark.display()))?;
    crate::events::record(store, container, "unpause", &[]);
    Ok(())
}
