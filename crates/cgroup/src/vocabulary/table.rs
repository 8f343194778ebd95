//! The keys: one entry for each.

use crate::controller::Controller;

use super::Unit;

/// One key of the vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// `subsystem.key`; a `*` stands for a word that the kernel chooses (a page size).
    pub name: &'static str,
    pub unit: Unit,
    /// The subsystem in the kernel; `None` = v2 itself, without a controller.
    pub controller: Option<Controller>,
    /// The kernel's value in a new group.
    pub default: &'static str,
    pub(super) v1: Side,
    pub(super) v2: Side,
    /// What it does, for people.
    pub about: &'static str,
    /// Whether no group below can have more.
    pub(super) bounds: bool,
}

/// How one version has a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    /// In the first of these files that the kernel has.
    Files(&'static [(&'static str, Notation)]),
    /// Not at all, and why.
    Lacks(&'static str),
    /// Not as a file, but always with this value.
    Always(&'static str),
    /// As programs on the v2 group, whose text the group keeps.
    Policy,
    /// In several files together: v1's memory and swap, v1's bandwidth, the rates of devices.
    Compound(Compound),
}

/// How a file writes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// As v2 does: `max`, a number, `QUOTA PERIOD`.
    Plain,
    /// v1's `-1` for no limit.
    Signed,
    /// v1's soft limit, which is unlimited where v2's `low` is 0.
    Soft,
    /// v1's shares, of which 1024 are v2's weight of 100.
    Shares,
    /// A weight of at most 1000.
    Bfq,
    /// `THAWED`, `FROZEN`.
    FreezerState,
    /// `0`, `1` for thawed and frozen.
    Freeze,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compound {
    /// `memory.memsw.limit_in_bytes` less `memory.limit_in_bytes`.
    SwapV1,
    /// `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
    BandwidthV1,
    /// `blkio.throttle.*_device`.
    RatesV1,
    /// `io.max`.
    RatesV2,
}

/// All keys, in the order in which several are written.
#[must_use]
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

const ONLY_V2: &str = "is on v1, which has no such value";
const ONLY_V1: &str = "is on v2, which has no such value";

const fn file(file: &'static [(&'static str, Notation)]) -> Side {
    Side::Files(file)
}

const fn entry(
    name: &'static str,
    unit: Unit,
    controller: Controller,
    default: &'static str,
    sides: (Side, Side),
    about: &'static str,
) -> Entry {
    Entry {
        name,
        unit,
        controller: Some(controller),
        default,
        v1: sides.0,
        v2: sides.1,
        about,
        bounds: false,
    }
}

const fn bounding(entry: Entry) -> Entry {
    Entry {
        bounds: true,
        ..entry
    }
}

/// v2 itself has it, whatever the controllers.
const fn of_v2(
    name: &'static str,
    files: &'static [(&'static str, Notation)],
    about: &'static str,
) -> Entry {
    Entry {
        name,
        unit: Unit::Count,
        controller: None,
        default: "max",
        v1: Side::Lacks(ONLY_V2),
        v2: Side::Files(files),
        about,
        bounds: true,
    }
}

const fn policy(name: &'static str, about: &'static str) -> Entry {
    Entry {
        name,
        unit: Unit::Policy,
        controller: None,
        default: "allow",
        v1: Side::Lacks(ONLY_V2),
        v2: Side::Policy,
        about,
        bounds: true,
    }
}

use Controller::{Cpu, Cpuset, Freezer, Hugetlb, Io, Memory, Misc, Pids, Rdma};
use Notation::{Bfq, Freeze, FreezerState, Plain, Shares, Signed, Soft};
use Side::{Always, Compound as Together, Lacks};

const WEIGHT: Unit = Unit::Number {
    least: 1,
    most: 10_000,
};

const ENTRIES: &[Entry] = &[
    entry(
        "cpu.weight",
        WEIGHT,
        Cpu,
        "100",
        (
            file(&[("cpu.shares", Shares)]),
            file(&[("cpu.weight", Plain)]),
        ),
        "share of the processors against its siblings, where they are short",
    ),
    entry(
        "cpu.idle",
        Unit::Switch,
        Cpu,
        "0",
        (file(&[("cpu.idle", Plain)]), file(&[("cpu.idle", Plain)])),
        "run only when nothing else wants the processor",
    ),
    bounding(entry(
        "cpu.max",
        Unit::Bandwidth,
        Cpu,
        "max",
        (Together(Compound::BandwidthV1), file(&[("cpu.max", Plain)])),
        "processor time, in percent of one processor",
    )),
    entry(
        "cpu.max.burst",
        Unit::Time,
        Cpu,
        "0",
        (
            file(&[("cpu.cfs_burst_us", Plain)]),
            file(&[("cpu.max.burst", Plain)]),
        ),
        "unused time that may be kept for later periods",
    ),
    entry(
        "cpu.uclamp.min",
        Unit::Percent,
        Cpu,
        "0",
        (
            file(&[("cpu.uclamp.min", Plain)]),
            file(&[("cpu.uclamp.min", Plain)]),
        ),
        "least speed of the processor that its tasks ask for",
    ),
    entry(
        "cpu.uclamp.max",
        Unit::Percent,
        Cpu,
        "100",
        (
            file(&[("cpu.uclamp.max", Plain)]),
            file(&[("cpu.uclamp.max", Plain)]),
        ),
        "most speed of the processor that its tasks ask for",
    ),
    entry(
        "cpuset.cpus",
        Unit::List,
        Cpuset,
        "inherit",
        (
            file(&[("cpuset.cpus", Plain)]),
            file(&[("cpuset.cpus", Plain)]),
        ),
        "processors it may run on",
    ),
    entry(
        "cpuset.cpu_exclusive",
        Unit::Switch,
        Cpuset,
        "0",
        (
            file(&[("cpuset.cpu_exclusive", Plain)]),
            Lacks("is on v2, which has cpuset.partition instead"),
        ),
        "share its processors with no sibling",
    ),
    entry(
        "cpuset.sched_load_balance",
        Unit::Switch,
        Cpuset,
        "1",
        (file(&[("cpuset.sched_load_balance", Plain)]), Always("1")),
        "spread tasks over its processors",
    ),
    entry(
        "cpuset.partition",
        Unit::Word(&["member", "root", "isolated"]),
        Cpuset,
        "member",
        (Always("member"), file(&[("cpuset.cpus.partition", Plain)])),
        "make its processors a scheduling domain of their own",
    ),
    entry(
        "memset.mems",
        Unit::List,
        Cpuset,
        "inherit",
        (
            file(&[("cpuset.mems", Plain)]),
            file(&[("cpuset.mems", Plain)]),
        ),
        "memory nodes it may use",
    ),
    entry(
        "memset.memory_migrate",
        Unit::Switch,
        Cpuset,
        "0",
        (file(&[("cpuset.memory_migrate", Plain)]), Always("1")),
        "move its pages when its memory nodes change",
    ),
    entry(
        "memset.memory_spread_page",
        Unit::Switch,
        Cpuset,
        "0",
        (file(&[("cpuset.memory_spread_page", Plain)]), Always("0")),
        "spread its page cache over its memory nodes",
    ),
    entry(
        "memset.memory_spread_slab",
        Unit::Switch,
        Cpuset,
        "0",
        (file(&[("cpuset.memory_spread_slab", Plain)]), Always("0")),
        "spread its inodes and dentries over its memory nodes",
    ),
    entry(
        "memset.mem_hardwall",
        Unit::Switch,
        Cpuset,
        "0",
        (file(&[("cpuset.mem_hardwall", Plain)]), Always("0")),
        "hold the kernel's own allocations for it to its memory nodes",
    ),
    entry(
        "memset.mem_exclusive",
        Unit::Switch,
        Cpuset,
        "0",
        (file(&[("cpuset.mem_exclusive", Plain)]), Always("0")),
        "share its memory nodes with no sibling",
    ),
    entry(
        "memory.min",
        Unit::Bytes,
        Memory,
        "0",
        (Lacks(ONLY_V2), file(&[("memory.min", Plain)])),
        "memory that is never taken from it",
    ),
    entry(
        "memory.low",
        Unit::Bytes,
        Memory,
        "0",
        (
            file(&[("memory.soft_limit_in_bytes", Soft)]),
            file(&[("memory.low", Plain)]),
        ),
        "memory that is taken from it last; v1: what is above it is taken first",
    ),
    bounding(entry(
        "memory.high",
        Unit::Bytes,
        Memory,
        "max",
        (Lacks(ONLY_V2), file(&[("memory.high", Plain)])),
        "memory above which it is slowed down",
    )),
    bounding(entry(
        "memory.max",
        Unit::Bytes,
        Memory,
        "max",
        (
            file(&[("memory.limit_in_bytes", Signed)]),
            file(&[("memory.max", Plain)]),
        ),
        "memory it may use",
    )),
    entry(
        "memory.swap.high",
        Unit::Bytes,
        Memory,
        "max",
        (Lacks(ONLY_V2), file(&[("memory.swap.high", Plain)])),
        "swap above which it is slowed down",
    ),
    entry(
        "memory.swap.max",
        Unit::Bytes,
        Memory,
        "max",
        (
            Together(Compound::SwapV1),
            file(&[("memory.swap.max", Plain)]),
        ),
        "swap it may use; v1: needs a memory.max",
    ),
    entry(
        "memory.zswap.max",
        Unit::Bytes,
        Memory,
        "max",
        (Lacks(ONLY_V2), file(&[("memory.zswap.max", Plain)])),
        "compressed swap it may use",
    ),
    entry(
        "memory.swappiness",
        Unit::Number {
            least: 0,
            most: 200,
        },
        Memory,
        "60",
        (file(&[("memory.swappiness", Plain)]), Lacks(ONLY_V1)),
        "how readily it is swapped out",
    ),
    entry(
        "memory.oom.group",
        Unit::Switch,
        Memory,
        "0",
        (Lacks(ONLY_V2), file(&[("memory.oom.group", Plain)])),
        "kill all of it when memory ends, not one process",
    ),
    entry(
        "io.weight",
        WEIGHT,
        Io,
        "100",
        (
            file(&[("blkio.bfq.weight", Bfq), ("blkio.weight", Bfq)]),
            file(&[("io.weight", Plain), ("io.bfq.weight", Bfq)]),
        ),
        "share of the devices against its siblings",
    ),
    entry(
        "io.max",
        Unit::Rates,
        Io,
        "",
        (Together(Compound::RatesV1), Together(Compound::RatesV2)),
        "bytes and operations per second and device; v1: not for buffered writes",
    ),
    bounding(entry(
        "pids.max",
        Unit::Count,
        Pids,
        "max",
        (file(&[("pids.max", Plain)]), file(&[("pids.max", Plain)])),
        "processes and threads",
    )),
    bounding(entry(
        "hugetlb.*.max",
        Unit::Bytes,
        Hugetlb,
        "max",
        (
            file(&[("hugetlb.*.limit_in_bytes", Signed)]),
            file(&[("hugetlb.*.max", Plain)]),
        ),
        "huge pages of a size (2MB, 1GB) in use",
    )),
    bounding(entry(
        "hugetlb.*.rsvd.max",
        Unit::Bytes,
        Hugetlb,
        "max",
        (
            file(&[("hugetlb.*.rsvd.limit_in_bytes", Signed)]),
            file(&[("hugetlb.*.rsvd.max", Plain)]),
        ),
        "huge pages of a size reserved",
    )),
    entry(
        "rdma.max",
        Unit::Text,
        Rdma,
        "",
        (file(&[("rdma.max", Plain)]), file(&[("rdma.max", Plain)])),
        "RDMA handles and objects: DEVICE hca_handle=N hca_object=N",
    ),
    entry(
        "misc.max",
        Unit::Text,
        Misc,
        "",
        (file(&[("misc.max", Plain)]), file(&[("misc.max", Plain)])),
        "other countable resources of the machine: NAME N",
    ),
    of_v2(
        "cgroup.max.depth",
        &[("cgroup.max.depth", Plain)],
        "levels of groups below it",
    ),
    of_v2(
        "cgroup.max.descendants",
        &[("cgroup.max.descendants", Plain)],
        "groups below it",
    ),
    Entry {
        name: "freezer.state",
        unit: Unit::Word(&["thawed", "frozen"]),
        controller: Some(Freezer),
        default: "thawed",
        v1: file(&[("freezer.state", FreezerState)]),
        v2: file(&[("cgroup.freeze", Freeze)]),
        about: "whether its processes are held",
        bounds: true,
    },
    policy(
        "net.connect",
        "peers that its sockets may connect and send datagrams to",
    ),
    policy("net.bind", "addresses and ports that its sockets may have"),
    policy(
        "net.accept",
        "peers that may connect to its listening sockets",
    ),
];

/// Files and knobs that were `cpuset`'s before memset was a subsystem of its own.
const MEMSET: [&str; 6] = [
    "mems",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "mem_hardwall",
    "mem_exclusive",
];

/// The entry of a key, and what stands for its `*`.
pub(super) fn find(text: &str) -> Option<(usize, String)> {
    let memset = text
        .strip_prefix("cpuset.")
        .filter(|knob| MEMSET.contains(knob))
        .map(|knob| format!("memset.{knob}"));
    let name = memset.as_deref().unwrap_or(text);
    ENTRIES.iter().enumerate().find_map(|(index, entry)| {
        let Some((before, after)) = entry.name.split_once('*') else {
            return (entry.name == name).then(|| (index, String::new()));
        };
        let variable = name.strip_prefix(before)?.strip_suffix(after)?;
        let plain = !variable.is_empty() && variable.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then(|| (index, variable.to_owned()))
    })
}
