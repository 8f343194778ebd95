//! `cargo xtask bench`: floe-oci beside the newest crun and runc, on the same bundle, in one run.
//!
//! Runtimes are measured in a mount namespace whose root is that of the peers and which shows the v2
//! hierarchy alone: crun refuses hybrid hosts. The floor is the same clone, mounts, pivot_root and execve
//! done directly (`tests/src/bin/floor.rs`). Numbers are of this machine and of this moment: keep it quiet.

mod inside;
mod measure;
mod monitor;
mod table;

use crate::peers::{self, Set};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Starts of each runtime
    #[arg(long, default_value_t = 200)]
    starts: usize,
    /// Containers of each round in parallel
    #[arg(long, default_value_t = 200)]
    containers: usize,
    /// Only the starts
    #[arg(long)]
    quick: bool,
    /// Measure a cold build of floe-oci too
    #[arg(long)]
    build: bool,
    /// Put the table into docs/performance.md
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    stage: inside::Stage,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.stage.root.is_some() {
        println!("{}", inside::run(options)?);
        return Ok(ExitCode::SUCCESS);
    }
    let programs = build()?;
    let root = peers::root(Set::Runtimes)?;
    let mut report = measure_inside(options, &root, &programs)?;
    report["machine"] = machine();
    report["size"] = json!(fs::metadata(programs.join("floe-oci"))?.len());
    report["packages"] = json!(crate::ci::packages()?.len());
    if !options.quick {
        report["monitor"] = monitor::memory(&programs)
            .unwrap_or_else(|error| json!({"error": format!("{error:#}")}));
    }
    if options.build {
        report["cold_build_seconds"] = json!(crate::ci::cold_build()?.as_secs_f64());
    }
    let directory = crate::workspace().join("target/bench");
    fs::create_dir_all(&directory)?;
    let file = directory.join("bench.json");
    fs::write(&file, serde_json::to_string_pretty(&report)?)?;
    let text = table::markdown(&report);
    println!("{text}\nwritten to {}", file.display());
    if options.write {
        table::write(&text, &command_line())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds what is measured, for release.
fn build() -> Result<PathBuf> {
    let packages = ["floe-oci", "floe", "floed", "tests"]
        .map(|name| ["--package", name])
        .concat();
    let mut args = vec!["build", "--quiet", "--release", "--bins"];
    args.extend(packages);
    crate::ci::cargo(&args)?;
    crate::programs("release")
}

fn measure_inside(
    options: &Options,
    root: &std::path::Path,
    programs: &std::path::Path,
) -> Result<Value> {
    let start = Instant::now();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .arg(fs::read_link("/proc/self/exe")?)
        .arg("bench");
    command
        .arg("--root")
        .arg(root)
        .arg("--programs")
        .arg(programs);
    command
        .arg(format!("--starts={}", options.starts))
        .arg(format!("--containers={}", options.containers));
    if options.quick {
        command.arg("--quick");
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("execute unshare")?;
    ensure!(
        output.status.success(),
        "the measurement: {}",
        output.status
    );
    let mut report: Value =
        serde_json::from_slice(&output.stdout).context("read the measurement")?;
    report["seconds"] = json!(start.elapsed().as_secs());
    Ok(report)
}

fn command_line() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo xtask {}", args.join(" "))
}

/// What the numbers hang on.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let model = cpu_info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).to_owned();
    let uname = rustix::system::uname();
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "kernel": uname.release().to_string_lossy(),
        "load": read("/proc/loadavg").split(' ').next(),
    })
}
