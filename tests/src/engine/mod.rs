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

use std::path::PathBuf;
use std::process::Command;

pub use cli::{Engine, Kind, Running};
pub use containerd::Containerd;
pub use group::{Limit, unmounted_hierarchy};
pub use image::IMAGE;
pub use sandbox::Sandbox;
pub use steps::{Case, all};

/// The root file system with the newest engines, which `cargo xtask peers` makes; `None` if it cannot.
#[must_use]
pub fn newest_root() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    let command = command
        .args(["xtask", "peers", "engines"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(PathBuf::from)
}
