//! `floe group delegate`

use anyhow::{Result, bail};
use cgroup::Name;
use clap::Args;

use super::change::{Change, Wish, user};
use super::{Groups, set};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Whom to give it to: a name or a number
    #[arg(short, long, value_name = "USER", required_unless_present = "revoke")]
    user: Option<String>,
    /// Take it back; groups that the user made below it stay the user's
    #[arg(long, conflicts_with = "user")]
    revoke: bool,
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let groups = Groups::open()?;
    let name = Name::parse(&flags.name)?;
    set::refuse_containers(&name)?;
    let change = Change::begin(&groups)?;
    groups.find(&name)?;
    let user = flags.user.as_deref().map(user).transpose()?;
    if user == Some(0) {
        bail!("delegate group `{name}`: it is root's\n`--revoke` takes it back");
    }
    let mut wish = Wish::new(name, Vec::new());
    wish.user = Some(user);
    change.carry_out(&[wish])?;
    Ok(0)
}
