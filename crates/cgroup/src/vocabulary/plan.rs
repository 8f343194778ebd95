//! From assignments to writes. Pure: sees the group's files as they are, and changes none.

use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::plan::{self as writes, Current, Place, Places, Write};
use crate::resources::{Limit, Resources};

use super::rates::{NAMES, Rates};
use super::table::{Compound, Entry, Notation, Side};
use super::value::PERIOD;
use super::{Assignment, Files, Key, Value, Version, read};

/// One write, and what to write to take it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub write: Write,
    /// The value that brings back what the file said before; `None` where that cannot be read.
    pub former: Option<String>,
}

/// The writes that carry out the assignments, in the order in which the kernel accepts them. To
/// take them back, the former values are written in the opposite order: each state in between
/// was one that the kernel has accepted.
///
/// # Errors
/// This layout or kernel lacks what is asked for, a key is set twice, or values contradict each
/// other. Nothing has been written then.
pub fn plan(places: &Places, assignments: &[Assignment], files: &Files<'_>) -> Result<Vec<Step>> {
    let mut ordered: Vec<&Assignment> = assignments.iter().collect();
    ordered.sort_by(|a, b| a.key.cmp(&b.key));
    if let Some([twice, _]) = ordered.windows(2).find(|pair| pair[0].key == pair[1].key) {
        return Err(Error::text("set", twice.key.to_string(), "given twice"));
    }
    let mut planner = Planner {
        places: *places,
        files,
        writes: Vec::new(),
        resources: Resources::default(),
        swap: None,
        wakes: false,
    };
    // An idle group takes no weight, so it stops being idle before it gets one.
    let wakes = |assignment: &&Assignment| {
        assignment.key.to_string() == "cpu.idle" && assignment.value != Some(Value::Number(1))
    };
    if let Some(at) = ordered.iter().position(wakes) {
        planner.wakes = true;
        ordered[..=at].rotate_right(1);
    }
    for assignment in ordered {
        planner.assign(assignment)?;
    }
    planner.finish()
}

struct Planner<'a> {
    places: Places,
    files: &'a Files<'a>,
    writes: Vec<Write>,
    /// What [`writes::plan`] puts in order: bandwidth, and v1's memory with swap.
    resources: Resources,
    /// Swap alone, where v1 counts it with memory.
    swap: Option<Limit>,
    /// The assignments end an idle group's idling.
    wakes: bool,
}

/// Where a key lies, and how it is there.
pub(super) fn side(places: &Places, entry: &Entry) -> Option<(Place, Side)> {
    let place = match entry.controller {
        // v2's freezer is no controller, and is the better one where there are both.
        None | Some(Controller::Freezer) if places.unified => Place::V2,
        None => return Some((Place::V1(Controller::Cpu), entry.v1)),
        Some(controller) => places.of(controller)?,
    };
    let side = match place {
        Place::V1(_) => entry.v1,
        Place::V2 => entry.v2,
    };
    Some((place, side))
}

/// The name that the mount gives the file of a v1 hierarchy that was mounted without prefixes.
pub(super) fn name(places: &Places, place: Place, file: &str) -> String {
    let bare = places.noprefix && place == Place::V1(Controller::Cpuset);
    match file.split_once('.') {
        Some((_, bare_name)) if bare => bare_name.to_owned(),
        _ => file.to_owned(),
    }
}

impl Planner<'_> {
    fn assign(&mut self, assignment: &Assignment) -> Result<()> {
        let (entry, variable) = match &assignment.key {
            Key::Raw { version, file } => return self.raw(*version, file, assignment),
            Key::Known { variable, .. } => match assignment.key.entry() {
                Some(entry) => (entry, variable),
                None => return Ok(()),
            },
        };
        let fails = |cause: &str| Err(Error::text("set", assignment.key.to_string(), cause));
        let value = match &assignment.value {
            Some(value) => Some(value.clone()),
            None => Value::parse(entry.unit, entry.default).ok(),
        };
        let is_default = match &value {
            None => true,
            Some(value) => value.print(entry.unit) == entry.default,
        };
        let Some((place, side)) = side(&self.places, entry) else {
            let missing = entry.controller.map_or("v2", Controller::name);
            let key = assignment.key.to_string();
            return Err(Error::no_controller("set", &key, missing));
        };
        let owner = match entry.controller {
            Some(controller) => format!("the {} controller", controller.name()),
            None => "this host".to_owned(),
        };
        match side {
            Side::Lacks(_) if is_default => Ok(()),
            Side::Lacks(why) => fails(&format!("{owner} {why}")),
            Side::Always(fixed) => match value {
                Some(value) if value.print(entry.unit) != fixed && assignment.value.is_some() => {
                    let version = if place == Place::V2 { "v2" } else { "v1" };
                    fails(&format!(
                        "{owner} is on {version}, where it is always {fixed}"
                    ))
                }
                _ => Ok(()),
            },
            Side::Policy => {
                let text = value.map_or_else(String::new, |value| value.print(entry.unit));
                self.push(place, entry.name, text);
                Ok(())
            }
            Side::Compound(compound) => self.compound(compound, place, assignment, value),
            Side::Files(candidates) => {
                let found = candidates.iter().find_map(|(file, notation)| {
                    let file = name(&self.places, place, &file.replacen('*', variable, 1));
                    (self.files)(0, place, &file).map(|_| (file, *notation))
                });
                match (found, value) {
                    (Some(found), Some(value)) => self.file(place, found, assignment, &value),
                    (None, _) if is_default => Ok(()),
                    (None, _) => fails("this kernel has no such file in the group"),
                    (Some(_), None) => fails("there is no default value"),
                }
            }
        }
    }

    fn raw(&mut self, version: Version, file: &str, assignment: &Assignment) -> Result<()> {
        let controller = file.split('.').next().and_then(Controller::named);
        let place = match version {
            Version::V2 if self.places.unified => Some(Place::V2),
            Version::V2 => None,
            Version::V1 => controller
                .filter(|controller| self.places.v1.contains(*controller))
                .map(Place::V1),
        };
        match (place, &assignment.value) {
            (Some(place), Some(Value::Text(value))) => {
                let file = name(&self.places, place, file);
                self.push(place, &file, value.clone());
                Ok(())
            }
            _ => {
                let key = assignment.key.to_string();
                Err(Error::text("set", key, "the group has no such directory"))
            }
        }
    }

    fn file(
        &mut self,
        place: Place,
        (file, notation): (String, Notation),
        assignment: &Assignment,
        value: &Value,
    ) -> Result<()> {
        let key = assignment.key.to_string();
        match (key.as_str(), place, value) {
            ("memory.max", Place::V1(_), Value::Limit(limit)) => {
                if *limit == Limit::Max(0) {
                    return Err(Error::text("set", key, "v1 takes no limit of 0"));
                }
                self.resources.memory.limit = Some(*limit);
                return Ok(());
            }
            ("cpu.max", _, Value::Bandwidth { quota, period }) => {
                self.bandwidth(place, *quota, *period);
                return Ok(());
            }
            ("cpu.max.burst", _, Value::Number(burst)) => {
                self.resources.cpu.burst = Some(*burst);
                return Ok(());
            }
            ("cpu.weight", ..) if self.stays_idle(place) => {
                let cause = "an idle group has no weight; set cpu.idle=0 with it";
                return Err(Error::text("set", key, cause));
            }
            _ => {}
        }
        let text = match (value, place) {
            (Value::List(None), Place::V2) => "\n".to_owned(),
            (Value::List(None), Place::V1(_)) => {
                let parents = (self.files)(1, place, &file).unwrap_or_default();
                if parents.trim_ascii().is_empty() {
                    let cause = "the group above it has none either";
                    return Err(Error::text("set", key, cause));
                }
                parents.trim_ascii().to_owned()
            }
            (value, _) => notation.write(value),
        };
        self.push(place, &file, text);
        Ok(())
    }

    fn stays_idle(&self, place: Place) -> bool {
        let idle = (self.files)(0, place, "cpu.idle").unwrap_or_default();
        idle.trim_ascii() == "1" && !self.wakes
    }

    fn compound(
        &mut self,
        compound: Compound,
        place: Place,
        assignment: &Assignment,
        value: Option<Value>,
    ) -> Result<()> {
        let fails = |cause: &str| Err(Error::text("set", assignment.key.to_string(), cause));
        match (compound, value) {
            (Compound::SwapV1, Some(Value::Limit(limit))) => {
                let counted = (self.files)(0, place, "memory.memsw.limit_in_bytes").is_some();
                if !counted && limit != Limit::Unlimited {
                    return fails("this kernel does not count swap");
                }
                self.swap = Some(limit);
            }
            (Compound::BandwidthV1, Some(Value::Bandwidth { quota, period })) => {
                self.bandwidth(place, quota, period);
            }
            (Compound::RatesV1, Some(Value::Rates(all))) => self.rates_v1(place, &all),
            (Compound::RatesV2, Some(Value::Rates(all))) => self.rates_v2(&all),
            (Compound::RatesV1 | Compound::RatesV2, None) => {
                let none = [Some(Limit::Unlimited); 4];
                let present = read::rates(compound, place, self.files);
                let lifted = present.into_iter().map(|rates| Rates {
                    rates: none,
                    ..rates
                });
                let lifted: Vec<Rates> = lifted.collect();
                match compound {
                    Compound::RatesV1 => self.rates_v1(place, &lifted),
                    _ => self.rates_v2(&lifted),
                }
            }
            _ => return fails("not a value of this key"),
        }
        Ok(())
    }

    /// A share in percent is of the period that the group has.
    fn bandwidth(&mut self, place: Place, quota: Limit, period: Option<u64>) {
        let cpu = &mut self.resources.cpu;
        cpu.period = period;
        cpu.quota = Some(match (quota, period) {
            (Limit::Max(quota), None) => {
                let own = read::period(place, self.files);
                Limit::Max((quota * own / PERIOD).max(1))
            }
            (quota, _) => quota,
        });
    }

    fn rates_v1(&mut self, place: Place, all: &[Rates]) {
        for rates in all {
            for (file, rate) in read::THROTTLES.iter().zip(rates.rates) {
                let number = match rate {
                    None => continue,
                    Some(Limit::Unlimited) => 0,
                    Some(Limit::Max(rate)) => rate,
                };
                self.push(place, file, format!("{} {number}", rates.device));
            }
        }
    }

    fn rates_v2(&mut self, all: &[Rates]) {
        for rates in all {
            self.push(Place::V2, "io.max", rates.line());
        }
    }

    fn push(&mut self, place: Place, file: &str, value: String) {
        self.writes.push(Write {
            place,
            file: file.to_owned(),
            value,
            otherwise: None,
            optional: false,
        });
    }

    /// Adds what depends on each other, and each write's way back.
    fn finish(mut self) -> Result<Vec<Step>> {
        self.memory_and_swap()?;
        let mut current = Current::default();
        for (wanted, place, file) in writes::needed(&self.places, &self.resources) {
            let text = (self.files)(0, place, file);
            current.set(wanted, text.as_deref().unwrap_or_default());
        }
        let ordered = writes::plan(&self.places, &self.resources, &current)?;
        let files = self.files;
        let step = |write: Write| {
            let old = files(0, write.place, &write.file);
            let former = old.and_then(|old| former(&write.file, &write.value, &old));
            Step { write, former }
        };
        let all = self.writes.into_iter().chain(ordered.writes);
        Ok(all.map(step).collect())
    }

    /// v1 limits memory and swap together: the limit of swap alone is kept when that of memory
    /// changes.
    fn memory_and_swap(&mut self) -> Result<()> {
        let Some(place @ Place::V1(_)) = self.places.of(Controller::Memory) else {
            return Ok(());
        };
        if self.resources.memory.limit.is_none() && self.swap.is_none() {
            return Ok(());
        }
        let files = self.files;
        let present = |file: &str| files(0, place, file).map(|text| read::limit(&text));
        if present("memory.memsw.limit_in_bytes").is_none() {
            return Ok(());
        }
        let memory = present("memory.limit_in_bytes").unwrap_or(Limit::Unlimited);
        let memory = self.resources.memory.limit.unwrap_or(memory);
        let swap = self.swap.unwrap_or_else(|| read::swap_v1(place, files));
        self.resources.memory.swap = Some(match (memory, swap) {
            (_, Limit::Unlimited) => Limit::Unlimited,
            (Limit::Max(memory), Limit::Max(swap)) => Limit::Max(memory.saturating_add(swap)),
            (Limit::Unlimited, Limit::Max(_)) => {
                let cause = "v1 counts memory and swap together; it needs a memory.max";
                return Err(Error::text("set", "memory.swap.max", cause));
            }
        });
        Ok(())
    }
}

impl Notation {
    fn write(self, value: &Value) -> String {
        match (self, value) {
            (Self::Signed, Value::Limit(Limit::Unlimited))
            | (Self::Soft, Value::Limit(Limit::Unlimited | Limit::Max(0))) => "-1".to_owned(),
            (_, Value::Limit(Limit::Unlimited)) => "max".to_owned(),
            (_, Value::Limit(Limit::Max(value))) => value.to_string(),
            // A weight is a weight of 1024 hundredths in the scheduler, on v2 as well.
            (Self::Shares, Value::Number(weight)) => (weight * 1024 / 100).max(2).to_string(),
            (Self::Bfq, Value::Number(weight)) => (*weight).min(1000).to_string(),
            (Self::Freeze, Value::Text(word)) => u8::from(word == "frozen").to_string(),
            (Self::FreezerState, Value::Text(word)) => word.to_ascii_uppercase(),
            (_, Value::List(list)) => {
                super::value::print_numbers(list.as_deref().unwrap_or_default())
            }
            (_, Value::Text(text)) => text.clone(),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Bandwidth { .. } | Value::Rates(_) | Value::Policy(_)) => String::new(),
        }
    }
}

/// The value that, written to the file, brings back its former text.
fn former(file: &str, new: &str, old: &str) -> Option<String> {
    let device = new.split_ascii_whitespace().next().unwrap_or_default();
    let line_of = |device: &str| {
        let mut lines = old.lines();
        lines.find(|line| line.split_ascii_whitespace().next() == Some(device))
    };
    if read::THROTTLES.contains(&file) {
        let line = line_of(device).map(str::to_owned);
        return Some(line.unwrap_or_else(|| format!("{device} 0")));
    }
    if file == "io.max" {
        // What the line does not name, v2 leaves alone.
        let all = NAMES.map(|name| format!("{name}=max")).join(" ");
        let line = line_of(device).map(str::to_owned);
        return Some(line.unwrap_or_else(|| format!("{device} {all}")));
    }
    if ["rdma.max", "misc.max"].contains(&file) {
        return line_of(device).map(str::to_owned);
    }
    let first = old.lines().next().unwrap_or_default().trim_ascii();
    // `oom_kill_disable 0`; weights: `default 100`; partitions: `root invalid (…)`.
    let plain = match file {
        "memory.oom_control" => first.rsplit(' ').next().unwrap_or_default(),
        "cpuset.cpus.partition" => first.split(' ').next().unwrap_or_default(),
        "freezer.state" if first == "FREEZING" => "FROZEN",
        _ => first,
    };
    // An empty write is none; a list of nothing is a line without a word.
    Some(if plain.is_empty() { "\n" } else { plain }.to_owned())
}
