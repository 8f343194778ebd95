//! `floe group stats`

use anyhow::Result;
use cgroup::stats::{Pressure, Stats, Totals};
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
    let used = Totals::of(stats);
    let share = |pressure: Option<Pressure>| {
        pressure.map_or("-".to_owned(), |pressure| {
            format!("{}%", pressure.some.avg10)
        })
    };
    vec![
        name.to_string(),
        cpu_time(used.cpu),
        text::size(used.memory),
        text::size(used.memory_peak),
        format!("{} / {}", text::size(used.read), text::size(used.written)),
        stats.pids.map_or(0, |pids| pids.current).to_string(),
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
    let used = Totals::of(stats);
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
            "totalNanoseconds": used.cpu,
            "userNanoseconds": used.cpu_user,
            "systemNanoseconds": used.cpu_system,
            "throttledNanoseconds": used.throttled,
            "pressure": pressure(stats.cpu.pressure),
        },
        "memory": stats.memory.as_ref().map(|memory| json!({
            "bytes": used.memory,
            "peakBytes": used.memory_peak,
            "swapBytes": used.swap,
            "oomKills": used.oom_kills,
            "pressure": pressure(memory.pressure),
        })),
        "io": stats.block_io.as_ref().map(|io| json!({
            "readBytes": used.read,
            "writtenBytes": used.written,
            "reads": used.reads,
            "writes": used.writes,
            "pressure": pressure(io.pressure),
        })),
        "pids": stats.pids.map(|pids| pids.current),
    })
}
