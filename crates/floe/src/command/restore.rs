//! `floe restore`

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::output;
use crate::runtime::{Runtime, WithCode, companion, launch_from, start_error};
use crate::session::{Outcome, Session};
use crate::store::Store;
use crate::store::container::Container;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Directory of a container's images [default: the container's own]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Allow the session and terminal of a shell, and wait for its end (for processes outside of containers)
    #[arg(long)]
    shell_job: bool,
    /// Name or id of a container, or a directory with the images of other processes
    #[arg(value_name = "CONTAINER|DIR")]
    target: String,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let directory = Path::new(&flags.target);
    if flags.from.is_none() && directory.join("inventory.img").exists() {
        return processes(flags, directory);
    }
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    let container = store.find(&flags.target)?;
    let images = match &flags.from {
        Some(path) => std::path::absolute(path).context("--from")?,
        None => super::checkpoint::directory(&container),
    };
    if !images.join("inventory.img").exists() {
        let name = &container.record.name;
        bail!("container `{name}` has no checkpoint\n`floe checkpoint {name}` makes one");
    }
    container_from(&store, &container, &runtime, &images)?;
    crate::events::record(&store, &container, "restore", &[]);
    output::line(&container.record.name)?;
    Ok(0)
}

fn container_from(
    store: &Store,
    container: &Container,
    runtime: &Runtime,
    images: &Path,
) -> Result<()> {
    let _lock = container.lock()?;
    let word = container.state_locked(store)?.word;
    let name = &container.record.name;
    if word.is_live() {
        bail!("container `{name}` is {}", word.name());
    }
    if !container.wait_released() {
        bail!("container `{name}` is being started or ended");
    }
    launch_from(store, container, runtime, Some(images))?;
    match Session::connect(container)?.start()? {
        Outcome::Detached | Outcome::Exited(_) => Ok(()),
        Outcome::Failed => Err(start_error(container, "the runtime could not restore it")),
        Outcome::Lost => bail!("the monitor of `{name}` was killed"),
    }
}

/// Processes outside of containers: what floe-criu does is all.
fn processes(flags: &Flags, directory: &Path) -> Result<u8> {
    let mut command = Command::new(companion("floe-criu")?);
    command.args([
        "restore",
        "--tcp-established",
        "--file-locks",
        "--images-dir",
    ]);
    command.arg(directory);
    command.arg(if flags.shell_job {
        "--shell-job"
    } else {
        "--restore-detached"
    });
    let status = command.status().context("execute `floe-criu`")?;
    match status.code() {
        Some(0) => Ok(0),
        // Its own words are on standard error already; in the foreground it is the root's status.
        Some(code) if flags.shell_job => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        _ => Err(WithCode {
            code: 125,
            message: format!("restore `{}`: {status}", directory.display()),
        }
        .into()),
    }
}
