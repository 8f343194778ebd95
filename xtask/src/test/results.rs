//! What tests came to, here or in a virtual machine.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// A test's name with its output or a reason.
pub(crate) type Remark = (String, String);

/// The outcome of one job, or the sum of many.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) passed: usize,
    /// Name and output of each failure.
    pub(crate) failed: Vec<Remark>,
    /// Name and reason of each skip: something is missing that could be installed.
    pub(crate) skipped: Vec<Remark>,
    /// Name and reason of each test that needs another kernel or layout, as the virtual machines have.
    pub(crate) elsewhere: Vec<Remark>,
    /// The root tests that passed, by name.
    pub(crate) ran: BTreeSet<String>,
    /// Tests that only `--all` runs.
    pub(crate) long: usize,
    /// The slowest, to look at when the run gets long.
    pub(crate) times: Vec<(Duration, String)>,
}

impl Results {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.elsewhere.extend(other.elsewhere);
        self.ran.extend(other.ran);
        self.long += other.long;
        self.times.extend(other.times);
    }

    /// Adds what a virtual machine found, its names marked; what it cannot run, the host does not miss.
    pub(crate) fn add_guest(&mut self, guest: Self, machine: &str) {
        let marked = |(name, text): Remark| (format!("{name} ({machine})"), text);
        self.passed += guest.passed;
        self.failed.extend(guest.failed.into_iter().map(marked));
        self.ran.extend(guest.ran);
    }

    /// Tests that need another machine, and ran on none of those in these results.
    pub(crate) fn nowhere(&self) -> Vec<&Remark> {
        self.elsewhere
            .iter()
            .filter(|(name, _)| !self.ran.contains(name))
            .collect()
    }

    pub(crate) fn to_json(&self) -> String {
        json!([
            self.passed,
            self.failed,
            self.skipped,
            self.elsewhere,
            self.ran
        ])
        .to_string()
    }

    pub(crate) fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("read the guest's results")?;
        let (passed, failed, skipped, elsewhere, ran) = serde_json::from_value(value)?;
        Ok(Self {
            passed,
            failed,
            skipped,
            elsewhere,
            ran,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Results;

    fn remark(name: &str) -> (String, String) {
        (name.to_owned(), "needs v2".to_owned())
    }

    #[test]
    fn what_ran_in_a_guest_is_not_missing() {
        let mut host = Results {
            passed: 1,
            elsewhere: vec![remark("a"), remark("b")],
            ..Results::default()
        };
        let guest = Results {
            passed: 1,
            ran: ["a".to_owned()].into(),
            elsewhere: vec![remark("c")],
            ..Results::default()
        };
        host.add_guest(
            Results::from_json(&guest.to_json()).expect("what to_json wrote"),
            "6.1 v2",
        );
        assert_eq!(host.passed, 2);
        assert_eq!(host.nowhere(), [&remark("b")]);
    }
}
