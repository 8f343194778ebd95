//! The few numbers that are kept of a group after its end.

use super::{BlockIoEntry, Stats};

/// What a group has used, and uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Nanoseconds of processor time.
    pub cpu: u64,
    pub cpu_user: u64,
    pub cpu_system: u64,
    pub throttled: u64,
    /// Bytes.
    pub memory: u64,
    pub memory_peak: u64,
    pub swap: u64,
    pub oom_kills: u64,
    pub read: u64,
    pub written: u64,
    pub reads: u64,
    pub writes: u64,
}

impl Totals {
    /// The sums of a group's statistics.
    #[must_use]
    pub fn of(stats: &Stats) -> Self {
        let mut totals = Self {
            cpu: stats.cpu.total,
            cpu_user: stats.cpu.user,
            cpu_system: stats.cpu.kernel,
            throttled: stats.cpu.throttled_time,
            ..Self::default()
        };
        if let Some(memory) = &stats.memory {
            totals.memory = memory.usage.usage;
            totals.memory_peak = memory.usage.max.max(memory.usage.usage);
            totals.swap = memory.swap.usage.saturating_sub(memory.usage.usage);
            totals.oom_kills = memory.oom_kills;
        }
        if let Some(io) = &stats.block_io {
            let sum = |entries: &[BlockIoEntry], operation: &str| {
                let fitting = entries.iter().filter(|entry| entry.operation == operation);
                fitting.map(|entry| entry.value).sum()
            };
            totals.read = sum(&io.service_bytes, "Read");
            totals.written = sum(&io.service_bytes, "Write");
            totals.reads = sum(&io.serviced, "Read");
            totals.writes = sum(&io.serviced, "Write");
        }
        totals
    }

    /// The numbers that add up over time (and the peak, which does not) by name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("cpuNanoseconds", self.cpu),
            ("userNanoseconds", self.cpu_user),
            ("systemNanoseconds", self.cpu_system),
            ("memoryPeakBytes", self.memory_peak),
            ("oomKills", self.oom_kills),
            ("readBytes", self.read),
            ("writtenBytes", self.written),
            ("reads", self.reads),
            ("writes", self.writes),
        ]
    }
}
