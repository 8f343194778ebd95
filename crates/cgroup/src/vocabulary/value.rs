//! Values and the units in which people write them.

use crate::net::Policy;
use crate::resources::Limit;

use super::rates::Rates;

/// What a key's value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// `512M`, `1.5G`, `4096` or `max`; powers of 1024.
    Bytes,
    /// A number or `max`.
    Count,
    /// `150%` of one processor, or `max`; also `QUOTA PERIOD` in microseconds.
    Bandwidth,
    /// `20ms`, `1s`, `500us`.
    Time,
    /// A whole number between these.
    Number { least: u64, most: u64 },
    /// `0` or `1`; also `off`, `on`.
    Switch,
    /// `12.5`: percent.
    Percent,
    /// `0-3,7`, or `inherit`: what the parent has.
    List,
    /// `8:0 rbps=10M wbps=max riops=100 wiops=max`, devices separated by `;`.
    Rates,
    /// `deny; allow tcp 10.0.0.0/8:443`
    Policy,
    /// One of these words.
    Word(&'static [&'static str]),
    /// As the kernel has it.
    Text,
}

/// A value, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Limit(Limit),
    /// Microseconds of processor time in each period; `None` leaves the period as it is.
    Bandwidth {
        quota: Limit,
        period: Option<u64>,
    },
    /// A weight, microseconds, hundredths of a percent, or 0 and 1 for a switch.
    Number(u64),
    /// `None` = the parent's.
    List(Option<Vec<u32>>),
    Rates(Vec<Rates>),
    Policy(Policy),
    Text(String),
}

/// The kernel's own period, in microseconds.
pub(super) const PERIOD: u64 = 100_000;

/// The least quota and period that the kernel takes, in microseconds.
const SHORTEST: u64 = 1000;

impl Value {
    /// Reads a value as people write it. The error is a cause, without the value.
    pub(super) fn parse(unit: Unit, text: &str) -> Result<Self, String> {
        let wrong = || unit.expectation();
        Ok(match unit {
            Unit::Bytes => Self::Limit(limit(text, bytes).ok_or_else(wrong)?),
            Unit::Count => Self::Limit(limit(text, whole).ok_or_else(wrong)?),
            Unit::Bandwidth => bandwidth(text).ok_or_else(wrong)?,
            Unit::Time => Self::Number(time(text).ok_or_else(wrong)?),
            Unit::Number { least, most } => {
                let number = whole(text).filter(|number| (least..=most).contains(number));
                Self::Number(number.ok_or_else(wrong)?)
            }
            Unit::Switch => Self::Number(match text {
                "1" | "on" | "true" => 1,
                "0" | "off" | "false" => 0,
                _ => return Err(wrong()),
            }),
            Unit::Percent => {
                let number = hundredths(text.strip_suffix('%').unwrap_or(text));
                Self::Number(number.filter(|n| *n <= 10_000).ok_or_else(wrong)?)
            }
            Unit::List => Self::List(match text {
                "inherit" => None,
                list => Some(numbers(list).ok_or_else(wrong)?),
            }),
            Unit::Rates => Self::Rates(Rates::parse_all(text)?),
            Unit::Policy => Self::Policy(Policy::parse(text).map_err(|error| error.to_string())?),
            Unit::Word(words) => match words.iter().find(|word| **word == text) {
                Some(word) => Self::Text((*word).to_owned()),
                None => return Err(wrong()),
            },
            Unit::Text if text.is_empty() => return Err(wrong()),
            Unit::Text => Self::Text(text.to_owned()),
        })
    }

    /// The value as people write it, in the largest unit that loses nothing.
    #[must_use]
    pub fn print(&self, unit: Unit) -> String {
        match (self, unit) {
            (Self::Limit(Limit::Unlimited), _) => "max".to_owned(),
            (Self::Limit(Limit::Max(value)), Unit::Bytes) => print_bytes(*value),
            (Self::Limit(Limit::Max(value)), _) => value.to_string(),
            (Self::Bandwidth { quota, period }, _) => print_bandwidth(*quota, *period),
            (Self::Number(value), Unit::Time) => print_time(*value),
            (Self::Number(value), Unit::Percent) => print_hundredths(*value),
            (Self::Number(value), _) => value.to_string(),
            (Self::List(None), _) => "inherit".to_owned(),
            (Self::List(Some(list)), _) => print_numbers(list),
            (Self::Rates(rates), _) => {
                let rates: Vec<String> = rates.iter().map(Rates::print).collect();
                rates.join("; ")
            }
            (Self::Policy(policy), _) => policy.to_string(),
            (Self::Text(text), _) => text.clone(),
        }
    }
}

impl Unit {
    /// What a value looks like, as the cause of an error.
    #[must_use]
    pub fn expectation(self) -> String {
        match self {
            Self::Bytes => "a size such as 512M, or max".to_owned(),
            Self::Count => "a number, or max".to_owned(),
            Self::Bandwidth => "a share such as 150%, or max".to_owned(),
            Self::Time => "a time such as 20ms".to_owned(),
            Self::Number { least, most } => format!("a number from {least} to {most}"),
            Self::Switch => "0 or 1".to_owned(),
            Self::Percent => "a percentage from 0 to 100".to_owned(),
            Self::List => "a list such as 0-2,4, or inherit".to_owned(),
            Self::Rates => "devices and rates such as 8:0 rbps=10M wiops=100".to_owned(),
            Self::Policy => "a policy such as deny; allow tcp 10.0.0.0/8:443".to_owned(),
            Self::Word(words) => words.join(" or "),
            Self::Text => "a value as the kernel has it".to_owned(),
        }
    }
}

fn limit(text: &str, parse: impl Fn(&str) -> Option<u64>) -> Option<Limit> {
    match text {
        "max" | "unlimited" | "-1" => Some(Limit::Unlimited),
        text => parse(text).map(Limit::Max),
    }
}

fn whole(text: &str) -> Option<u64> {
    // `parse` would take a plus sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// `512M`, `512MiB`, `1.5g`, `4096`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    scaled(digits, 1 << shift)
}

/// A decimal number times `scale`, rounded down.
fn scaled(text: &str, scale: u64) -> Option<u64> {
    let (whole_part, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let ten = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = u128::from(whole(fraction)?) * u128::from(scale) / ten;
    let whole_part = u128::from(whole(whole_part)?) * u128::from(scale);
    u64::try_from(whole_part + fraction).ok()
}

pub(super) fn print_bytes(value: u64) -> String {
    let units = ["", "K", "M", "G", "T"];
    let mut rest = value;
    let mut unit = 0;
    while rest != 0 && rest.is_multiple_of(1024) && unit + 1 < units.len() {
        rest /= 1024;
        unit += 1;
    }
    format!("{rest}{}", units[unit])
}

fn bandwidth(text: &str) -> Option<Value> {
    let value = |quota, period| Some(Value::Bandwidth { quota, period });
    if text == "max" {
        return value(Limit::Unlimited, None);
    }
    if let Some(percent) = text.strip_suffix('%') {
        // Hundredths of a percent of 100 ms are tens of microseconds: 150 % is 150,000.
        let quota = hundredths(percent)?.checked_mul(PERIOD / 10_000)?;
        return (quota >= SHORTEST).then(|| value(Limit::Max(quota), None))?;
    }
    let (quota, period) = text.split_once(' ')?;
    let (quota, period) = (limit(quota, whole)?, whole(period.trim())?);
    let long_enough = period >= SHORTEST && !Limit::Max(SHORTEST).exceeds(quota);
    long_enough.then(|| value(quota, Some(period)))?
}

fn print_bandwidth(quota: Limit, period: Option<u64>) -> String {
    let period = period.unwrap_or(PERIOD).max(1);
    match quota {
        Limit::Unlimited => "max".to_owned(),
        Limit::Max(quota) => {
            let share = u128::from(quota) * 10_000 / u128::from(period);
            let share = print_hundredths(u64::try_from(share).unwrap_or(u64::MAX));
            format!("{share}%")
        }
    }
}

fn hundredths(text: &str) -> Option<u64> {
    scaled(text, 100)
}

fn print_hundredths(value: u64) -> String {
    match (value / 100, value % 100) {
        (whole, 0) => whole.to_string(),
        (whole, rest) if rest.is_multiple_of(10) => format!("{whole}.{}", rest / 10),
        (whole, rest) => format!("{whole}.{rest:02}"),
    }
}

/// Microseconds.
fn time(text: &str) -> Option<u64> {
    for (suffix, scale) in [("us", 1), ("ms", 1000), ("s", 1_000_000)] {
        if let Some(number) = text.strip_suffix(suffix) {
            return scaled(number, scale);
        }
    }
    whole(text)
}

fn print_time(value: u64) -> String {
    match value {
        0 => "0".to_owned(),
        value if value.is_multiple_of(1_000_000) => format!("{}s", value / 1_000_000),
        value if value.is_multiple_of(1000) => format!("{}ms", value / 1000),
        value => format!("{value}us"),
    }
}

/// More than any kernel has: a bound for what a list may count up to.
const MOST_NUMBERS: u32 = 8192;

/// A list with ranges, in order and without repetition; not empty.
fn numbers(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first = u32::try_from(whole(first)?).ok()?;
        let last = u32::try_from(whole(last)?).ok()?;
        if first > last || last >= MOST_NUMBERS {
            return None;
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

/// A list with ranges, as the kernel prints it.
pub(super) fn print_numbers(list: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in list {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let print = |(first, last): &(u32, u32)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    ranges.iter().map(print).collect::<Vec<_>>().join(",")
}
