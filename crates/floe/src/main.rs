//! `floe`: isolate, control and look at containers.
//!
//! This program plans a container, writes the plan down as an OCI bundle, and has the OCI runtime
//! (`floe-oci`) and a monitor (`floed`) carry it out, as container engines do. No daemon: each
//! command does its work alone.

mod cli;
mod command;
mod create;
mod events;
mod flags;
mod host;
mod image;
mod inside;
mod layer;
mod output;
mod parse;
mod plan;
mod relay;
mod runtime;
mod session;
mod store;
mod terminal;
mod text;
mod userns;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => output::error(&error),
    }
}
