//! `floe group create`

use anyhow::{Result, bail};
use clap::Args;

use super::Groups;
use super::change::{Change, Wish, user};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Give it to this user, who may make groups below it, but not change its values
    #[arg(long, value_name = "USER")]
    delegate: Option<String>,
    /// One that exists is no error; its values are set all the same
    #[arg(long)]
    exist_ok: bool,
    /// Name, such as web/api; from the root of the hierarchies if it begins with a `/`
    #[arg(value_name = "NAME")]
    name: String,
    /// Values, such as memory.max=512M; `floe group keys` lists the keys
    #[arg(value_name = "KEY=VALUE")]
    values: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let groups = Groups::open()?;
    let name = cgroup::Name::parse(&flags.name)?;
    let mut wish = Wish::new(name.clone(), super::assignments(&flags.values)?);
    wish.user = flags.delegate.as_deref().map(user).transpose()?.map(Some);
    let change = Change::begin(&groups)?;
    if groups.exists(&name) && !flags.exist_ok {
        bail!("create group `{name}`: it exists already");
    }
    change.carry_out(&[wish])?;
    Ok(0)
}
