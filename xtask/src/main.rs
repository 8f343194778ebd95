//! The tasks of floe's developers: `cargo xtask TASK`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's tool talks"
)]

mod supervise;
mod test;

use clap::{Parser, Subcommand};
use std::path::Path;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Build, test, benchmark",
    arg_required_else_help = true
)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build and run the tests, each root test in a process of its own
    Test(test::Options),
    /// Run one command under a subreaper with a time limit (what `test` runs each root test in)
    #[command(hide = true)]
    Supervise(supervise::Options),
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Supervise(options) => supervise::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// The directory of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}
