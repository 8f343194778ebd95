//! What `floe run -d` keeps in memory for a container.

use crate::debian::output;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The monitor's proportional and private memory in KiB, of the second of two containers.
///
/// The second, because the first alone would pay for all that monitors share.
pub(crate) fn memory(programs: &Path) -> Result<Value> {
    let floe = programs.join("floe");
    let names = ["floe-bench-1", "floe-bench-2"];
    let result = (|| {
        for name in names {
            output(Command::new(&floe).args(["run", "-d", "--name", name, "--", "sleep", "1000"]))?;
        }
        std::thread::sleep(Duration::from_millis(500));
        let monitors = monitors(&programs.join("floed"))?;
        ensure!(monitors.len() >= 2, "found {} monitors", monitors.len());
        let newest = monitors.last().context("a monitor")?;
        let rollup = fs::read_to_string(format!("/proc/{newest}/smaps_rollup"))?;
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|text| text.split_whitespace().next()?.parse().ok())
                .unwrap_or_default()
        };
        Ok(
            json!({"pss": field("Pss:"), "private": field("Private_Clean:") + field("Private_Dirty:"), "rss": field("Rss:")}),
        )
    })();
    for name in names {
        let _ = Command::new(&floe).args(["rm", "-f", name]).output();
    }
    result
}

/// Pids of the processes that run this program, in the order of their numbers.
fn monitors(program: &Path) -> Result<Vec<u32>> {
    let mut pids: Vec<u32> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.retain(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program));
    pids.sort_unstable();
    Ok(pids)
}
