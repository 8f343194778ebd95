//! The files of v1.

use super::{Place, Planner};
use crate::error::{Error, Result};
use crate::resources::{BlockIo, Cpu, Limit, Memory, Throttle};

impl Planner {
    /// A value is refused while it contradicts the other ones: an idle group has no shares, the
    /// burst must fit the quota, and quota/period may not exceed the parent's ratio even between
    /// two writes.
    pub(super) fn cpu_v1(&mut self, at: Place, cpu: &Cpu) {
        if cpu.idle == Some(0) {
            self.push(at, "cpu.idle", "0");
        }
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            self.push(at, "cpu.shares", shares.to_string());
        }
        if let Some(idle) = cpu.idle.filter(|idle| *idle != 0) {
            self.push(at, "cpu.idle", idle.to_string());
        }
        self.bandwidth_v1(at, cpu);
        if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
            self.push(at, "cpu.rt_period_us", period.to_string());
        }
        if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
            self.push(at, "cpu.rt_runtime_us", runtime.to_string());
        }
    }

    fn bandwidth_v1(&mut self, at: Place, cpu: &Cpu) {
        let burst = cpu.burst.map(|burst| burst.to_string());
        let burst_first = cpu.burst.is_some_and(|burst| burst < self.current.burst);
        if let (Some(burst), true) = (&burst, burst_first) {
            self.push(at, "cpu.cfs_burst_us", burst);
        }
        let period = cpu.period.filter(|period| *period != 0);
        let quota = cpu.quota.filter(|quota| *quota != Limit::Max(0));
        let quota = quota.filter(|quota| *quota != self.current.quota || period.is_some());
        let quota = quota
            .filter(|quota| *quota != Limit::Unlimited || self.current.quota != Limit::Unlimited);
        // A longer period first, with the quota as it is, can only lower the ratio; so can the
        // new quota first when the period becomes shorter.
        let quota_first = period.is_some_and(|period| period < self.current.period)
            && self.current.quota != Limit::Unlimited
            || quota == Some(Limit::Unlimited);
        let period = ("cpu.cfs_period_us", period.map(|period| period.to_string()));
        let quota = ("cpu.cfs_quota_us", quota.map(v1_value));
        let order = if quota_first {
            [quota, period]
        } else {
            [period, quota]
        };
        for (file, value) in order {
            if let Some(value) = value {
                self.push(at, file, value);
            }
        }
        if let (Some(burst), false) = (burst, burst_first) {
            self.push(at, "cpu.cfs_burst_us", burst);
        }
    }

    pub(super) fn memory_v1(&mut self, at: Place, memory: &Memory) -> Result<()> {
        if memory.use_hierarchy == Some(true) {
            self.push_optional(at, "memory.use_hierarchy", "1");
        }
        self.memory_limits_v1(at, memory)?;
        for (file, limit) in [
            ("memory.kmem.limit_in_bytes", memory.kernel),
            ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp),
        ] {
            if let Some(limit) = set(limit) {
                self.push_optional(at, file, v1_value(limit));
            }
        }
        if let Some(reservation) = set(memory.reservation) {
            self.push(at, "memory.soft_limit_in_bytes", v1_value(reservation));
        }
        if let Some(disable) = memory.disable_oom_killer {
            let value = if disable { "1" } else { "0" };
            self.push(at, "memory.oom_control", value);
        }
        if let Some(swappiness) = memory.swappiness {
            if swappiness > 100 {
                let text = swappiness.to_string();
                return Err(Error::text(
                    "set memory swappiness",
                    text,
                    "not between 0 and 100",
                ));
            }
            self.push(at, "memory.swappiness", swappiness.to_string());
        }
        Ok(())
    }

    /// memory ≤ memory+swap holds at every moment: whichever grows past the other goes second
    /// when lowering and first when raising.
    fn memory_limits_v1(&mut self, at: Place, memory: &Memory) -> Result<()> {
        let limit = set(memory.limit);
        let swap = match set(memory.swap) {
            // Unlimited memory needs unlimited memory+swap.
            None if limit == Some(Limit::Unlimited) => Some(Limit::Unlimited),
            swap => swap,
        };
        if let (Some(limit), Some(swap)) = (limit, swap)
            && limit.exceeds(swap)
        {
            let what = v1_value(swap);
            return Err(Error::text(
                "set memory and swap limit",
                what,
                "below the memory limit",
            ));
        }
        let limit = limit.filter(|limit| *limit != self.current.memory);
        let swap = swap.filter(|swap| *swap != self.current.memory_and_swap);
        let raises = swap.is_some_and(|swap| swap.exceeds(self.current.memory_and_swap));
        // Where swap is not accounted for, nothing is lost if there is no swap limit to lift.
        let optional = swap == Some(Limit::Unlimited);
        for memory_now in [!raises, raises] {
            match (memory_now, limit, swap) {
                (true, Some(limit), _) => self.push(at, "memory.limit_in_bytes", v1_value(limit)),
                (false, _, Some(swap)) if optional => {
                    self.push_optional(at, "memory.memsw.limit_in_bytes", v1_value(swap));
                }
                (false, _, Some(swap)) => {
                    self.push(at, "memory.memsw.limit_in_bytes", v1_value(swap));
                }
                (true, None, _) | (false, _, None) => {}
            }
        }
        Ok(())
    }

    pub(super) fn block_io_v1(&mut self, at: Place, io: &BlockIo) {
        let weights = [
            ("blkio.bfq.weight", "blkio.weight", io.weight),
            ("blkio.leaf_weight", "blkio.leaf_weight", io.leaf_weight),
        ];
        for (file, other, weight) in weights {
            if let Some(weight) = weight.filter(|weight| *weight != 0) {
                let value = weight.to_string();
                self.push_or(at, file, value.clone(), (other, value));
            }
        }
        for entry in &io.weight_devices {
            let weights = [
                (
                    "blkio.bfq.weight_device",
                    "blkio.weight_device",
                    entry.weight,
                ),
                (
                    "blkio.leaf_weight_device",
                    "blkio.leaf_weight_device",
                    entry.leaf_weight,
                ),
            ];
            for (file, other, weight) in weights {
                if let Some(weight) = weight.filter(|weight| *weight != 0) {
                    let value = format!("{} {weight}", entry.device);
                    self.push_or(at, file, value.clone(), (other, value));
                }
            }
        }
        let throttles: [(&str, &[Throttle]); 4] = [
            ("blkio.throttle.read_bps_device", &io.read_bps),
            ("blkio.throttle.write_bps_device", &io.write_bps),
            ("blkio.throttle.read_iops_device", &io.read_iops),
            ("blkio.throttle.write_iops_device", &io.write_iops),
        ];
        for (file, list) in throttles {
            for throttle in list {
                self.push(at, file, format!("{} {}", throttle.device, throttle.rate));
            }
        }
    }
}

/// OCI's 0 means "not given".
pub(super) fn set(limit: Option<Limit>) -> Option<Limit> {
    limit.filter(|limit| *limit != Limit::Max(0))
}

fn v1_value(limit: Limit) -> String {
    match limit {
        Limit::Unlimited => "-1".to_owned(),
        Limit::Max(value) => value.to_string(),
    }
}
