//! What a group may use, in one vocabulary for v1 and v2.

use std::collections::BTreeMap;

use crate::devices::DeviceRule;

/// Limits and shares of a group; what is `None` or empty keeps its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu: Cpu,
    pub memory: Memory,
    /// The number of tasks.
    pub pids: Option<Limit>,
    pub block_io: BlockIo,
    pub hugetlb: Vec<HugetlbLimit>,
    pub network: Network,
    pub rdma: Vec<RdmaLimit>,
    /// In order, the last rule that fits a device decides; what none fits is allowed. Empty =
    /// leave the devices alone.
    pub devices: Vec<DeviceRule>,
    /// Files of v2 by name, written as they are. Where the controller is on v1, the names with
    /// an exact counterpart there are translated, others are an error. `memset.mems` is
    /// `cpuset.mems`.
    pub unified: BTreeMap<String, String>,
}

/// A maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Unlimited,
    Max(u64),
}

impl Limit {
    /// A maximum as OCI writes it: negative is unlimited.
    #[must_use]
    pub fn from_signed(value: i64) -> Self {
        u64::try_from(value).map_or(Self::Unlimited, Self::Max)
    }

    /// Whether this allows more than `other`.
    pub(crate) fn exceeds(self, other: Self) -> bool {
        match (self, other) {
            (_, Self::Unlimited) => false,
            (Self::Unlimited, Self::Max(_)) => true,
            (Self::Max(own), Self::Max(other)) => own > other,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// v1's scale: 2 to 262144, 1024 is the default. Takes effect only where processors are short.
    pub shares: Option<u64>,
    /// Microseconds of processor time per period.
    pub quota: Option<Limit>,
    /// Microseconds of unused quota that may be kept for later.
    pub burst: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Microseconds of real-time scheduling per period; v1 only.
    pub realtime_runtime: Option<i64>,
    /// Microseconds; v1 only.
    pub realtime_period: Option<u64>,
    /// A list of processors (`0-3,7`).
    pub cpus: Option<String>,
    /// A list of memory nodes.
    pub mems: Option<String>,
    /// 1 = run only when nothing else wants the processor.
    pub idle: Option<i64>,
}

/// Bytes, unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub limit: Option<Limit>,
    /// What the group keeps when memory is short.
    pub reservation: Option<Limit>,
    /// Memory and swap together, as v1 counts; not below `limit`.
    pub swap: Option<Limit>,
    /// v1 before Linux 5.16 only; elsewhere kernel memory is part of `limit`.
    pub kernel: Option<Limit>,
    /// v1 only.
    pub kernel_tcp: Option<Limit>,
    /// 0 to 100; v1 only.
    pub swappiness: Option<u64>,
    /// Tasks wait where the kernel would kill; v1 only.
    pub disable_oom_killer: Option<bool>,
    /// v1 before Linux 5.11; later kernels always do.
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit below what the group uses already.
    pub check_before_update: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// The weight against the group's own children; v1 before Linux 5.0 only.
    pub leaf_weight: Option<u16>,
    pub weight_devices: Vec<WeightDevice>,
    /// Bytes per second.
    pub read_bps: Vec<Throttle>,
    pub write_bps: Vec<Throttle>,
    /// Operations per second.
    pub read_iops: Vec<Throttle>,
    pub write_iops: Vec<Throttle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightDevice {
    pub device: DeviceNumber,
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
}

/// `rate` 0 = no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    pub device: DeviceNumber,
    pub rate: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugetlbLimit {
    /// As in the kernel's file names: `2MB`, `1GB`.
    pub page_size: String,
    pub limit: u64,
}

/// v1 only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    pub class_id: Option<u32>,
    pub priorities: Vec<InterfacePriority>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfacePriority {
    pub name: String,
    pub priority: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdmaLimit {
    pub device: String,
    pub handles: Option<u32>,
    pub objects: Option<u32>,
}
