//! Docker, containerd and Podman with the runtime under test: each in a sandbox, with an image made on the spot.
//!
//! ```no_run
//! let engine = tests::engine::Engine::docker(&[]).expect("docker and busybox are installed");
//! engine.run(&["--user=1000"], &["id", "-u"]).succeeds().prints("1000\n");
//! ```

mod cli;
pub mod containerd;
pub mod group;
pub mod image;
mod sandbox;
mod steps;

pub use cli::{Engine, Kind, Running};
pub use containerd::Containerd;
pub use group::{Limit, unmounted_hierarchy};
pub use image::IMAGE;
pub use sandbox::Sandbox;
pub use steps::{Case, all};
