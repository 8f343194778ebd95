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
mod host;
mod ids;
pub mod image;
mod inject;
mod inner;
mod ipc;
mod lock;
mod memory;
mod mount;
mod namespace;
mod network_lock;
mod obstacle;
mod pages;
mod procfs;
mod remote;
mod restore;
mod seccomp;
mod shared_memory;
mod summary;
mod tape;
mod task;
mod timer;

pub use dump::{Afterwards, DumpOptions, DumpStatistics, dump};
pub use error::{Error, Result};
pub use external::External;
pub use network_lock::NetworkLock;
pub use restore::{Place, RestoreOptions, Restored, Stage, restore, restore_with};
pub use summary::{FileSummary, ProcessState, ProcessSummary, Summary, summarize};
pub use sys::namespace::Kind as NamespaceKind;
