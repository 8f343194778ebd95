//! `cargo xtask ci`: every check, then the tests, then virtual machines with other kernels and layouts.

use crate::debian::output;
use crate::test::{self, Results, report, vms};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// What `floe-oci` may weigh: it is read and sealed at each start of a container.
const MAX_SIZE: u64 = 3 << 20;
const MAX_PACKAGES: usize = 80;
/// What a virtual machine with the short list of tests may take; without that much time it is left to
/// `cargo xtask test --all`.
const ROUND: Duration = Duration::from_secs(240);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds that everything may take
    #[arg(long, default_value_t = 1140)]
    seconds: u64,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut results = Results::default();
    // The cold build first: it is measured, and nothing else may run beside it.
    for (name, check) in CHECKS {
        results.add(one(name, *check));
    }
    let tests = test::Options {
        jobs: 3,
        timeout: 240,
        ..test::Options::default()
    };
    results.add(test::on_host(&tests).unwrap_or_else(|error| failure("tests", &error)));
    for round in &vms::ROUNDS {
        let left = end.saturating_duration_since(Instant::now());
        if left < ROUND {
            println!("no time left for a virtual machine: {}", round.name());
            continue;
        }
        results.add(vms::run(round, &tests, left)?);
    }
    Ok(report::print(&results, test::strict()))
}

type Check = fn() -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("release build of floe-oci", builds),
    ("size of floe-oci", is_small),
    ("packages of floe-oci", has_few_packages),
    ("main job", main_job),
    ("man pages and completions", || {
        let options = crate::man::Options::default();
        crate::man::run(&options).map(drop)
    }),
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("lints", || {
        cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
    }),
];

fn one(name: &str, check: Check) -> Results {
    let start = Instant::now();
    let result = check();
    let time = start.elapsed();
    let word = if result.is_ok() { "ok" } else { "FAIL" };
    println!("{word:<5}{:7.2} s  {name}", time.as_secs_f64());
    let mut results = result.map_or_else(
        |error| failure(name, &error),
        |()| Results {
            passed: 1,
            ..Results::default()
        },
    );
    results.times.push((time, name.to_owned()));
    results
}

fn failure(name: &str, error: &anyhow::Error) -> Results {
    println!("{name}: {error:#}");
    Results {
        failed: vec![(name.to_owned(), format!("{error:#}"))],
        ..Results::default()
    }
}

pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    let mut command = Command::new(cargo_program());
    let status = command
        .args(args)
        .current_dir(crate::workspace())
        .status()
        .context("execute cargo")?;
    ensure!(status.success(), "cargo {}: {status}", args.join(" "));
    Ok(())
}

/// The time is told, not judged: it belongs to `cargo xtask bench`, on a machine with nothing else to do.
fn builds() -> Result<()> {
    let time = cold_build()?;
    println!("a cold build of floe-oci takes {:.0} s", time.as_secs_f64());
    Ok(())
}

/// How long a build of floe-oci from nothing takes: in place where nothing is built yet.
pub(crate) fn cold_build() -> Result<Duration> {
    let mut build = vec!["build", "--quiet", "--release", "--package", "floe-oci"];
    let temporary = tempfile::Builder::new()
        .prefix("cold.")
        .tempdir_in(crate::workspace().join("target"))?;
    if crate::programs("release")?.exists() {
        build.extend([
            "--target-dir",
            temporary.path().to_str().context("a path in UTF-8")?,
        ]);
    }
    let start = Instant::now();
    cargo(&build)?;
    Ok(start.elapsed())
}

fn is_small() -> Result<()> {
    cargo(&[
        "build",
        "--quiet",
        "--release",
        "--package",
        "floe-oci",
        "--package",
        "floe",
        "--package",
        "floed",
    ])?;
    let file = crate::programs("release")?.join("floe-oci");
    let size = fs::metadata(&file)
        .with_context(|| format!("look at `{}`", file.display()))?
        .len();
    println!("floe-oci is {:.2} MiB", size as f64 / 1_048_576.0);
    ensure!(size <= MAX_SIZE, "more than {MAX_SIZE} bytes");
    Ok(())
}

/// The first command of README.md.
fn main_job() -> Result<()> {
    let mut command = Command::new(cargo_program());
    command.args([
        "run",
        "--quiet",
        "--release",
        "--bin",
        "floe",
        "--",
        "run",
        "--",
        "sh",
        "-c",
    ]);
    command
        .arg("rm -r /usr/share && ls /usr")
        .current_dir(crate::workspace());
    let text = output(&mut command)?;
    let names: Vec<&str> = text.lines().collect();
    ensure!(
        names.contains(&"bin") && !names.contains(&"share"),
        "it prints {text:?}"
    );
    ensure!(Path::new("/usr/share").is_dir(), "the host lost /usr/share");
    Ok(())
}

fn has_few_packages() -> Result<()> {
    let count = packages()?.len();
    println!("floe-oci has {count} packages in its normal dependency tree");
    ensure!(count <= MAX_PACKAGES, "more than {MAX_PACKAGES}");
    Ok(())
}

/// The packages that go into `floe-oci`, itself among them; no build or development dependencies.
pub(crate) fn packages() -> Result<BTreeSet<String>> {
    let mut command = Command::new(cargo_program());
    command.args([
        "tree",
        "--package",
        "floe-oci",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let text = output(command.current_dir(crate::workspace()))?;
    let name = |line: &str| line.split(" (").next().unwrap_or(line).trim().to_owned();
    Ok(text
        .lines()
        .map(name)
        .filter(|line| !line.is_empty())
        .collect())
}

fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
