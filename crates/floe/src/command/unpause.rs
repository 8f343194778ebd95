//! `floe unpause`

use anyhow::{Result, bail};

pub(crate) use super::pause::Flags;
use crate::output;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::container::Word;

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    super::each(&store, &flags.containers, |container| {
        let _lock = container.lock()?;
        let word = container.state_locked(&store)?.word;
        if word != Word::Paused {
            bail!(
                "container `{}` is {}, not paused",
                container.record.name,
                word.name()
            );
        }
        super::pause::resume(&store, &runtime, container)?;
        output::line(&container.record.name)
    })
}
