//! One file per command: its flags and what it does.

pub(crate) mod attach;
pub(crate) mod checkpoint;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod group;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod ns;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod restore;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod unpause;
pub(crate) mod update;
pub(crate) mod wait;

use anyhow::Result;

use crate::output;
use crate::store::Store;
use crate::store::container::Container;

/// Does something to each named container; one that fails does not stop the others.
fn each(
    store: &Store,
    names: &[String],
    mut act: impl FnMut(&Container) -> Result<()>,
) -> Result<u8> {
    let mut last = None;
    for name in names {
        if let Err(error) = store.find(name).and_then(|container| act(&container))
            && let Some(former) = last.replace(error)
        {
            output::error(&former);
        }
    }
    match last {
        None => Ok(0),
        // One is printed by `main`; docker's status for these commands is 1.
        Some(error) => {
            output::error(&error);
            Ok(1)
        }
    }
}
