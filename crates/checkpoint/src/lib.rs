//! Dump and restore of process trees, in CRIU's image format.
//!
//! Knows nothing of containers beyond what `docs/design/restore-interface.md` says a caller hands
//! over. One file per kernel object, its dump and its restore side by side.

mod arch;
mod creds;
mod dump;
mod error;
mod external;
mod files;
mod freeze;
mod freezer;
mod ids;
pub mod image;
mod inject;
mod inner;
mod lock;
mod memory;
mod mount;
mod namespace;
mod pages;
mod procfs;
mod remote;
mod restore;
mod shared_memory;
mod tape;
mod task;
mod timer;

pub use dump::{Afterwards, DumpOptions, DumpStatistics, dump};
pub use error::{Error, Result};
pub use external::External;
pub use restore::{Place, RestoreOptions, Restored, Stage, restore, restore_with};
pub use sys::namespace::Kind as NamespaceKind;
