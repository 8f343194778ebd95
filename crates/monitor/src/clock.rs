//! The wall clock and its RFC 3339 text, with nanoseconds, in UTC.

use rustix::time::{ClockId, clock_gettime};

const DAY: i64 = 86_400;

/// A moment of the wall clock: nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i128);

impl Moment {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Realtime);
        Self(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec))
    }

    /// Reads `2026-11-22T03:04:05[.fraction](Z|+hh:mm)`; `None` if it is no such text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, clock) = text.split_once(['T', ' '])?;
        let mut date = date.splitn(3, '-');
        let (year, month, day) = (date.next()?, date.next()?, date.next()?);
        let days = days_from_civil(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
        let (clock, offset) = split_offset(clock)?;
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
        let hour = clock.next()?.ok()?;
        let minute = clock.next()?.ok()?;
        let second = clock.next().unwrap_or(Ok(0)).ok()?;
        if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..61).contains(&second) {
            return None;
        }
        let nanos: i128 = match fraction {
            "" => 0,
            digits if digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                format!("{digits:0<9}").parse().ok()?
            }
            _ => return None,
        };
        let seconds = days * DAY + hour * 3600 + minute * 60 + second - offset;
        Some(Self(i128::from(seconds) * 1_000_000_000 + nanos))
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        i64::try_from(self.0.div_euclid(1_000_000_000)).unwrap_or(i64::MAX)
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.seconds();
        let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
        let second = seconds.rem_euclid(DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let nanos = self.0.rem_euclid(1_000_000_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z"
        )
    }
}

/// Splits the zone off; its offset in seconds east of UTC.
fn split_offset(clock: &str) -> Option<(&str, i64)> {
    if let Some(clock) = clock.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = clock.rfind(['+', '-']) else {
        return Some((clock, 0));
    };
    let (clock, zone) = clock.split_at(at);
    let (hour, minute) = zone[1..].split_once(':')?;
    let offset = hour.parse::<i64>().ok()? * 3600 + minute.parse::<i64>().ok()? * 60;
    Some((
        clock,
        if zone.starts_with('-') {
            -offset
        } else {
            offset
        },
    ))
}

/// Days since 1970 of a date of the Gregorian calendar; years start in March, so that the leap
/// day is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_moment_agree() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00.000000000Z", 0, 0),
            ("2000-02-29T12:00:01.500000000Z", 951_825_601, 500_000_000),
            ("2026-11-22T03:04:05.000000007Z", 1_795_316_645, 7),
            ("2100-03-01T00:00:00.000000000Z", 4_107_542_400_i64, 0),
        ] {
            let moment = Moment(i128::from(seconds) * 1_000_000_000 + nanos);
            assert_eq!(moment.to_string(), text);
            assert_eq!(Moment::parse(text), Some(moment), "{text}");
        }
    }

    #[test]
    fn zones_and_short_forms_are_read() {
        let utc = Moment::parse("2026-11-22T03:04:05Z");
        assert!(utc.is_some());
        assert_eq!(Moment::parse("2026-11-22T05:04:05+02:00"), utc);
        assert_eq!(Moment::parse("2026-11-22 03:04:05"), utc);
        for wrong in [
            "",
            "2026",
            "2026-11-22",
            "2026-11-22T25:00:00Z",
            "x-y-zTa:b:c",
        ] {
            assert_eq!(Moment::parse(wrong), None, "{wrong}");
        }
    }
}
