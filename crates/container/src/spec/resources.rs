//! Limits and weights (config-linux.md, "Control groups"), also as `update` is given them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::go::{is_default, or_default, or_none};

/// The `linux.resources` object. `None` everywhere = leave as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// Rules, a later one over an earlier.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceRule>,
    #[serde(skip_serializing_if = "is_default")]
    pub memory: Option<Memory>,
    #[serde(skip_serializing_if = "is_default")]
    pub cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "is_default")]
    pub pids: Option<Pids>,
    #[serde(rename = "blockIO", skip_serializing_if = "is_default")]
    pub block_io: Option<BlockIo>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub hugepage_limits: Vec<HugepageLimit>,
    #[serde(skip_serializing_if = "is_default")]
    pub network: Option<Network>,
    /// By device name (`mlx5_1`).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub rdma: BTreeMap<String, Rdma>,
    /// cgroup v2 files by name (`memory.high`), written as they are.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub unified: BTreeMap<String, String>,
}

/// Which devices may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceRule {
    #[serde(deserialize_with = "or_default")]
    pub allow: bool,
    #[serde(
        rename = "type",
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub kind: DeviceRuleKind,
    /// `None` and −1 = any.
    #[serde(skip_serializing_if = "is_default")]
    pub major: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub minor: Option<i64>,
    /// Of `r`ead, `w`rite, `m`knod.
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub access: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceRuleKind {
    #[default]
    #[serde(rename = "a", alias = "")]
    All,
    #[serde(rename = "b")]
    Block,
    #[serde(rename = "c")]
    Char,
}

/// Bytes, unless said otherwise; −1 = no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Memory {
    #[serde(skip_serializing_if = "is_default")]
    pub limit: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub reservation: Option<i64>,
    /// Memory and swap together, as cgroup v1 has it.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: Option<i64>,
    /// Refused by kernels since Linux 5.16.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: Option<i64>,
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    pub kernel_tcp: Option<i64>,
    /// 0 to 100.
    #[serde(skip_serializing_if = "is_default")]
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "is_default")]
    pub disable_oom_killer: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub use_hierarchy: Option<bool>,
    /// Refuse an update below what is in use, rather than reclaim or kill.
    #[serde(skip_serializing_if = "is_default")]
    pub check_before_update: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cpu {
    /// Relative weight, 2 to 262144; 1024 is the usual one.
    #[serde(skip_serializing_if = "is_default")]
    pub shares: Option<u64>,
    /// Microseconds of CPU time per period; −1 = no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    #[serde(skip_serializing_if = "is_default")]
    pub burst: Option<u64>,
    /// Microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub period: Option<u64>,
    /// Microseconds of real-time scheduling per real-time period.
    #[serde(skip_serializing_if = "is_default")]
    pub realtime_runtime: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub realtime_period: Option<u64>,
    /// `0-3,7`.
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub cpus: Option<String>,
    /// Memory nodes, `0-1`.
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub mems: Option<String>,
    /// 1 = SCHED_IDLE for the whole group.
    #[serde(skip_serializing_if = "is_default")]
    pub idle: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pids {
    /// Tasks; −1 = no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockIo {
    /// 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: Option<u16>,
    #[serde(skip_serializing_if = "is_default")]
    pub leaf_weight: Option<u16>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub weight_device: Vec<WeightDevice>,
    /// Bytes per second.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Operations per second.
    #[serde(rename = "throttleReadIOPSDevice")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WeightDevice {
    #[serde(deserialize_with = "or_default")]
    pub major: i64,
    #[serde(deserialize_with = "or_default")]
    pub minor: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub weight: Option<u16>,
    #[serde(skip_serializing_if = "is_default")]
    pub leaf_weight: Option<u16>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ThrottleDevice {
    #[serde(deserialize_with = "or_default")]
    pub major: i64,
    #[serde(deserialize_with = "or_default")]
    pub minor: i64,
    #[serde(deserialize_with = "or_default")]
    pub rate: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HugepageLimit {
    /// `2MB`, as the hugetlb files spell it.
    #[serde(deserialize_with = "or_default")]
    pub page_size: String,
    /// Bytes.
    #[serde(deserialize_with = "or_default")]
    pub limit: u64,
}

/// cgroup v1 `net_cls` and `net_prio`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Network {
    #[serde(rename = "classID", skip_serializing_if = "is_default")]
    pub class_id: Option<u32>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub priorities: Vec<InterfacePriority>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InterfacePriority {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub priority: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rdma {
    #[serde(skip_serializing_if = "is_default")]
    pub hca_handles: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    pub hca_objects: Option<u32>,
}
