//! Resource groups over cgroup v1, hybrid and v2: one vocabulary on every layout.
//!
//! [`Layout`] says where the host keeps its hierarchies, [`Group`] is a place in all of them,
//! [`Resources`] what to allow a group. Decisions are pure ([`plan`], [`Layout::from_texts`]);
//! their application is thin. `docs/design/cgroup-layouts.md` has the reasons.

mod assembler;
mod controller;
mod dbus;
pub mod devices;
mod error;
mod file;
pub mod group;
pub mod layout;
pub mod net;
pub mod plan;
pub mod resources;
pub mod stats;
pub mod systemd;
pub mod vocabulary;
pub mod watch;

pub use controller::{Controller, Controllers};
pub use error::{Error, Result};
pub use group::{Group, Name, Request};
pub use layout::Layout;
pub use plan::plan;
pub use resources::Resources;
pub use stats::Stats;
