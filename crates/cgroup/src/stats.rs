//! What a group uses and has used.

mod parse;
mod totals;

pub(crate) use parse::list as numbers_in_list;
pub use totals::Totals;

use std::collections::BTreeMap;
use std::path::Path;

use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::file;
use crate::group::Group;
use crate::plan::Place;

/// A group's use of each resource; `None` where no controller counts it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    pub cpu: CpuStats,
    pub cpuset: Option<CpusetStats>,
    pub memory: Option<MemoryStats>,
    pub pids: Option<PidsStats>,
    pub block_io: Option<BlockIoStats>,
    /// By page size (`2MB`).
    pub hugetlb: BTreeMap<String, Usage>,
    pub rdma: Vec<RdmaStats>,
}

/// Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuStats {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    /// Per processor; v1 only.
    pub per_cpu: Vec<u64>,
    pub per_cpu_user: Vec<u64>,
    pub per_cpu_kernel: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
    pub bursts: u64,
    pub burst_time: u64,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpusetStats {
    pub cpus: Vec<u32>,
    pub mems: Vec<u32>,
    /// v1's flags, by file (`cpu_exclusive`, `memory_migrate`, …).
    pub flags: BTreeMap<String, u64>,
}

/// In bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStats {
    pub cache: u64,
    pub usage: Usage,
    /// Memory and swap together, on v2 too.
    pub swap: Usage,
    /// Swap alone; v2 only.
    pub swap_only: Usage,
    pub kernel: Usage,
    pub kernel_tcp: Usage,
    /// `memory.stat` as it is.
    pub raw: BTreeMap<String, u64>,
    pub pressure: Option<Pressure>,
    /// How often the kernel killed in this group for want of memory.
    pub oom_kills: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub usage: u64,
    /// The most that was ever used.
    pub max: u64,
    /// How often the limit was hit.
    pub fail_count: u64,
    /// `u64::MAX` on v2, the kernel's largest number on v1: no limit.
    pub limit: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    pub current: u64,
    /// 0 = no limit.
    pub limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockIoStats {
    pub service_bytes: Vec<BlockIoEntry>,
    pub serviced: Vec<BlockIoEntry>,
    pub queued: Vec<BlockIoEntry>,
    pub service_time: Vec<BlockIoEntry>,
    pub wait_time: Vec<BlockIoEntry>,
    pub merged: Vec<BlockIoEntry>,
    pub time: Vec<BlockIoEntry>,
    pub sectors: Vec<BlockIoEntry>,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIoEntry {
    pub major: u32,
    pub minor: u32,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`; empty where none is told.
    pub operation: String,
    pub value: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdmaStats {
    pub device: String,
    pub handles: u64,
    pub objects: u64,
    /// `None` = no limit.
    pub handles_limit: Option<u64>,
    pub objects_limit: Option<u64>,
}

/// Pressure stall information: the share of time in which tasks waited for the resource.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// All tasks did.
    pub full: Stall,
}

/// Averages in percent, the total in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

impl Group {
    /// Reads the group's counters.
    ///
    /// # Errors
    /// The group is gone, or cannot be read. A file that this kernel lacks counts as zero.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats {
            cpu: self.cpu_stats()?,
            ..Stats::default()
        };
        let Some(speaker) = self.telling() else {
            return Ok(stats);
        };
        if !self.exists() {
            return Err(Error::kernel(
                "read statistics of",
                speaker,
                sys::Errno::NOENT,
            ));
        }
        stats.cpuset = self.on(Controller::Cpuset, cpuset)?;
        stats.memory = self.on(Controller::Memory, |place, files| match place {
            Place::V1(_) => memory_v1(files),
            Place::V2 => memory_v2(files),
        })?;
        stats.pids = self.on(Controller::Pids, |_, files| {
            Ok(PidsStats {
                current: files.number("pids.current")?,
                limit: files.limit("pids.max")?,
            })
        })?;
        stats.block_io = self.on(Controller::Io, |place, files| match place {
            Place::V1(_) => block_io_v1(files),
            Place::V2 => block_io_v2(files),
        })?;
        stats.hugetlb = self.on(Controller::Hugetlb, hugetlb)?.unwrap_or_default();
        stats.rdma = self
            .on(Controller::Rdma, |_, files| {
                Ok(parse::rdma(
                    &files.text("rdma.current")?,
                    &files.text("rdma.max")?,
                ))
            })?
            .unwrap_or_default();
        self.add_pressure(&mut stats)?;
        Ok(stats)
    }

    fn on<T>(
        &self,
        controller: Controller,
        read: impl FnOnce(Place, &Files<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some((place, directory)) = self.place_of(controller) else {
            return Ok(None);
        };
        read(place, &Files(directory)).map(Some)
    }

    fn cpu_stats(&self) -> Result<CpuStats> {
        let mut stats = CpuStats::default();
        if let Some((Place::V1(_), directory)) = self.place_of(Controller::Cpuacct) {
            cpuacct(&mut stats, &Files(directory))?;
        } else if let Some(v2) = self.v2_path() {
            // v2 counts time in every group, with and without the controller.
            let fields = parse::flat(&Files(v2).text("cpu.stat")?);
            let time = |name: &str| fields.get(name).copied().unwrap_or_default() * 1000;
            stats.total = time("usage_usec");
            stats.user = time("user_usec");
            stats.kernel = time("system_usec");
        }
        if let Some((place, directory)) = self.place_of(Controller::Cpu) {
            let fields = parse::flat(&Files(directory).text("cpu.stat")?);
            let field = |name: &str| fields.get(name).copied().unwrap_or_default();
            stats.periods = field("nr_periods");
            stats.throttled_periods = field("nr_throttled");
            stats.bursts = field("nr_bursts");
            (stats.throttled_time, stats.burst_time) = match place {
                Place::V1(_) => (field("throttled_time"), field("burst_time")),
                Place::V2 => (field("throttled_usec") * 1000, field("burst_usec") * 1000),
            };
        }
        Ok(stats)
    }

    /// Pressure is told by every v2 group, whoever has the controllers.
    fn add_pressure(&self, stats: &mut Stats) -> Result<()> {
        let Some(v2) = self.v2_path() else {
            return Ok(());
        };
        let files = Files(v2);
        stats.cpu.pressure = files.pressure("cpu.pressure")?;
        if let Some(memory) = &mut stats.memory {
            memory.pressure = files.pressure("memory.pressure")?;
        }
        if let Some(io) = &mut stats.block_io {
            io.pressure = files.pressure("io.pressure")?;
        }
        Ok(())
    }
}

/// The kernel tells times to user space in hundredths of a second on every architecture that
/// floe runs on (USER_HZ), whatever its own tick is.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// The files of one directory; one that the kernel does not have reads as empty, or zero.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn text(&self, name: &str) -> Result<String> {
        Ok(file::read_optional(&self.0.join(name))?.unwrap_or_default())
    }

    fn number(&self, name: &str) -> Result<u64> {
        Ok(parse::number(&self.text(name)?))
    }

    /// 0 for `max`.
    fn limit(&self, name: &str) -> Result<u64> {
        let limit = self.number(name)?;
        Ok(if limit == u64::MAX { 0 } else { limit })
    }

    fn pressure(&self, name: &str) -> Result<Option<Pressure>> {
        match file::read_optional(&self.0.join(name)) {
            Ok(text) => Ok(text.as_deref().and_then(parse::pressure)),
            // Built in, switched off.
            Err(error) if error.errno() == Some(sys::Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn usage_v1(&self, prefix: &str) -> Result<Usage> {
        Ok(Usage {
            usage: self.number(&format!("{prefix}.usage_in_bytes"))?,
            max: self.number(&format!("{prefix}.max_usage_in_bytes"))?,
            fail_count: self.number(&format!("{prefix}.failcnt"))?,
            limit: self.number(&format!("{prefix}.limit_in_bytes"))?,
        })
    }
}

fn cpuacct(stats: &mut CpuStats, files: &Files<'_>) -> Result<()> {
    stats.total = files.number("cpuacct.usage")?;
    stats.per_cpu = parse::numbers(&files.text("cpuacct.usage_percpu")?);
    let rows = parse::usage_all(&files.text("cpuacct.usage_all")?);
    (stats.per_cpu_user, stats.per_cpu_kernel) = rows.into_iter().unzip();
    let ticks = parse::flat(&files.text("cpuacct.stat")?);
    let time = |name: &str| ticks.get(name).copied().unwrap_or_default() * NANOSECONDS_PER_TICK;
    stats.user = time("user");
    stats.kernel = time("system");
    Ok(())
}

fn cpuset(place: Place, files: &Files<'_>) -> Result<CpusetStats> {
    if place == Place::V2 {
        return Ok(CpusetStats {
            cpus: parse::list(&files.text("cpuset.cpus.effective")?),
            mems: parse::list(&files.text("cpuset.mems.effective")?),
            flags: BTreeMap::new(),
        });
    }
    let names = [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ];
    // A cpuset mounted without prefix has bare names.
    let either = |name: &str| -> Result<String> {
        let text = files.text(&format!("cpuset.{name}"))?;
        if text.is_empty() {
            files.text(name)
        } else {
            Ok(text)
        }
    };
    let mut flags = BTreeMap::new();
    for name in names {
        flags.insert(name.to_owned(), parse::number(&either(name)?));
    }
    let (cpus, mems) = (parse::list(&either("cpus")?), parse::list(&either("mems")?));
    Ok(CpusetStats { cpus, mems, flags })
}

fn memory_v1(files: &Files<'_>) -> Result<MemoryStats> {
    let raw = parse::flat(&files.text("memory.stat")?);
    let hierarchical = files.number("memory.use_hierarchy")? != 0;
    let cache = if hierarchical { "total_cache" } else { "cache" };
    let control = parse::flat(&files.text("memory.oom_control")?);
    Ok(MemoryStats {
        cache: raw
            .get(cache)
            .or_else(|| raw.get("cache"))
            .copied()
            .unwrap_or_default(),
        usage: files.usage_v1("memory")?,
        swap: files.usage_v1("memory.memsw")?,
        swap_only: Usage::default(),
        kernel: files.usage_v1("memory.kmem")?,
        kernel_tcp: files.usage_v1("memory.kmem.tcp")?,
        raw,
        pressure: None,
        oom_kills: control.get("oom_kill").copied().unwrap_or_default(),
    })
}

fn memory_v2(files: &Files<'_>) -> Result<MemoryStats> {
    let raw = parse::flat(&files.text("memory.stat")?);
    let events = parse::flat(&files.text("memory.events")?);
    let swap_events = parse::flat(&files.text("memory.swap.events")?);
    let event =
        |events: &BTreeMap<String, u64>, name: &str| events.get(name).copied().unwrap_or_default();
    let usage = Usage {
        usage: files.number("memory.current")?,
        max: files.number("memory.peak")?,
        fail_count: event(&events, "max"),
        limit: files.number("memory.max")?,
    };
    let swap_only = Usage {
        usage: files.number("memory.swap.current")?,
        max: files.number("memory.swap.peak")?,
        fail_count: event(&swap_events, "fail"),
        limit: files.number("memory.swap.max")?,
    };
    let swap = Usage {
        usage: usage.usage.saturating_add(swap_only.usage),
        max: 0,
        fail_count: swap_only.fail_count,
        limit: usage.limit.saturating_add(swap_only.limit),
    };
    let kernel = Usage {
        usage: event(&raw, "kernel"),
        ..Usage::default()
    };
    Ok(MemoryStats {
        cache: event(&raw, "file"),
        usage,
        swap,
        swap_only,
        kernel,
        kernel_tcp: Usage {
            usage: event(&raw, "sock"),
            ..Usage::default()
        },
        oom_kills: event(&events, "oom_kill"),
        raw,
        pressure: None,
    })
}

/// Which of v1's counters are there depends on the scheduler; those of throttling always are.
fn block_io_v1(files: &Files<'_>) -> Result<BlockIoStats> {
    let read = |names: [&str; 3]| -> Result<Vec<BlockIoEntry>> {
        for name in names {
            let entries = parse::block_io_v1(&files.text(name)?);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    let scheduler = |name: &str| {
        let bfq = format!("blkio.bfq.{name}");
        let plain = format!("blkio.{name}");
        read([&bfq, &plain, &plain])
    };
    Ok(BlockIoStats {
        service_bytes: read([
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ])?,
        serviced: read([
            "blkio.bfq.io_serviced_recursive",
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        ])?,
        queued: scheduler("io_queued_recursive")?,
        service_time: scheduler("io_service_time_recursive")?,
        wait_time: scheduler("io_wait_time_recursive")?,
        merged: scheduler("io_merged_recursive")?,
        time: scheduler("time_recursive")?,
        sectors: scheduler("sectors_recursive")?,
        pressure: None,
    })
}

fn block_io_v2(files: &Files<'_>) -> Result<BlockIoStats> {
    let (service_bytes, serviced) = parse::block_io_v2(&files.text("io.stat")?);
    Ok(BlockIoStats {
        service_bytes,
        serviced,
        ..BlockIoStats::default()
    })
}

fn hugetlb(place: Place, files: &Files<'_>) -> Result<BTreeMap<String, Usage>> {
    let suffix = if place == Place::V2 {
        ".current"
    } else {
        ".usage_in_bytes"
    };
    let mut all = BTreeMap::new();
    let entries = std::fs::read_dir(files.0).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name
            .strip_prefix("hugetlb.")
            .and_then(|rest| rest.strip_suffix(suffix));
        // `hugetlb.2MB.rsvd.current` counts reservations.
        let Some(size) = size.filter(|size| !size.contains('.')) else {
            continue;
        };
        let usage = match place {
            Place::V1(_) => files.usage_v1(&format!("hugetlb.{size}"))?,
            Place::V2 => {
                let events = parse::flat(&files.text(&format!("hugetlb.{size}.events"))?);
                Usage {
                    usage: files.number(&name)?,
                    max: 0,
                    fail_count: events.get("max").copied().unwrap_or_default(),
                    limit: files.number(&format!("hugetlb.{size}.max"))?,
                }
            }
        };
        all.insert(size.to_owned(), usage);
    }
    Ok(all)
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
