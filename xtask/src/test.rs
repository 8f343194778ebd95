//! `cargo xtask test`: unit tests per program, every integration test in a process of its own.
//!
//! Umask, working directory, namespaces, signal masks and the subreaper flag belong to a process, so
//! tests of them must not share one. The plan is made from the programs' own lists of tests; the last
//! line is `N passed, N failed, N skipped`.

mod build;
mod report;
mod run;

use anyhow::Result;
use std::env;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// Run only tests whose name contains this (`program::module::test`)
    filter: Option<String>,
    /// Run the long tests too, those marked `#[ignore]`
    #[arg(long)]
    all: bool,
    /// How many root tests run at a time
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Seconds that a root test may take
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Print every test's output, not only that of failures
    #[arg(long, short)]
    verbose: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let programs = build::test_programs()?;
    let jobs = run::plan(&programs, options)?;
    let results = run::all(&jobs, options)?;
    Ok(report::print(&results, strict()))
}

/// Whether a skip is a failure.
fn strict() -> bool {
    env::var_os("FLOE_STRICT").is_some_and(|value| value == "1")
}

/// What one job (a root test, or a program of unit tests) came to.
#[derive(Debug, Default)]
pub(crate) struct Results {
    passed: usize,
    /// Name and output of each failure.
    failed: Vec<(String, String)>,
    /// Name and reason of each skip.
    skipped: Vec<(String, String)>,
    /// Tests that only `--all` runs.
    long: usize,
    /// The slowest, to look at when the run gets long.
    times: Vec<(Duration, String)>,
}

impl Results {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.long += other.long;
        self.times.extend(other.times);
    }
}
