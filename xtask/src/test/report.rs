//! The end of a run: what was slow, what was skipped and why, and the counts.

use super::results::{Remark, Results};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Prints the report; its last line is `N passed, N failed, N skipped`.
///
/// With `strict`, a skip is a failure; but a test that needs another kernel or layout is not one here, as
/// installing things would not help: `--all` runs it in a virtual machine.
pub(crate) fn print(results: &Results, strict: bool) -> ExitCode {
    let mut times = results.times.clone();
    times.sort_by(|a, b| b.cmp(a));
    println!("\nslowest:");
    for (time, name) in times.iter().take(5) {
        println!("  {:7.2} s  {name}", time.as_secs_f64());
    }
    if results.long > 0 {
        println!(
            "\nlong tests not run: {} (cargo xtask test --all)",
            results.long
        );
    }
    let nowhere = results.nowhere();
    remarks(
        "need another kernel or layout of resource groups (cargo xtask test --all)",
        nowhere.iter().copied(),
    );
    let skips = if strict {
        "skipped, which is a failure here (FLOE_STRICT=1)"
    } else {
        "skipped"
    };
    remarks(skips, results.skipped.iter());
    if !results.failed.is_empty() {
        println!("\nfailed:");
        for (name, _) in &results.failed {
            println!("  {name}");
        }
    }
    let skipped = results.skipped.len() + nowhere.len();
    println!(
        "\n{} passed, {} failed, {skipped} skipped",
        results.passed,
        results.failed.len()
    );
    let skips_matter = strict && !results.skipped.is_empty();
    let good = results.passed > 0 && results.failed.is_empty() && !skips_matter;
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A list of tests by reason, or nothing.
fn remarks<'a>(title: &str, remarks: impl Iterator<Item = &'a Remark>) {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, reason) in remarks {
        reasons.entry(reason).or_default().push(name);
    }
    if reasons.is_empty() {
        return;
    }
    println!("\n{title}:");
    for (reason, names) in reasons {
        println!("  {reason}: {}", names.join(", "));
    }
}
