//! `cargo xtask test`: unit tests per program, every integration test in a process of its own.
//!
//! Umask, working directory, namespaces, signal masks and the subreaper flag belong to a process, so
//! tests of them must not share one. The plan is made from the programs' own lists of tests; the last
//! line is `N passed, N failed, N skipped`.

mod build;
pub(crate) mod report;
mod results;
mod run;
pub(crate) mod vms;

use anyhow::Result;
pub(crate) use results::Results;
use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct Options {
    /// Run only tests whose name contains this (`program::module::test`)
    pub(crate) filter: Option<String>,
    /// Leave out tests whose name contains one of these
    #[arg(long, value_name = "TEXT,…", value_delimiter = ',')]
    pub(crate) except: Vec<String>,
    /// Run the long tests too, those marked `#[ignore]`, and the root tests in virtual machines
    #[arg(long)]
    pub(crate) all: bool,
    /// How many root tests run at a time
    #[arg(long, default_value_t = 3)]
    pub(crate) jobs: usize,
    /// Seconds that a root test may take
    #[arg(long, default_value_t = 240)]
    pub(crate) timeout: u64,
    /// Print every test's output, not only that of failures
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// Build nothing; run the root tests that this file lists
    #[arg(long, hide = true, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(file) = &options.plan {
        return in_guest(&build::load(file)?, options);
    }
    let mut results = on_host(options)?;
    if options.all {
        for round in &vms::ROUNDS {
            results.add(vms::run(round, options, Duration::from_secs(3600))?);
        }
    }
    Ok(report::print(&results, strict()))
}

/// Everything that this machine can run.
pub(crate) fn on_host(options: &Options) -> Result<Results> {
    let jobs = run::plan(&build::test_programs()?, options)?;
    run::all(&jobs, options)
}

/// Inside a virtual machine: the results go to the host, which makes the report.
fn in_guest(programs: &[build::Program], options: &Options) -> Result<ExitCode> {
    let results = run::all(&run::plan(programs, options)?, options)?;
    if let Some(file) = env::var_os("FLOE_VM_RESULT") {
        std::fs::write(file, results.to_json())?;
    }
    Ok(report::print(&results, false))
}

/// Builds, and writes down the root tests for a machine without cargo.
pub(crate) fn save_plan() -> Result<PathBuf> {
    let root: Vec<_> = build::test_programs()?
        .into_iter()
        .filter(build::Program::needs_root)
        .collect();
    let file = crate::workspace().join("target/vm-plan.json");
    build::save(&root, &file)?;
    Ok(file)
}

/// Whether a skip is a failure.
pub(crate) fn strict() -> bool {
    env::var_os("FLOE_STRICT").is_some_and(|value| value == "1")
}
