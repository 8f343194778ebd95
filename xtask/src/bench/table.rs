//! The measurements as a table for people, and as the page in docs.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;

/// The columns, in the order of the table.
const NAMES: [&str; 4] = ["floor", "floe-oci", "crun", "runc"];

/// The whole report as Markdown.
pub(crate) fn markdown(report: &Value) -> String {
    let mut text = String::new();
    let machine = &report["machine"];
    let word = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let _ = writeln!(
        text,
        "Machine: {}, {} cores, Linux {}, load {} at the end.",
        word(&machine["cpu"]),
        machine["cores"],
        word(&machine["kernel"]),
        word(&machine["load"])
    );
    for (name, version) in report["versions"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "{name}: {}", word(version));
    }
    for (name, error) in report["errors"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "{name} was not measured: {}", word(error));
    }
    runtimes(report, &mut text);
    goals(report, &mut text);
    text
}

/// One column per runtime.
fn runtimes(report: &Value, text: &mut String) {
    let _ = writeln!(
        text,
        "\n| | floor | floe-oci | crun | runc |\n|---|---|---|---|---|"
    );
    for (title, path) in [
        ("`run` of a static program, median ms", "/start/NAME/median"),
        ("tenth percentile", "/start/NAME/p10"),
        ("ninetieth percentile", "/start/NAME/p90"),
        (
            "created and deleted per second, 1 at a time",
            "/parallel/NAME/1",
        ),
        ("2 at a time", "/parallel/NAME/2"),
        ("4 at a time", "/parallel/NAME/4"),
        ("8 at a time", "/parallel/NAME/8"),
        (
            "create and delete beside 10 others, median ms",
            "/existing/NAME/10/median",
        ),
        ("beside 500 others", "/existing/NAME/500/median"),
        (
            "processes that stay beside the container's",
            "/resident/NAME",
        ),
    ] {
        let cells = NAMES.map(|name| {
            let value = report.pointer(&path.replace("NAME", name));
            value.map_or_else(|| "–".to_owned(), Value::to_string)
        });
        if cells.iter().any(|cell| cell != "–") {
            let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
        }
    }
}

/// What was promised beside what was measured.
fn goals(report: &Value, text: &mut String) {
    text.push('\n');
    for (peer, limit) in [("crun", 0.7), ("runc", 0.2)] {
        let median = |name: &str| {
            report
                .pointer(&format!("/start/{name}/median"))
                .and_then(Value::as_f64)
        };
        if let Some((ours, theirs)) = median("floe-oci").zip(median(peer)) {
            let _ = writeln!(
                text,
                "- floe-oci takes {:.2} × {peer}'s median (goal: {limit}).",
                ours / theirs
            );
        }
    }
    let size = report["size"].as_f64().unwrap_or_default() / 1_048_576.0;
    let _ = writeln!(
        text,
        "- floe-oci is {size:.2} MiB (at most 3) of {} packages (at most 80).",
        report["packages"]
    );
    if let Some(seconds) = report["cold_build_seconds"].as_f64() {
        let _ = writeln!(
            text,
            "- A cold release build of floe-oci takes {seconds:.0} s (at most 120)."
        );
    }
    match (&report["monitor"]["pss"], &report["monitor"]["private"]) {
        (Value::Number(pss), Value::Number(private)) => {
            let _ = writeln!(
                text,
                "- The monitor of `floe run -d` holds {pss} KiB PSS (at most 1024), {private} KiB of it private (at most 512)."
            );
        }
        _ => {
            let _ = writeln!(
                text,
                "- The monitor of `floe run -d` was not measured: {}.",
                report["monitor"]["error"]
            );
        }
    }
}

const BEGIN: &str = "<!-- measured -->\n";
const END: &str = "<!-- end -->\n";

/// Replaces what docs/performance.md holds between its two marks.
pub(crate) fn write(table: &str, command: &str) -> Result<()> {
    let file = crate::workspace().join("docs/performance.md");
    let old = fs::read_to_string(&file).context("read docs/performance.md")?;
    let (before, rest) = old
        .split_once(BEGIN)
        .context("docs/performance.md has no mark")?;
    let (_, after) = rest
        .split_once(END)
        .context("docs/performance.md has no end mark")?;
    fs::write(
        file,
        format!("{before}{BEGIN}`{command}`\n\n{table}{END}{after}"),
    )?;
    Ok(())
}
