//! The process (config.md, "Process"), also as `exec --process` is given it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::go::{is_default, or_default, or_none};
use super::words::words;

/// What runs in the container, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub terminal: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub console_size: Option<ConsoleSize>,
    #[serde(deserialize_with = "or_default")]
    pub user: User,
    /// argv, with argv\[0\]; looked up in `PATH` of `env`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// The whole environment, `NAME=value`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// Absolute, inside the container.
    #[serde(deserialize_with = "or_default")]
    pub cwd: PathBuf,
    /// `None` = none at all.
    #[serde(skip_serializing_if = "is_default")]
    pub capabilities: Option<Capabilities>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub rlimits: Vec<Rlimit>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub apparmor_profile: Option<String>,
    /// −1000 to 1000; `None` = unchanged.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: Option<i64>,
    #[serde(skip_serializing_if = "is_default")]
    pub scheduler: Option<Scheduler>,
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub selinux_label: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "is_default")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// Size of the terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsoleSize {
    #[serde(deserialize_with = "or_default")]
    pub height: u64,
    #[serde(deserialize_with = "or_default")]
    pub width: u64,
}

/// Ids as the container's user namespace sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    #[serde(deserialize_with = "or_default")]
    pub uid: u32,
    #[serde(deserialize_with = "or_default")]
    pub gid: u32,
    /// `None` = the runtime's default, 0022.
    #[serde(skip_serializing_if = "is_default")]
    pub umask: Option<u32>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub additional_gids: Vec<u32>,
}

/// Capability sets by name (`CAP_NET_ADMIN`). Texts, as names that the kernel lacks are let pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Capabilities {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub bounding: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub effective: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub inheritable: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub permitted: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub ambient: Vec<String>,
}

/// One limit of setrlimit(2). `u64::MAX` = RLIM_INFINITY.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub hard: u64,
    #[serde(deserialize_with = "or_default")]
    pub soft: u64,
}

/// Arguments of sched_setattr(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduler {
    pub policy: SchedulerPolicy,
    /// −20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub nice: i32,
    /// Static priority, for `SCHED_FIFO` and `SCHED_RR`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub priority: i32,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub flags: Vec<SchedulerFlag>,
    /// Nanoseconds, for `SCHED_DEADLINE`, as are the next two.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub runtime: u64,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub deadline: u64,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub period: u64,
}

words! {
    pub enum SchedulerPolicy {
        SchedOther = "SCHED_OTHER",
        SchedFifo = "SCHED_FIFO",
        SchedRr = "SCHED_RR",
        SchedBatch = "SCHED_BATCH",
        SchedIso = "SCHED_ISO",
        SchedIdle = "SCHED_IDLE",
        SchedDeadline = "SCHED_DEADLINE",
    }
}

words! {
    pub enum SchedulerFlag {
        ResetOnFork = "SCHED_FLAG_RESET_ON_FORK",
        Reclaim = "SCHED_FLAG_RECLAIM",
        DlOverrun = "SCHED_FLAG_DL_OVERRUN",
        KeepPolicy = "SCHED_FLAG_KEEP_POLICY",
        KeepParams = "SCHED_FLAG_KEEP_PARAMS",
        UtilClampMin = "SCHED_FLAG_UTIL_CLAMP_MIN",
        UtilClampMax = "SCHED_FLAG_UTIL_CLAMP_MAX",
    }
}

/// Arguments of ioprio_set(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IoPriority {
    pub class: IoPriorityClass,
    /// 0 (first) to 7.
    #[serde(default, deserialize_with = "or_default")]
    pub priority: i64,
}

words! {
    pub enum IoPriorityClass {
        RealTime = "IOPRIO_CLASS_RT",
        BestEffort = "IOPRIO_CLASS_BE",
        Idle = "IOPRIO_CLASS_IDLE",
    }
}

/// CPUs (`0-3,7`) of a process that `exec` starts: before and after it enters its group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CpuAffinity {
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub initial: Option<String>,
    #[serde(
        rename = "final",
        deserialize_with = "or_none",
        skip_serializing_if = "is_default"
    )]
    pub last: Option<String>,
}
