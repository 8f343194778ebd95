//! `floe rm`

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use monitor::wire::Request;
use rustix::process::{Pid, Signal, kill_process};

use crate::output;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::store::Store;
use crate::store::container::{Container, Word};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Kill it first if it runs
    #[arg(short, long)]
    force: bool,
    /// Remove its named volumes too, if no other container names them
    #[arg(short, long)]
    volumes: bool,
    /// Called by the monitor after the end of a container with --rm
    #[arg(long, hide = true)]
    ended: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    if flags.ended {
        let id = flags
            .containers
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        // `floe run --rm` may have been faster.
        if let Ok(container) = Container::load(&store, id) {
            remove(&store, &container, true)?;
        }
        return Ok(0);
    }
    super::each(&store, &flags.containers, |container| {
        remove(&store, container, flags.force)?;
        if flags.volumes {
            remove_volumes(&store, container)?;
        }
        output::line(&container.record.name)
    })
}

/// Removes a container and everything of it. One that is already gone is no error.
pub(super) fn remove(store: &Store, container: &Container, force: bool) -> Result<()> {
    let Ok(_lock) = container.lock() else {
        return Ok(());
    };
    let record = &container.record;
    let word = container.state_locked(store)?.word;
    if word.is_live() && !force {
        bail!(
            "container `{}` is {}\n`floe stop {}` first, or `floe rm --force`",
            record.name,
            word.name(),
            record.name
        );
    }
    if container.is_held() {
        end_monitor(store, container, word)?;
    }
    // Until here it can be called by its name; from here on it is no container any more.
    let config = container.dir.join("config.json");
    std::fs::remove_file(&config).with_context(|| format!("remove `{}`", config.display()))?;
    store.drop_name(&record.name, &record.id);
    crate::events::record(store, container, "remove", &[]);
    let mut result = Ok(());
    for directory in [&record.layer, &container.dir, &container.run_dir] {
        if !directory.as_os_str().is_empty() {
            result = result.and(remove_containers_tree(store, container, directory));
        }
    }
    result
}

/// Ends a container that may run, and its monitor.
fn end_monitor(store: &Store, container: &Container, word: Word) -> Result<()> {
    if word != Word::Exited {
        kill(store, container)?;
    }
    // It has clients that do not read, perhaps: the second request to end leaves them.
    for _ in 0..3 {
        if container.wait_released() {
            return Ok(());
        }
        if let Some(monitor) = container.monitor().and_then(Pid::from_raw) {
            // It may have ended just now.
            let _ = kill_process(monitor, Signal::TERM);
        }
    }
    bail!("the monitor of `{}` does not end", container.record.name)
}

/// Kills a container and waits until its monitor has noted it.
fn kill(store: &Store, container: &Container) -> Result<()> {
    let Ok(session) = Session::connect(container) else {
        return Ok(());
    };
    // From here on its end is asked for: no restart.
    if session.request(&Request::Hold).is_err() {
        return Ok(());
    }
    let runtime = Runtime::find(store)?;
    let id = &container.record.id;
    if runtime.kill(id, Signal::KILL.as_raw()).is_err() {
        // Not started yet, or ended by itself.
        let _ = runtime.delete_force(id);
    }
    session
        .wait(Some(std::time::Duration::from_secs(10)))
        .map(drop)
}

/// After a failed start: a container that was only for this run is removed again.
pub(super) fn after_failed_start(store: &Store, container: &Container) {
    // The start's error is the one to tell.
    let _ = remove(store, container, true);
}

fn remove_volumes(store: &Store, container: &Container) -> Result<()> {
    let others = store.all()?;
    for volume in &container.record.volumes {
        if !others
            .iter()
            .any(|other| other.record.volumes.contains(volume))
        {
            remove_tree(&store.state.join("volumes").join(volume))?;
        }
    }
    Ok(())
}

/// Removes a directory of a container's; what belongs to the container's ids, as them.
fn remove_containers_tree(store: &Store, container: &Container, directory: &Path) -> Result<()> {
    match (&container.record.id_maps, remove_tree(directory)) {
        (Some(maps), Err(_)) if store.rootless && crate::userns::has_other_ids(maps) => {
            crate::userns::run(maps, || remove_tree(directory))
        }
        (_, removed) => removed,
    }
}

/// Removes a directory and all in it, never following a link out of it.
///
/// # Errors
/// Those of removing files.
pub(crate) fn remove_tree(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    // An overlay leaves its work directory closed even to its owner, and a container may have
    // closed some of its own.
    open_up(directory);
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove `{}`", directory.display()))
        }
        _ => Ok(()),
    }
}

fn open_up(directory: &Path) {
    let Ok(metadata) = directory.symlink_metadata() else {
        return;
    };
    if !metadata.is_dir() {
        return;
    }
    // What cannot be opened is told by the removal.
    let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
