//! When a container that ended is started again.

use std::time::Duration;

/// `--restart`: what to do when the container ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Leave it.
    #[default]
    No,
    /// Start it again after a status other than 0, at most this often (`None` = no limit).
    OnFailure(Option<u32>),
    /// Start it again.
    Always,
    /// Start it again, also after the host's restart, unless it was stopped by hand before.
    UnlessStopped,
}

impl Policy {
    /// Reads `no`, `on-failure[:N]`, `always` or `unless-stopped`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.split_once(':') {
            None => match text {
                "no" | "" => Self::No,
                "on-failure" => Self::OnFailure(None),
                "always" => Self::Always,
                "unless-stopped" => Self::UnlessStopped,
                _ => return None,
            },
            Some(("on-failure", count)) => Self::OnFailure(Some(count.parse().ok()?)),
            Some(_) => return None,
        })
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(count)) => write!(f, "on-failure:{count}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

/// A run that lasted this long was a success as far as waiting is concerned.
const LONG_RUN: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The restarts of one container so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct History {
    /// Restarts in all.
    pub restarts: u32,
    /// Short runs in a row, which make the wait longer.
    short_runs: u32,
}

impl History {
    /// Decides after an exit: `Some(wait)` = start again after `wait`, `None` = stay ended.
    pub fn after_exit(&mut self, policy: Policy, code: u8, ran: Duration) -> Option<Duration> {
        let again = match policy {
            Policy::No => false,
            Policy::OnFailure(limit) => {
                code != 0 && limit.is_none_or(|limit| self.restarts < limit)
            }
            Policy::Always | Policy::UnlessStopped => true,
        };
        if !again {
            return None;
        }
        self.restarts = self.restarts.saturating_add(1);
        self.short_runs = if ran >= LONG_RUN {
            0
        } else {
            self.short_runs.saturating_add(1)
        };
        let doublings = self.short_runs.saturating_sub(1).min(16);
        Some((FIRST_WAIT * (1 << doublings)).min(LONGEST_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn policies_are_read_and_written() {
        for text in [
            "no",
            "on-failure",
            "on-failure:3",
            "always",
            "unless-stopped",
        ] {
            assert_eq!(
                Policy::parse(text).map(|p| p.to_string()).as_deref(),
                Some(text)
            );
        }
        for wrong in ["maybe", "always:3", "on-failure:x", "on-failure:-1"] {
            assert_eq!(Policy::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn policy_decides_by_status() {
        for (policy, code, again) in [
            (Policy::No, 1, false),
            (Policy::OnFailure(None), 0, false),
            (Policy::OnFailure(None), 1, true),
            (Policy::OnFailure(Some(0)), 1, false),
            (Policy::Always, 0, true),
            (Policy::UnlessStopped, 0, true),
        ] {
            let wait = History::default().after_exit(policy, code, SHORT);
            assert_eq!(wait.is_some(), again, "{policy} {code}");
        }
    }

    #[test]
    fn on_failure_gives_up_after_its_count() {
        let mut history = History::default();
        let policy = Policy::OnFailure(Some(2));
        let waits: Vec<_> = (0..3)
            .map(|_| history.after_exit(policy, 1, SHORT))
            .collect();
        let millis = Duration::from_millis;
        assert_eq!(waits, [Some(millis(100)), Some(millis(200)), None]);
        assert_eq!(history.restarts, 2);
    }

    #[test]
    fn waits_grow_to_a_minute_and_a_long_run_resets_them() {
        let mut history = History::default();
        let mut last = None;
        for _ in 0..40 {
            last = history.after_exit(Policy::Always, 1, SHORT);
        }
        assert_eq!(last, Some(LONGEST_WAIT));
        assert_eq!(
            history.after_exit(Policy::Always, 1, LONG_RUN),
            Some(FIRST_WAIT)
        );
    }
}
