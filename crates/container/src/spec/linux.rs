//! What only Linux has (config-linux.md).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::go::{is_default, or_default, or_none};
use super::words::words;
use super::{Resources, Seccomp};

/// The `linux` object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters by dotted name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub sysctl: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub resources: Option<Resources>,
    /// A path in every hierarchy, or for systemd `slice:prefix:name`.
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub cgroups_path: Option<String>,
    /// Namespaces to make or join; one of a kind that is not listed is the runtime's.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub devices: Vec<Device>,
    /// Network devices to move into the container, by their name outside.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub net_devices: BTreeMap<String, NetDevice>,
    #[serde(skip_serializing_if = "is_default")]
    pub seccomp: Option<Seccomp>,
    /// `shared`, `slave`, `private`, `unbindable`, or recursive (`rslave`).
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub rootfs_propagation: Option<String>,
    /// Made unreadable.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub masked_paths: Vec<PathBuf>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub readonly_paths: Vec<PathBuf>,
    /// SELinux context of the mounts.
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub mount_label: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub intel_rdt: Option<IntelRdt>,
    #[serde(skip_serializing_if = "is_default")]
    pub memory_policy: Option<MemoryPolicy>,
    #[serde(skip_serializing_if = "is_default")]
    pub personality: Option<Personality>,
    /// Offsets of the time namespace's clocks, by clock: `monotonic`, `boottime`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// The namespace file to join; `None` = a new one.
    #[serde(
        default,
        deserialize_with = "or_none",
        skip_serializing_if = "is_default"
    )]
    pub path: Option<PathBuf>,
}

words! {
    pub enum NamespaceKind {
        Pid = "pid",
        Network = "network",
        Mount = "mount",
        Ipc = "ipc",
        Uts = "uts",
        User = "user",
        Cgroup = "cgroup",
        Time = "time",
    }
}

/// A range of ids: `size` ids from `container_id` on are those from `host_id` on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdMapping {
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    pub container_id: u32,
    #[serde(rename = "hostID", deserialize_with = "or_default")]
    pub host_id: u32,
    #[serde(deserialize_with = "or_default")]
    pub size: u32,
}

/// An offset of a clock: seconds and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub secs: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub nanosecs: u32,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Absolute inside the container.
    #[serde(default, deserialize_with = "or_default")]
    pub path: PathBuf,
    #[serde(rename = "type")]
    pub kind: DeviceKind,
    #[serde(default, deserialize_with = "or_default")]
    pub major: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub minor: i64,
    /// Permission bits; `None` = 0666.
    #[serde(default, skip_serializing_if = "is_default")]
    pub file_mode: Option<u32>,
    /// Owner in the container; `None` = 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uid: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub gid: Option<u32>,
}

words! {
    pub enum DeviceKind {
        Block = "b",
        Char = "c",
        /// A character device, unbuffered: on Linux the same.
        Unbuffered = "u",
        Fifo = "p",
    }
}

/// A network device to move in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// Its name inside; `None` = the same.
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub name: Option<String>,
}

/// Groups of the resctrl file system (config-linux.md, "IntelRdt").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IntelRdt {
    #[serde(
        rename = "closID",
        deserialize_with = "or_none",
        skip_serializing_if = "is_default"
    )]
    pub clos_id: Option<String>,
    /// Lines for the `schemata` file; they win over the two below.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub schemata: Vec<String>,
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub l3_cache_schema: Option<String>,
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub mem_bw_schema: Option<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub enable_monitoring: bool,
}

/// Arguments of set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryPolicy {
    pub mode: MemoryPolicyMode,
    /// Nodes as a list of ranges, `0-3,7`.
    #[serde(
        default,
        deserialize_with = "or_none",
        skip_serializing_if = "is_default"
    )]
    pub nodes: Option<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub flags: Vec<MemoryPolicyFlag>,
}

words! {
    pub enum MemoryPolicyMode {
        Default = "MPOL_DEFAULT",
        Bind = "MPOL_BIND",
        Interleave = "MPOL_INTERLEAVE",
        WeightedInterleave = "MPOL_WEIGHTED_INTERLEAVE",
        Preferred = "MPOL_PREFERRED",
        PreferredMany = "MPOL_PREFERRED_MANY",
        Local = "MPOL_LOCAL",
    }
}

words! {
    pub enum MemoryPolicyFlag {
        NumaBalancing = "MPOL_F_NUMA_BALANCING",
        RelativeNodes = "MPOL_F_RELATIVE_NODES",
        StaticNodes = "MPOL_F_STATIC_NODES",
    }
}

/// Arguments of personality(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Personality {
    pub domain: PersonalityDomain,
    /// None is defined by the specification so far.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub flags: Vec<String>,
}

words! {
    pub enum PersonalityDomain {
        Linux = "LINUX",
        Linux32 = "LINUX32",
    }
}
