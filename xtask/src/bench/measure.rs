//! Times and what to make of them.

use serde_json::{Value, json};
use std::time::Duration;

/// A sample of times.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Median and the tenth and ninetieth percentile, in milliseconds.
    pub(crate) fn summary(&mut self) -> Value {
        self.0.sort();
        json!({"median": self.quantile(50), "p10": self.quantile(10), "p90": self.quantile(90), "count": self.0.len()})
    }

    fn quantile(&self, percent: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let time = self
            .0
            .get((last * percent + 50) / 100)
            .copied()
            .unwrap_or_default();
        (time.as_secs_f64() * 1e6).round() / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::Times;
    use std::time::Duration;

    #[test]
    fn summary_of_a_hundred_and_one() {
        let mut times = Times((0..=100).rev().map(Duration::from_millis).collect());
        let summary = times.summary();
        assert_eq!(
            (&summary["p10"], &summary["median"], &summary["p90"]),
            (&10.0.into(), &50.0.into(), &90.0.into())
        );
    }
}
