//! Keys of v2 where the controller is not on v2.

use std::collections::BTreeMap;

use super::v2::shares_of_weight;
use super::{Place, Places};
use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::resources::{HugetlbLimit, Limit, Resources};

/// What the keys of v1 controllers mean.
#[derive(Debug, Default)]
pub(super) struct Translated {
    resources: Resources,
    swap_max: Option<Limit>,
}

type Raw = Vec<(String, String)>;

/// Parts the keys into those to write as they are and those to translate.
pub(super) fn split(
    places: &Places,
    keys: &BTreeMap<String, String>,
) -> Result<(Option<Translated>, Raw)> {
    let mut raw = Vec::new();
    let mut translated = None;
    for (key, value) in keys {
        let fails = |cause: &str| Err(Error::text("set unified", key, cause));
        // The key becomes a file's name: it may not lead out of the group.
        if key.contains(['/', '\0']) || key.starts_with('.') || !key.contains('.') {
            return fails("not a file of a group");
        }
        let file = if key == "memset.mems" {
            "cpuset.mems"
        } else {
            key
        };
        let prefix = file.split('.').next().unwrap_or_default();
        let place = match Controller::named(prefix) {
            Some(controller) => places.of(controller),
            // `cgroup.max.depth` and controllers that are not known here.
            None => Some(Place::V2).filter(|_| places.unified),
        };
        match place {
            None => return Err(Error::no_controller("set unified", key, prefix)),
            Some(Place::V2) => raw.push((file.to_owned(), value.clone())),
            Some(Place::V1(_)) => {
                let all = translated.get_or_insert_with(Translated::default);
                if !all.take(file, value) {
                    return fails(&format!("{prefix} is on v1, which has no such value"));
                }
            }
        }
    }
    Ok((translated, raw))
}

impl Translated {
    /// Takes a key with a counterpart on v1; tells whether there is one and the value fits it.
    fn take(&mut self, file: &str, value: &str) -> bool {
        let limit = || match value.trim() {
            "max" => Some(Limit::Unlimited),
            number => number.parse().ok().map(Limit::Max),
        };
        let Resources {
            cpu, memory, pids, ..
        } = &mut self.resources;
        match file {
            "memory.max" => put(&mut memory.limit, limit()),
            "memory.low" => put(&mut memory.reservation, limit()),
            "memory.swap.max" => put(&mut self.swap_max, limit()),
            "pids.max" => put(pids, limit()),
            "cpuset.cpus" => put(&mut cpu.cpus, Some(value.to_owned())),
            "cpuset.mems" => put(&mut cpu.mems, Some(value.to_owned())),
            "cpu.idle" => put(&mut cpu.idle, value.trim().parse().ok()),
            "cpu.max.burst" => put(&mut cpu.burst, value.trim().parse().ok()),
            "cpu.weight" => put(
                &mut cpu.shares,
                value.trim().parse().ok().map(shares_of_weight),
            ),
            "cpu.max" => {
                let mut words = value.split_ascii_whitespace();
                let quota = match words.next() {
                    Some("max") => Some(Limit::Unlimited),
                    word => word.and_then(|word| word.parse().ok()).map(Limit::Max),
                };
                let period = words.next().map(str::parse);
                match period {
                    Some(Ok(period)) => cpu.period = Some(period),
                    Some(Err(_)) => return false,
                    None => {}
                }
                put(&mut cpu.quota, quota)
            }
            _ => self.take_hugetlb(file, value),
        }
    }

    fn take_hugetlb(&mut self, file: &str, value: &str) -> bool {
        let size = file
            .strip_prefix("hugetlb.")
            .and_then(|rest| rest.strip_suffix(".max"));
        let limit = match value.trim() {
            // The kernel takes the largest number for the largest it can count.
            "max" => Ok(u64::MAX),
            digits => digits.parse(),
        };
        match (size, limit) {
            (Some(size), Ok(limit)) if !size.contains('.') => {
                let page_size = size.to_owned();
                self.resources
                    .hugetlb
                    .push(HugetlbLimit { page_size, limit });
                true
            }
            _ => false,
        }
    }

    /// These values where given, else `base`'s: the keys are the more explicit of the two.
    pub(super) fn over(self, base: &Resources) -> Resources {
        let mut all = base.clone();
        let Self {
            resources: own,
            swap_max,
        } = self;
        let (cpu, memory) = (&mut all.cpu, &mut all.memory);
        cpu.shares = own.cpu.shares.or(cpu.shares);
        cpu.quota = own.cpu.quota.or(cpu.quota);
        cpu.period = own.cpu.period.or(cpu.period);
        cpu.burst = own.cpu.burst.or(cpu.burst);
        cpu.idle = own.cpu.idle.or(cpu.idle);
        cpu.cpus = own.cpu.cpus.or(cpu.cpus.take());
        cpu.mems = own.cpu.mems.or(cpu.mems.take());
        memory.limit = own.memory.limit.or(memory.limit);
        memory.reservation = own.memory.reservation.or(memory.reservation);
        memory.swap = match (swap_max, memory.limit) {
            (Some(Limit::Max(swap)), Some(Limit::Max(limit))) => {
                Some(Limit::Max(limit.saturating_add(swap)))
            }
            (Some(_), _) => Some(Limit::Unlimited),
            (None, _) => memory.swap,
        };
        all.pids = own.pids.or(all.pids);
        all.hugetlb.extend(own.hugetlb);
        all
    }
}

fn put<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}
