//! From an OCI bundle to a running container.
//!
//! [`create`](create()) reads a bundle, decides ([`plan`]), makes groups and a first process, and
//! leads that process ([`init`]) to where it waits for [`start`](start()). What is known about a container is on
//! disk ([`record`]), so every operation is a process of its own and none stays behind.

pub mod capabilities;
mod checkpoint;
mod control;
mod create;
mod criu;
mod error;
mod events;
mod exec;
mod groups;
mod hooks;
mod id;
mod id_map;
mod init;
mod label;
mod launch;
mod plan;
mod prepare;
mod protocol;
mod query;
mod record;
mod resctrl;
mod restore;
pub mod seccomp;
pub mod spec;
mod start;

pub use checkpoint::{CgroupMode, Checkpoint, Images, checkpoint};
pub use control::{Force, Target, delete, kill, pause, resume, update};
pub use create::{Create, Created, create};
pub use error::{Error, Kind, Result, shorten};
pub use events::{follow, stats};
pub use exec::{Exec, Executed, exec};
pub use id::ContainerId;
pub use plan::mount::known_options;
pub use plan::{INNER_GROUP, Options};
pub use query::{State, list, process, processes, state};
pub use restore::{Restore, restore};
pub use start::start;
