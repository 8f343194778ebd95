//! `floe rename`

use anyhow::Result;
use clap::Args;

use crate::store::Store;
use crate::store::container::Container;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// New name
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let name = crate::parse::name(&flags.name)?;
    let found = store.find(&flags.container)?;
    let _lock = found.lock()?;
    // Read again under the lock: another command may have changed the record.
    let mut container = Container::load(&store, &found.record.id)?;
    store.take_name(&name, &container.record.id)?;
    let former = std::mem::replace(&mut container.record.name, name.clone());
    if let Err(error) = container.save() {
        store.drop_name(&name, &container.record.id);
        return Err(error);
    }
    store.drop_name(&former, &container.record.id);
    crate::events::record(&store, &container, "rename", &[("from", &former)]);
    Ok(0)
}
