//! From resources to writes: which file gets which value, in which order. Pure.

mod unified;
mod v1;
mod v2;

use crate::controller::{Controller, Controllers};
use crate::error::{Error, Result};
use crate::resources::{Limit, Resources};

/// Where the controllers of a group are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Places {
    pub v1: Controllers,
    pub v2: Controllers,
    /// The group has a v2 directory, be it without controllers.
    pub unified: bool,
    /// The v1 cpuset's files lack the controller's name.
    pub noprefix: bool,
}

/// One of a group's directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    V1(Controller),
    V2,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub place: Place,
    pub file: String,
    pub value: String,
    /// The file and value to use where the kernel does not have `file`.
    pub otherwise: Option<(String, String)>,
    /// A kernel without the file loses nothing that was asked for.
    pub optional: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which the kernel accepts them.
    pub writes: Vec<Write>,
    /// What was asked for and has no counterpart on this layout.
    pub ignored: Vec<&'static str>,
}

/// What the group has now, as far as the order of writes depends on it. A new group's are the
/// defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    pub memory: Limit,
    /// v1: memory and swap together.
    pub memory_and_swap: Limit,
    /// Bytes in use; read only for `check_before_update`.
    pub usage: u64,
    pub quota: Limit,
    pub period: u64,
    pub burst: u64,
}

impl Default for Current {
    fn default() -> Self {
        Self {
            memory: Limit::Unlimited,
            memory_and_swap: Limit::Unlimited,
            usage: 0,
            quota: Limit::Unlimited,
            period: 100_000,
            burst: 0,
        }
    }
}

/// A value of [`Current`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Memory,
    MemoryAndSwap,
    Usage,
    Quota,
    Period,
    QuotaAndPeriod,
    Burst,
}

impl Current {
    /// Takes a value from its file's text; a text in another form changes nothing.
    pub fn set(&mut self, wanted: Wanted, text: &str) {
        let mut words = text.split_ascii_whitespace();
        let Some(first) = words.next() else { return };
        let number = first.parse::<u64>();
        match wanted {
            Wanted::Memory => self.memory = v1_limit(first),
            Wanted::MemoryAndSwap => self.memory_and_swap = v1_limit(first),
            Wanted::Usage => self.usage = number.unwrap_or_default(),
            Wanted::Quota => self.quota = v1_limit(first),
            Wanted::Period => self.period = number.unwrap_or(self.period),
            Wanted::Burst => self.burst = number.unwrap_or_default(),
            Wanted::QuotaAndPeriod => {
                self.quota = v1_limit(first);
                let period = words.next().and_then(|word| word.parse().ok());
                self.period = period.unwrap_or(self.period);
            }
        }
    }
}

/// v1 prints "unlimited" as the largest number of whole pages, or as -1; v2 as `max`.
fn v1_limit(text: &str) -> Limit {
    match text.parse::<u64>() {
        Ok(value) if value < (i64::MAX as u64 & !0xffff) => Limit::Max(value),
        _ => Limit::Unlimited,
    }
}

/// The files to read for [`Current`], if any: most resources can be written in any order.
#[must_use]
pub fn needed(places: &Places, resources: &Resources) -> Vec<(Wanted, Place, &'static str)> {
    let mut needed = Vec::new();
    let memory = &resources.memory;
    let sets_memory = memory.limit.is_some();
    match places.of(Controller::Memory) {
        Some(place @ Place::V1(_)) => {
            if sets_memory || memory.swap.is_some() {
                needed.push((Wanted::MemoryAndSwap, place, "memory.memsw.limit_in_bytes"));
                needed.push((Wanted::Memory, place, "memory.limit_in_bytes"));
            }
            if sets_memory && memory.check_before_update {
                needed.push((Wanted::Usage, place, "memory.usage_in_bytes"));
            }
        }
        Some(Place::V2) if sets_memory && memory.check_before_update => {
            needed.push((Wanted::Usage, Place::V2, "memory.current"));
        }
        Some(Place::V2) if memory.swap.is_some() && !sets_memory => {
            needed.push((Wanted::Memory, Place::V2, "memory.max"));
        }
        Some(Place::V2) | None => {}
    }
    let cpu = &resources.cpu;
    let bandwidth = [
        cpu.quota.is_some(),
        cpu.period.is_some(),
        cpu.burst.is_some(),
    ];
    let several = bandwidth.iter().filter(|set| **set).count() > 1;
    match places.of(Controller::Cpu) {
        Some(place @ Place::V1(_)) if several => {
            needed.push((Wanted::Quota, place, "cpu.cfs_quota_us"));
            needed.push((Wanted::Period, place, "cpu.cfs_period_us"));
        }
        Some(Place::V2) if cpu.period.is_some() && cpu.quota.is_none() => {
            needed.push((Wanted::QuotaAndPeriod, Place::V2, "cpu.max"));
        }
        _ => {}
    }
    if cpu.burst.is_some() && several {
        match places.of(Controller::Cpu) {
            Some(Place::V2) => needed.push((Wanted::Burst, Place::V2, "cpu.max.burst")),
            Some(place) => needed.push((Wanted::Burst, place, "cpu.cfs_burst_us")),
            None => {}
        }
    }
    needed
}

impl Places {
    /// The directory with the controller's files; v1's, where a group has both.
    #[must_use]
    pub fn of(&self, controller: Controller) -> Option<Place> {
        if self.v1.contains(controller) {
            Some(Place::V1(controller))
        } else if self.unified && self.v2.contains(controller) {
            Some(Place::V2)
        } else {
            None
        }
    }
}

/// The writes that give a group its resources. None for resources that ask for nothing.
///
/// # Errors
/// A controller that is asked for is not there, or values contradict each other.
pub fn plan(places: &Places, resources: &Resources, current: &Current) -> Result<Plan> {
    let mut planner = Planner {
        places: *places,
        current: *current,
        plan: Plan::default(),
    };
    let (translated, raw) = unified::split(places, &resources.unified)?;
    let merged;
    let resources = match translated {
        Some(translated) => {
            merged = translated.over(resources);
            &merged
        }
        None => resources,
    };
    planner.cpu(&resources.cpu)?;
    planner.cpuset(&resources.cpu)?;
    planner.memory(&resources.memory)?;
    planner.pids(resources.pids)?;
    planner.block_io(&resources.block_io)?;
    planner.hugetlb(&resources.hugetlb)?;
    planner.network(&resources.network)?;
    planner.rdma(&resources.rdma)?;
    // Last: they are the caller's own words and overrule what was derived.
    for (file, value) in raw {
        planner.push(Place::V2, &file, value);
    }
    Ok(planner.plan)
}

struct Planner {
    places: Places,
    current: Current,
    plan: Plan,
}

impl Planner {
    fn push(&mut self, place: Place, file: &str, value: impl Into<String>) {
        self.plan.writes.push(Write {
            place,
            file: file.to_owned(),
            value: value.into(),
            otherwise: None,
            optional: false,
        });
    }

    fn push_optional(&mut self, place: Place, file: &str, value: impl Into<String>) {
        self.push(place, file, value);
        if let Some(write) = self.plan.writes.last_mut() {
            write.optional = true;
        }
    }

    /// For a file that another kernel calls otherwise.
    fn push_or(&mut self, place: Place, file: &str, value: String, other: (&str, String)) {
        self.push(place, file, value);
        if let Some(write) = self.plan.writes.last_mut() {
            write.otherwise = Some((other.0.to_owned(), other.1));
        }
    }

    /// The place of a controller that is asked for.
    fn require(&self, controller: Controller, what: &str) -> Result<Place> {
        self.places
            .of(controller)
            .ok_or_else(|| Error::no_controller("set", what, controller.name()))
    }

    fn cpu(&mut self, cpu: &crate::resources::Cpu) -> Result<()> {
        let nothing = cpu.shares.is_none()
            && cpu.quota.is_none()
            && cpu.burst.is_none()
            && cpu.period.is_none()
            && cpu.realtime_period.is_none()
            && cpu.realtime_runtime.is_none()
            && cpu.idle.is_none();
        if nothing {
            return Ok(());
        }
        match self.require(Controller::Cpu, "cpu limits")? {
            Place::V2 => self.cpu_v2(cpu),
            place @ Place::V1(_) => self.cpu_v1(place, cpu),
        }
        Ok(())
    }

    fn cpuset(&mut self, cpu: &crate::resources::Cpu) -> Result<()> {
        for (name, value) in [("cpus", &cpu.cpus), ("mems", &cpu.mems)] {
            let Some(value) = value.as_ref().filter(|value| !value.is_empty()) else {
                continue;
            };
            let place = self.require(Controller::Cpuset, &format!("cpuset.{name}"))?;
            let bare = self.places.noprefix && place != Place::V2;
            let file = if bare {
                name.to_owned()
            } else {
                format!("cpuset.{name}")
            };
            self.push(place, &file, value);
        }
        Ok(())
    }

    fn memory(&mut self, memory: &crate::resources::Memory) -> Result<()> {
        let asked = crate::resources::Memory {
            check_before_update: false,
            ..memory.clone()
        };
        if asked == crate::resources::Memory::default() {
            return Ok(());
        }
        let place = self.require(Controller::Memory, "memory limits")?;
        if let Some(Limit::Max(limit)) = memory.limit
            && memory.check_before_update
            && self.current.usage > limit
        {
            let cause = format!("the group already uses {} bytes", self.current.usage);
            return Err(Error::text("set memory limit", limit.to_string(), &cause));
        }
        match place {
            Place::V2 => self.memory_v2(memory),
            Place::V1(_) => self.memory_v1(place, memory),
        }
    }

    fn pids(&mut self, limit: Option<Limit>) -> Result<()> {
        let Some(limit) = limit else { return Ok(()) };
        match self.places.of(Controller::Pids) {
            // No controller, no limit: nothing to do.
            None if limit == Limit::Unlimited => return Ok(()),
            _ => {}
        }
        let place = self.require(Controller::Pids, "pids.max")?;
        self.push(place, "pids.max", v2_value(limit));
        Ok(())
    }

    fn block_io(&mut self, io: &crate::resources::BlockIo) -> Result<()> {
        if *io == crate::resources::BlockIo::default() {
            return Ok(());
        }
        match self.require(Controller::Io, "block io limits")? {
            Place::V2 => self.block_io_v2(io),
            place @ Place::V1(_) => self.block_io_v1(place, io),
        }
        Ok(())
    }

    fn hugetlb(&mut self, limits: &[crate::resources::HugetlbLimit]) -> Result<()> {
        for limit in limits {
            let size = &limit.page_size;
            // The size becomes a part of a file's name.
            if !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(Error::text("set hugetlb limit", size, "not a page size"));
            }
            let place = self.require(Controller::Hugetlb, "hugetlb limit")?;
            let suffix = if place == Place::V2 {
                "max"
            } else {
                "limit_in_bytes"
            };
            let value = limit.limit.to_string();
            self.push(place, &format!("hugetlb.{size}.{suffix}"), value.clone());
            // Reservations are counted apart since Linux 5.7.
            self.push_optional(place, &format!("hugetlb.{size}.rsvd.{suffix}"), value);
        }
        Ok(())
    }

    fn network(&mut self, network: &crate::resources::Network) -> Result<()> {
        if let Some(class) = network.class_id {
            match self.places.of(Controller::NetCls) {
                Some(place) => self.push(place, "net_cls.classid", class.to_string()),
                None if self.places.v1.is_empty() => self.plan.ignored.push("network class id"),
                None => drop(self.require(Controller::NetCls, "network class id")?),
            }
        }
        for priority in &network.priorities {
            match self.places.of(Controller::NetPrio) {
                Some(place) => {
                    let value = format!("{} {}", priority.name, priority.priority);
                    self.push(place, "net_prio.ifpriomap", value);
                }
                None if self.places.v1.is_empty() => self.plan.ignored.push("network priorities"),
                None => drop(self.require(Controller::NetPrio, "network priorities")?),
            }
        }
        Ok(())
    }

    fn rdma(&mut self, limits: &[crate::resources::RdmaLimit]) -> Result<()> {
        for limit in limits {
            let place = self.require(Controller::Rdma, "rdma limit")?;
            let mut value = limit.device.clone();
            for (name, number) in [("hca_handle", limit.handles), ("hca_object", limit.objects)] {
                if let Some(number) = number {
                    value.push_str(&format!(" {name}={number}"));
                }
            }
            self.push(place, "rdma.max", value);
        }
        Ok(())
    }
}

fn v2_value(limit: Limit) -> String {
    match limit {
        Limit::Unlimited => "max".to_owned(),
        Limit::Max(value) => value.to_string(),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
