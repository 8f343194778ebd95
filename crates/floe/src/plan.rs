//! Decisions about a new container, as pure functions over values: `flags → root → spec`.

pub(crate) mod group;
pub(crate) mod identity;
pub(crate) mod mounts;
pub(crate) mod process;
pub(crate) mod resources;
pub(crate) mod root;
pub(crate) mod security;
pub(crate) mod spec;
pub(crate) mod visibility;
