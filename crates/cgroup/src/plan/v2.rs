//! The files of v2, and the conversions from v1's scales.

use super::v1::set;
use super::{Place, Planner, v2_value};
use crate::error::{Error, Result};
use crate::resources::{BlockIo, Cpu, Limit, Memory, Throttle};

impl Planner {
    pub(super) fn cpu_v2(&mut self, cpu: &Cpu) {
        let at = Place::V2;
        if cpu.idle == Some(0) {
            self.push(at, "cpu.idle", "0");
        }
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            self.push(at, "cpu.weight", weight_of_shares(shares).to_string());
        }
        if let Some(idle) = cpu.idle.filter(|idle| *idle != 0) {
            self.push(at, "cpu.idle", idle.to_string());
        }
        let burst = cpu.burst.map(|burst| burst.to_string());
        let burst_first = cpu.burst.is_some_and(|burst| burst < self.current.burst);
        if let (Some(burst), true) = (&burst, burst_first) {
            self.push(at, "cpu.max.burst", burst);
        }
        let period = cpu.period.filter(|period| *period != 0);
        let quota = cpu.quota.filter(|quota| *quota != Limit::Max(0));
        match (quota, period) {
            // A quota alone leaves the period as it is.
            (Some(quota), None) => self.push(at, "cpu.max", v2_value(quota)),
            (Some(quota), Some(period)) => {
                self.push(at, "cpu.max", format!("{} {period}", v2_value(quota)));
            }
            (None, Some(period)) => {
                let quota = v2_value(self.current.quota);
                self.push(at, "cpu.max", format!("{quota} {period}"));
            }
            (None, None) => {}
        }
        if let (Some(burst), false) = (burst, burst_first) {
            self.push(at, "cpu.max.burst", burst);
        }
        if cpu.realtime_runtime.is_some() || cpu.realtime_period.is_some() {
            self.plan.ignored.push("real-time scheduling limits");
        }
    }

    pub(super) fn memory_v2(&mut self, memory: &Memory) -> Result<()> {
        let at = Place::V2;
        let limit = set(memory.limit);
        if let Some(swap) = self.swap_max(limit, set(memory.swap))? {
            let value = v2_value(swap);
            // Without swap in the kernel there is nothing to allow and nothing to forbid.
            if matches!(swap, Limit::Unlimited | Limit::Max(0)) {
                self.push_optional(at, "memory.swap.max", value);
            } else {
                self.push(at, "memory.swap.max", value);
            }
        }
        if let Some(limit) = limit {
            self.push(at, "memory.max", v2_value(limit));
        }
        if let Some(reservation) = set(memory.reservation) {
            self.push(at, "memory.low", v2_value(reservation));
        }
        let ignored = [
            ("kernel memory limit", set(memory.kernel).is_some()),
            ("kernel tcp memory limit", set(memory.kernel_tcp).is_some()),
            ("memory swappiness", memory.swappiness.is_some()),
            (
                "disabled oom killer",
                memory.disable_oom_killer == Some(true),
            ),
        ];
        self.plan.ignored.extend(
            ignored
                .iter()
                .filter(|(_, asked)| *asked)
                .map(|(name, _)| *name),
        );
        Ok(())
    }

    /// v2 counts swap alone: what was asked for memory and swap together, less the memory.
    fn swap_max(&self, limit: Option<Limit>, together: Option<Limit>) -> Result<Option<Limit>> {
        let fails = |together: u64, why: &str| {
            Err(Error::text(
                "set memory and swap limit",
                together.to_string(),
                why,
            ))
        };
        match (limit, together) {
            // As on v1, where memory without limit needs memory+swap without limit.
            (Some(Limit::Unlimited), None) => Ok(Some(Limit::Unlimited)),
            (_, None) => Ok(None),
            (_, Some(Limit::Unlimited)) => Ok(Some(Limit::Unlimited)),
            (limit, Some(Limit::Max(together))) => match limit.unwrap_or(self.current.memory) {
                Limit::Unlimited => fails(together, "v2 needs a memory limit with it"),
                Limit::Max(memory) => match together.checked_sub(memory) {
                    Some(swap) => Ok(Some(Limit::Max(swap))),
                    None => fails(together, "below the memory limit"),
                },
            },
        }
    }

    pub(super) fn block_io_v2(&mut self, io: &BlockIo) {
        let at = Place::V2;
        if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
            let other = ("io.weight", io_weight(weight).to_string());
            self.push_or(at, "io.bfq.weight", weight.to_string(), other);
        }
        for entry in &io.weight_devices {
            if let Some(weight) = entry.weight.filter(|weight| *weight != 0) {
                let other = (
                    "io.weight",
                    format!("{} {}", entry.device, io_weight(weight)),
                );
                self.push_or(
                    at,
                    "io.bfq.weight",
                    format!("{} {weight}", entry.device),
                    other,
                );
            }
        }
        let throttles: [(&str, &[Throttle]); 4] = [
            ("rbps", &io.read_bps),
            ("wbps", &io.write_bps),
            ("riops", &io.read_iops),
            ("wiops", &io.write_iops),
        ];
        for (key, list) in throttles {
            for throttle in list {
                let rate = match throttle.rate {
                    0 => "max".to_owned(),
                    rate => rate.to_string(),
                };
                self.push(at, "io.max", format!("{} {key}={rate}", throttle.device));
            }
        }
        let leaf = io.leaf_weight.is_some_and(|weight| weight != 0)
            || io
                .weight_devices
                .iter()
                .any(|entry| entry.leaf_weight.is_some_and(|w| w != 0));
        if leaf {
            self.plan.ignored.push("block io leaf weight");
        }
    }
}

/// v1's 2…262144 with default 1024 to v2's 1…10000 with default 100: a parabola in the
/// logarithm through the three pairs, so that defaults meet (a straight line maps 1024 to 39).
#[must_use]
fn weight_of_shares(shares: u64) -> u64 {
    let logarithm = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (logarithm * logarithm + 125.0 * logarithm - 126.0) / 612.0;
    (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// The other direction, for v2's key on a v1 controller.
#[must_use]
pub(super) fn shares_of_weight(weight: u64) -> u64 {
    let decades = (weight.clamp(1, 10_000) as f64).log10();
    let logarithm = ((15_625.0 + 4.0 * (126.0 + 612.0 * decades)).sqrt() - 125.0) / 2.0;
    (2_f64.powf(logarithm).round() as u64).clamp(2, 262_144)
}

/// v1's 10…1000 to v2's 1…10000, on a straight line.
fn io_weight(weight: u16) -> u64 {
    let weight = u64::from(weight.clamp(10, 1000));
    1 + (weight - 10) * 9999 / 990
}
