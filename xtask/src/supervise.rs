//! One command under a subreaper with a time limit.
//!
//! Problem: a test's orphans go to process 1, which may reap them late or never, so that a dead
//! container looks alive; and a test that hangs or fails leaves processes. Here the test's orphans come
//! to this process: it reaps them at once, and when the test has ended it kills what is left and says so.

use anyhow::{Context as _, Result};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, wait,
};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The exit status when the time was up, as timeout(1) has it.
pub(crate) const TIMED_OUT: u8 = 124;
/// The exit status when the command succeeded but left processes.
pub(crate) const LEFT_PROCESSES: u8 = 123;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds until everything is killed
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    set_child_subreaper(Some(getpid())).context("become a subreaper")?;
    let (program, args) = options.command.split_first().context("a command")?;
    let mut command = Command::new(program);
    let child = command.args(args).process_group(0).spawn();
    let child = child.with_context(|| format!("execute `{program}`"))?;
    let child = Pid::from_child(&child);
    let end = Instant::now() + Duration::from_secs(options.timeout);
    let Some(code) = reap_until(child, end) else {
        println!(
            "timed out after {} s; what ran:{}",
            options.timeout,
            describe(&children())
        );
        let _ = kill_process_group(child, Signal::KILL);
        kill_children(Duration::from_secs(5));
        return Ok(ExitCode::from(TIMED_OUT));
    };
    // What a container's monitor does after its last client has gone may take a moment.
    let settle = Instant::now() + Duration::from_secs(1);
    while !children().is_empty() && Instant::now() < settle {
        reap_zombies();
        std::thread::sleep(Duration::from_millis(5));
    }
    let left = children();
    if left.is_empty() {
        return Ok(ExitCode::from(code));
    }
    println!("the test left processes:{}", describe(&left));
    kill_children(Duration::from_secs(5));
    Ok(ExitCode::from(if code == 0 {
        LEFT_PROCESSES
    } else {
        code
    }))
}

/// Reaps whatever ends, until `child` has: its exit status as a shell shows it, or `None` at `end`.
fn reap_until(child: Pid, end: Instant) -> Option<u8> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => {
                let code = status
                    .exit_status()
                    .or(status.terminating_signal().map(|signal| 128 + signal));
                return Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255));
            }
            Ok(Some(_)) => {}
            _ if Instant::now() >= end => return None,
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn reap_zombies() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Kills children, and the orphans that come after them, until there are none.
fn kill_children(limit: Duration) {
    let end = Instant::now() + limit;
    loop {
        reap_zombies();
        let left = children();
        if left.is_empty() || Instant::now() >= end {
            return;
        }
        for (pid, _) in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Living children of this process, with their command lines.
fn children() -> Vec<(Pid, String)> {
    let me = getpid().as_raw_nonzero().get();
    let list = fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
    let pids = list
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter_map(Pid::from_raw);
    let living = pids.filter_map(|pid| {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
        // A zombie's command line is empty.
        (!line.is_empty()).then(|| (pid, line.replace('\0', " ")))
    });
    living.collect()
}

fn describe(processes: &[(Pid, String)]) -> String {
    processes
        .iter()
        .map(|(pid, line)| format!("\n  {} {line}", pid.as_raw_nonzero()))
        .collect()
}
