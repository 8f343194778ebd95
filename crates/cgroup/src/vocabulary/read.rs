//! From the kernel's files back to values.

use crate::controller::Controller;
use crate::plan::{Place, Places};
use crate::resources::Limit;

use super::plan::{name, side};
use super::rates::{Rates, device};
use super::table::{Compound, Entry, Notation, Side};
use super::value::PERIOD;
use super::{Files, Key, Unit, Value, Version};

/// What a group has of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    Has {
        /// As the group itself says.
        value: Value,
        /// After the groups above it have had their say.
        effective: Value,
        /// The level of the group that says less: 1 is the parent.
        bounded_by: Option<usize>,
    },
    /// Why there is no such value here.
    Lacks(String),
}

/// v1's files of rates, in the order of [`super::rates::NAMES`].
pub(super) const THROTTLES: [&str; 4] = [
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
];

/// More levels than a tree of groups has.
const LEVELS: usize = 64;

/// What the group has of a key.
#[must_use]
pub fn read(places: &Places, key: &Key, files: &Files<'_>) -> Reading {
    let (entry, variable) = match key {
        Key::Raw { version, file } => return raw(places, *version, file, files),
        Key::Known { variable, .. } => match key.entry() {
            Some(entry) => (entry, variable),
            None => return Reading::Lacks("no such key".to_owned()),
        },
    };
    let owner = entry.controller.map_or("v2", Controller::name);
    let Some((place, side)) = side(places, entry) else {
        return Reading::Lacks(format!("no {owner} controller reaches this group"));
    };
    let at = |level| value_at(places, entry, place, side, (variable, level), files);
    let value = match (side, at(0)) {
        (_, Some(value)) => value,
        (Side::Lacks(why), None) => return Reading::Lacks(format!("the {owner} controller {why}")),
        (_, None) => return Reading::Lacks("this kernel has no such file".to_owned()),
    };
    let (mut effective, mut bounded_by) = (value.clone(), None);
    if let Some(list) = effective_list(places, entry, place, files) {
        effective = list;
    }
    if entry.bounds {
        for level in 1..LEVELS {
            let Some(above) = at(level) else { break };
            if allows_less(&above, &effective) {
                (effective, bounded_by) = (above, Some(level));
            }
        }
    }
    Reading::Has {
        value,
        effective,
        bounded_by,
    }
}

fn raw(places: &Places, version: Version, file: &str, files: &Files<'_>) -> Reading {
    let controller = file.split('.').next().and_then(Controller::named);
    let place = match (version, controller) {
        (Version::V2, _) => Place::V2,
        (Version::V1, Some(controller)) => Place::V1(controller),
        (Version::V1, None) => return Reading::Lacks("no such file".to_owned()),
    };
    match files(0, place, &name(places, place, file)) {
        None => Reading::Lacks("the group has no such file".to_owned()),
        Some(text) => {
            let value = Value::Text(text.trim_end().to_owned());
            Reading::Has {
                effective: value.clone(),
                value,
                bounded_by: None,
            }
        }
    }
}

fn value_at(
    places: &Places,
    entry: &Entry,
    place: Place,
    side: Side,
    (variable, level): (&str, usize),
    files: &Files<'_>,
) -> Option<Value> {
    let file = |file: &str| files(level, place, &name(places, place, file));
    match side {
        Side::Lacks(_) => None,
        Side::Always(fixed) => Value::parse(entry.unit, fixed).ok(),
        // v1's `freezer.state` tells what the groups above do as well.
        Side::Files([(state, Notation::FreezerState)]) => {
            match (file("freezer.self_freezing"), file(state)) {
                (Some(own), _) => Notation::Freeze.read(entry.unit, &own),
                (None, state) => Notation::FreezerState.read(entry.unit, &state?),
            }
        }
        Side::Files(candidates) => candidates.iter().find_map(|(candidate, notation)| {
            let text = file(&candidate.replacen('*', variable, 1))?;
            notation.read(entry.unit, &text)
        }),
        Side::Policy => Value::parse(entry.unit, &files(level, place, entry.name)?).ok(),
        Side::Compound(Compound::SwapV1) => {
            file("memory.memsw.limit_in_bytes")?;
            Some(Value::Limit(swap_v1(place, &|_, place, name| {
                files(level, place, name)
            })))
        }
        Side::Compound(Compound::BandwidthV1) => {
            let quota = limit(&file("cpu.cfs_quota_us")?);
            let period = number(&file("cpu.cfs_period_us")?);
            Some(Value::Bandwidth { quota, period })
        }
        Side::Compound(compound @ (Compound::RatesV1 | Compound::RatesV2)) => {
            let present = match compound {
                Compound::RatesV1 => THROTTLES[0],
                _ => "io.max",
            };
            file(present)?;
            Some(Value::Rates(rates(compound, place, files)))
        }
    }
}

/// A list of processors or memory nodes after the groups above had their say.
fn effective_list(
    places: &Places,
    entry: &Entry,
    place: Place,
    files: &Files<'_>,
) -> Option<Value> {
    let (v1, v2) = match entry.name {
        "cpuset.cpus" => ("cpuset.effective_cpus", "cpuset.cpus.effective"),
        "memset.mems" => ("cpuset.effective_mems", "cpuset.mems.effective"),
        _ => return None,
    };
    let file = if place == Place::V2 { v2 } else { v1 };
    let text = files(0, place, &name(places, place, file))?;
    Notation::Plain.read(Unit::List, &text)
}

fn allows_less(above: &Value, own: &Value) -> bool {
    match (above, own) {
        (Value::Limit(above), Value::Limit(own)) => own.exceeds(*above),
        (
            Value::Bandwidth { quota, period },
            Value::Bandwidth {
                quota: own_quota,
                period: own_period,
            },
        ) => match (quota, own_quota) {
            (Limit::Unlimited, _) => false,
            (Limit::Max(_), Limit::Unlimited) => true,
            (Limit::Max(above), Limit::Max(own)) => {
                let period = period.unwrap_or(PERIOD);
                let own_period = own_period.unwrap_or(PERIOD);
                u128::from(*above) * u128::from(own_period) < u128::from(*own) * u128::from(period)
            }
        },
        // Both are asked; only where the group has none of its own is the one above all there is.
        (Value::Policy(above), Value::Policy(own)) => own.is_open() && !above.is_open(),
        // Whoever is below a frozen group is held.
        (Value::Text(above), Value::Text(own)) => above == "frozen" && own == "thawed",
        _ => false,
    }
}

impl Notation {
    fn read(self, unit: Unit, text: &str) -> Option<Value> {
        let text = text.trim_ascii();
        Some(match (self, unit) {
            (Self::Soft, _) => match limit(text) {
                Limit::Unlimited => Value::Limit(Limit::Max(0)),
                limit => Value::Limit(limit),
            },
            (_, Unit::Bytes | Unit::Count) => Value::Limit(limit(text)),
            (_, Unit::Bandwidth) => {
                let mut words = text.split_ascii_whitespace();
                let quota = limit(words.next()?);
                let period = words.next().and_then(number);
                Value::Bandwidth { quota, period }
            }
            (Self::Shares, _) => Value::Number((number(text)? * 100 + 512) / 1024),
            // `default 100` on v2, the number alone on v1.
            (_, Unit::Number { .. }) => {
                let line = text.lines().next()?;
                Value::Number(number(line.strip_prefix("default ").unwrap_or(line))?)
            }
            (_, Unit::Time | Unit::Switch) => Value::Number(number(text)?),
            (_, Unit::Percent) => match text {
                "max" => Value::Number(10_000),
                text => Value::parse(unit, text).ok()?,
            },
            (_, Unit::List) if text.is_empty() => Value::List(None),
            (_, Unit::List) => Value::parse(unit, text).ok()?,
            (Self::Freeze, _) => Value::Text(if text == "1" { "frozen" } else { "thawed" }.into()),
            (Self::FreezerState, _) => Value::Text(match text {
                "THAWED" => "thawed".to_owned(),
                _ => "frozen".to_owned(),
            }),
            (_, Unit::Word(_)) => Value::Text(text.split(' ').next()?.to_owned()),
            (_, Unit::Rates | Unit::Policy | Unit::Text) => Value::Text(text.to_owned()),
        })
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim_ascii().parse().ok()
}

/// v1 prints "unlimited" as the largest number of whole pages, or as -1; v2 as `max`.
pub(super) fn limit(text: &str) -> Limit {
    match number(text) {
        Some(value) if value < (i64::MAX as u64 & !0xffff) => Limit::Max(value),
        _ => Limit::Unlimited,
    }
}

/// The group's period, in microseconds.
pub(super) fn period(place: Place, files: &Files<'_>) -> u64 {
    let text = match place {
        Place::V1(_) => files(0, place, "cpu.cfs_period_us"),
        Place::V2 => files(0, place, "cpu.max")
            .and_then(|text| text.split_ascii_whitespace().nth(1).map(str::to_owned)),
    };
    text.as_deref().and_then(number).unwrap_or(PERIOD)
}

/// Swap alone: what v1 allows for memory and swap together, less the memory.
pub(super) fn swap_v1(place: Place, files: &Files<'_>) -> Limit {
    let read = |file: &str| {
        files(0, place, file)
            .as_deref()
            .map_or(Limit::Unlimited, limit)
    };
    match (
        read("memory.memsw.limit_in_bytes"),
        read("memory.limit_in_bytes"),
    ) {
        (Limit::Max(both), Limit::Max(memory)) => Limit::Max(both.saturating_sub(memory)),
        _ => Limit::Unlimited,
    }
}

/// The rates of all devices that have any.
pub(super) fn rates(compound: Compound, place: Place, files: &Files<'_>) -> Vec<Rates> {
    if compound == Compound::RatesV2 {
        let text = files(0, place, "io.max").unwrap_or_default();
        return Rates::parse_all(&text).unwrap_or_default();
    }
    let mut all: Vec<Rates> = Vec::new();
    for (index, file) in THROTTLES.iter().enumerate() {
        let text = files(0, place, file).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(device) = words.next().and_then(device) else {
                continue;
            };
            let rate = words.next().and_then(number).map(Limit::Max);
            let at = match all.iter().position(|known| known.device == device) {
                Some(at) => at,
                None => {
                    let rates = [Some(Limit::Unlimited); 4];
                    all.push(Rates { device, rates });
                    all.len() - 1
                }
            };
            all[at].rates[index] = rate.or(Some(Limit::Unlimited));
        }
    }
    all
}
