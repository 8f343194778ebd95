//! The end of a run: what was slow, what was skipped and why, and the counts.

use super::Results;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Prints the report; its last line is `N passed, N failed, N skipped`.
pub(crate) fn print(results: &Results, strict: bool) -> ExitCode {
    let mut times: Vec<_> = results.times.iter().collect();
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
    if !results.skipped.is_empty() {
        println!(
            "\nskipped{}:",
            if strict {
                ", which is a failure here (FLOE_STRICT=1)"
            } else {
                ""
            }
        );
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, reason) in &results.skipped {
            reasons.entry(reason).or_default().push(name);
        }
        for (reason, names) in reasons {
            println!("  {reason}: {}", names.join(", "));
        }
    }
    if !results.failed.is_empty() {
        println!("\nfailed:");
        for (name, _) in &results.failed {
            println!("  {name}");
        }
    }
    println!(
        "\n{} passed, {} failed, {} skipped",
        results.passed,
        results.failed.len(),
        results.skipped.len()
    );
    let skips_matter = strict && !results.skipped.is_empty();
    let good = results.passed > 0 && results.failed.is_empty() && !skips_matter;
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
