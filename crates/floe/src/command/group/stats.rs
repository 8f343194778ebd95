//! `floe group stats`

use anyhow::Result;
use cgroup::stats::{Pressure, Stats};
use cgroup::{Group, Name};
use clap::Args;
use serde_json::{Value, json};

use super::{Groups, is_containers};
use crate::output::{self, Format};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Also the groups below it
    #[arg(short, long)]
    recursive: bool,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Names; all if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// What a group has used, and uses now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Nanoseconds of processor time.
    pub(super) cpu: u64,
    pub(super) user: u64,
    pub(super) system: u64,
    pub(super) throttled: u64,
    /// Bytes.
    pub(super) memory: u64,
    pub(super) memory_peak: u64,
    pub(super) swap: u64,
    pub(super) oom_kills: u64,
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) pids: u64,
}

impl Usage {
    pub(super) fn of(stats: &Stats) -> Self {
        let mut usage = Self {
            cpu: stats.cpu.total,
            user: stats.cpu.user,
            system: stats.cpu.kernel,
            throttled: stats.cpu.throttled_time,
            pids: stats.pids.map_or(0, |pids| pids.current),
            ..Self::default()
        };
        if let Some(memory) = &stats.memory {
            usage.memory = memory.usage.usage;
            usage.memory_peak = memory.usage.max;
            usage.swap = memory.swap.usage.saturating_sub(memory.usage.usage);
            usage.oom_kills = memory.oom_kills;
        }
        if let Some(io) = &stats.block_io {
            let sum = |entries: &[cgroup::stats::BlockIoEntry], operation: &str| {
                let fitting = entries.iter().filter(|entry| entry.operation == operation);
                fitting.map(|entry| entry.value).sum()
            };
            usage.read = sum(&io.service_bytes, "Read");
            usage.written = sum(&io.service_bytes, "Write");
            usage.reads = sum(&io.serviced, "Read");
            usage.writes = sum(&io.serviced, "Write");
        }
        usage
    }
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let groups = Groups::open()?;
    let mut names = Vec::new();
    for name in super::names(&flags.names)? {
        names.extend(groups.chosen(&name, flags.recursive)?);
    }
    if flags.names.is_empty() {
        names = groups.below(None);
        names.retain(|name| !is_containers(name));
    }
    let mut found: Vec<(Name, Stats)> = Vec::new();
    for name in names {
        match groups
            .find(&name)
            .and_then(|group: Group| Ok(group.stats()?))
        {
            Ok(stats) => found.push((name, stats)),
            // One that has gone meanwhile, unless it was asked for.
            Err(error) if !flags.names.is_empty() => return Err(error),
            Err(_) => {}
        }
    }
    match flags.format {
        Format::Json => output::json(&found.iter().map(json).collect::<Vec<_>>())?,
        Format::Table => {
            let rows: Vec<_> = found.iter().map(row).collect();
            let head = [
                "NAME",
                "CPU TIME",
                "MEMORY",
                "PEAK",
                "READ / WRITTEN",
                "PIDS",
                "PRESSURE cpu / memory / io",
            ];
            output::print(&text::table(&head, &rows))?;
        }
    }
    Ok(0)
}

fn row((name, stats): &(Name, Stats)) -> Vec<String> {
    let usage = Usage::of(stats);
    let share = |pressure: Option<Pressure>| {
        pressure.map_or("-".to_owned(), |pressure| {
            format!("{}%", pressure.some.avg10)
        })
    };
    vec![
        name.to_string(),
        cpu_time(usage.cpu),
        text::size(usage.memory),
        text::size(usage.memory_peak),
        format!("{} / {}", text::size(usage.read), text::size(usage.written)),
        usage.pids.to_string(),
        [
            stats.cpu.pressure,
            stats.memory.as_ref().and_then(|memory| memory.pressure),
            stats.block_io.as_ref().and_then(|io| io.pressure),
        ]
        .map(share)
        .join(" / "),
    ]
}

/// Seconds with two places: `12.34s`.
pub(super) fn cpu_time(nanoseconds: u64) -> String {
    let hundredths = nanoseconds / 10_000_000;
    format!("{}.{:02}s", hundredths / 100, hundredths % 100)
}

fn json((name, stats): &(Name, Stats)) -> Value {
    let usage = Usage::of(stats);
    let pressure = |pressure: Option<Pressure>| {
        pressure.map(|pressure| {
            let stall = |stall: cgroup::stats::Stall| {
                json!({
                    "avg10": stall.avg10, "avg60": stall.avg60, "avg300": stall.avg300,
                    "totalMicroseconds": stall.total,
                })
            };
            json!({ "some": stall(pressure.some), "full": stall(pressure.full) })
        })
    };
    json!({
        "name": name.as_str(),
        "cpu": {
            "totalNanoseconds": usage.cpu,
            "userNanoseconds": usage.user,
            "systemNanoseconds": usage.system,
            "throttledNanoseconds": usage.throttled,
            "pressure": pressure(stats.cpu.pressure),
        },
        "memory": stats.memory.as_ref().map(|memory| json!({
            "bytes": usage.memory,
            "peakBytes": usage.memory_peak,
            "swapBytes": usage.swap,
            "oomKills": usage.oom_kills,
            "pressure": pressure(memory.pressure),
        })),
        "io": stats.block_io.as_ref().map(|io| json!({
            "readBytes": usage.read,
            "writtenBytes": usage.written,
            "reads": usage.reads,
            "writes": usage.writes,
            "pressure": pressure(io.pressure),
        })),
        "pids": stats.pids.map(|pids| pids.current),
    })
}
