//! Unit properties from what floe wants of a group. Pure.

use std::collections::BTreeSet;

use super::unit::Unit;
use crate::dbus::Value;
use crate::devices::{DeviceKind, DeviceRule, Policy};
use crate::plan::{Plan, Write};

type Properties = Vec<(String, Value)>;

const INFINITY: u64 = u64::MAX;

/// What makes the unit one that holds a container.
pub(super) fn of_unit(unit: &Unit, pid: u32) -> Properties {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut all = vec![("Description".to_owned(), text("container under floe"))];
    if unit.is_slice() {
        let parent = Value::Texts(vec![unit.slice().to_owned()]);
        all.push(("Wants".to_owned(), parent));
    } else {
        all.push(("Slice".to_owned(), text(unit.slice())));
        all.push(("Delegate".to_owned(), Value::Bool(true)));
        all.push(("PIDs".to_owned(), Value::Numbers(vec![pid])));
    }
    for name in [
        "MemoryAccounting",
        "CPUAccounting",
        "IOAccounting",
        "TasksAccounting",
    ] {
        all.push((name.to_owned(), Value::Bool(true)));
    }
    // Without this the scope would be stopped in the order of ordinary services at shutdown.
    all.push(("DefaultDependencies".to_owned(), Value::Bool(false)));
    all
}

/// The properties that say the same as the plan's writes, as far as systemd has them.
pub(super) fn of_plan(plan: &Plan) -> Properties {
    let mut all = Vec::new();
    let mut bandwidth = Bandwidth::default();
    for write in &plan.writes {
        if let Some((name, value)) = of_write(write, &mut bandwidth) {
            all.push((name.to_owned(), value));
        }
    }
    bandwidth.add_to(&mut all);
    all
}

fn of_write(write: &Write, bandwidth: &mut Bandwidth) -> Option<(&'static str, Value)> {
    let number = || match write.value.as_str() {
        "max" | "-1" => Some(INFINITY),
        digits => digits.parse().ok(),
    };
    let name = match write.file.as_str() {
        "cpu.weight" => "CPUWeight",
        "cpu.shares" => "CPUShares",
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "memory.limit_in_bytes" => "MemoryLimit",
        "pids.max" => "TasksMax",
        "cpuset.cpus" if write.place == crate::plan::Place::V2 => {
            return Some(("AllowedCPUs", Value::Bytes(mask(&write.value))));
        }
        "cpuset.mems" if write.place == crate::plan::Place::V2 => {
            return Some(("AllowedMemoryNodes", Value::Bytes(mask(&write.value))));
        }
        "io.bfq.weight" => {
            let weight = write.otherwise.as_ref()?.1.parse().ok()?;
            return Some(("IOWeight", Value::U64(weight)));
        }
        "blkio.bfq.weight" => "BlockIOWeight",
        "cpu.max" => {
            bandwidth.take(&write.value);
            return None;
        }
        "cpu.cfs_quota_us" => {
            bandwidth.quota = number();
            return None;
        }
        "cpu.cfs_period_us" => {
            bandwidth.period = number();
            return None;
        }
        _ => return None,
    };
    Some((name, Value::U64(number()?)))
}

/// systemd wants a cap as microseconds per second, in steps of ten milliseconds.
#[derive(Debug, Default)]
struct Bandwidth {
    quota: Option<u64>,
    period: Option<u64>,
}

impl Bandwidth {
    const DEFAULT_PERIOD: u64 = 100_000;

    fn take(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        self.quota = match words.next() {
            Some("max") => Some(INFINITY),
            word => word.and_then(|word| word.parse().ok()),
        };
        self.period = words.next().and_then(|word| word.parse().ok());
    }

    fn add_to(&self, all: &mut Properties) {
        let period = self.period.filter(|period| *period != 0);
        if let Some(period) = period.filter(|period| *period != Self::DEFAULT_PERIOD) {
            all.push(("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)));
        }
        let Some(quota) = self.quota else { return };
        let per_second = if quota == INFINITY {
            INFINITY
        } else {
            let period = u128::from(period.unwrap_or(Self::DEFAULT_PERIOD));
            let exact = (u128::from(quota) * 1_000_000).div_ceil(period);
            u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(INFINITY)
        };
        all.push(("CPUQuotaPerSecUSec".to_owned(), Value::U64(per_second)));
    }
}

/// A list of numbers as systemd's bit mask, the lowest first.
fn mask(list: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in crate::stats::numbers_in_list(list) {
        let (byte, bit) = (number as usize / 8, number % 8);
        if bytes.len() <= byte {
            bytes.resize(byte + 1, 0);
        }
        if let Some(slot) = bytes.get_mut(byte) {
            *slot |= 1 << bit;
        }
    }
    bytes
}

/// The device policy. systemd knows whole majors by name only (`names` is `/proc/devices`), and no
/// holes: what it cannot say it is told to allow, and our own rules on the group forbid it.
pub(super) fn of_devices(rules: &[DeviceRule], names: &str) -> Properties {
    let policy = |name: &str, list: Vec<(String, String)>| {
        let name = Value::Text(name.to_owned());
        vec![
            ("DevicePolicy".to_owned(), name),
            // An empty list forgets the earlier ones.
            ("DeviceAllow".to_owned(), Value::TextPairs(Vec::new())),
            ("DeviceAllow".to_owned(), Value::TextPairs(list)),
        ]
    };
    let open = || policy("auto", Vec::new());
    let Ok(wanted) = Policy::of(rules) else {
        return open();
    };
    if wanted.allow {
        return open();
    }
    let mut list = BTreeSet::new();
    for exception in wanted.exceptions {
        let (kind, access) = (exception.kind(), exception.access());
        let prefix = if kind == DeviceKind::Block {
            "block"
        } else {
            "char"
        };
        match exception.numbers() {
            (Some(major), Some(minor)) => {
                list.insert((format!("/dev/{prefix}/{major}:{minor}"), access));
            }
            (Some(major), None) => {
                let Some(name) = driver(names, kind, major) else {
                    continue;
                };
                list.insert((format!("{prefix}-{name}"), access));
            }
            (None, None) => {
                list.insert((format!("{prefix}-*"), access));
            }
            (None, Some(_)) => return open(),
        }
    }
    policy("strict", list.into_iter().collect())
}

/// The name of a major number in `/proc/devices`; a number without one has no device to allow.
fn driver(names: &str, kind: DeviceKind, major: u32) -> Option<&str> {
    let heading = if kind == DeviceKind::Block {
        "Block devices:"
    } else {
        "Character devices:"
    };
    let section = names.lines().skip_while(|line| *line != heading).skip(1);
    let mut section = section.take_while(|line| !line.ends_with(':'));
    section.find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name)
    })
}

/// A value in GVariant's text form, as annotations give it: `'text'`, `true`, `5`, `uint64 5`,
/// `['a', 'b']`.
pub(super) fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    let quoted = |text: &str| {
        let text = text.trim();
        let strip = |quote| {
            text.strip_prefix(quote)?
                .strip_suffix(quote)
                .map(str::to_owned)
        };
        strip('\'').or_else(|| strip('"'))
    };
    if let Some(list) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let items = list.split(',').filter(|item| !item.trim().is_empty());
        return items.map(quoted).collect::<Option<_>>().map(Value::Texts);
    }
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some((kind, number)) = text.split_once(' ') {
        return match kind {
            "uint64" => number.trim().parse().ok().map(Value::U64),
            "uint32" => number.trim().parse().ok().map(Value::U32),
            "int32" => number.trim().parse().ok().map(Value::I32),
            _ => quoted(text).map(Value::Text),
        };
    }
    text.parse()
        .ok()
        .map(Value::I32)
        .or_else(|| quoted(text).map(Value::Text))
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
