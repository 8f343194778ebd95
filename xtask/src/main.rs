//! The tasks of floe's developers: `cargo xtask TASK`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's tool talks"
)]

mod bench;
mod ci;
mod debian;
mod man;
mod peers;
mod supervise;
mod test;
mod vm;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
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
    /// Get the newest runtimes or engines, to compare with
    Peers(peers::Options),
    /// Measure floe-oci beside the newest crun and runc
    Bench(bench::Options),
    /// Make man pages and shell completions
    Man(man::Options),
    /// Every check, the tests, and virtual machines for as long as time is left
    Ci(ci::Options),
    /// Run one command under a subreaper with a time limit (what `test` runs each root test in)
    #[command(hide = true)]
    Supervise(supervise::Options),
    /// Run a command, or the root tests, under another kernel and layout of resource groups
    Vm(vm::Options),
    /// Inside a virtual machine: prepare it and run its command
    #[command(hide = true)]
    Guest,
}

fn main() -> ExitCode {
    if vm::guest::is_init() {
        return finish(vm::guest::init());
    }
    let result = match Args::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Ci(options) => ci::run(&options),
        Task::Peers(options) => peers::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Man(options) => man::run(&options),
        Task::Supervise(options) => supervise::run(&options),
        Task::Vm(options) => vm::run(&options),
        Task::Guest => vm::guest::second(),
    };
    finish(result)
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
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

/// The directory of the programs that cargo built with this profile: this program lies in a sibling of it.
fn programs(profile: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let target = this
        .parent()
        .and_then(Path::parent)
        .context("target/TRIPLE/PROFILE/xtask")?;
    Ok(target.join(profile))
}
