//! `events`: what a container uses, in the words that runc's callers parse.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use cgroup::stats::{BlockIoEntry, BlockIoStats, CpuStats, MemoryStats, Pressure, Stats, Usage};
use cgroup::watch::{Oom, OomWatch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value, json};

use crate::error::{During, Error, Result};
use crate::id::ContainerId;
use crate::{query, record, spec};

/// What a running container's groups counted until now, as one event.
///
/// # Errors
/// The container is not running, or its groups cannot be read.
pub fn stats(root: &Path, id: &ContainerId) -> Result<Value> {
    let record = record::read(root, id)?.ok_or_else(|| Error::not_found(id.as_str()))?;
    if query::status(root, id)? == spec::Status::Stopped {
        return Err(Error::not_running());
    }
    let stats = record
        .group()
        .stats()
        .map_err(|error| Error::new("read the groups", error))?;
    Ok(json!({ "type": "stats", "id": id.as_str(), "data": document(&stats) }))
}

/// Reports statistics each `interval`, and each time memory runs out, until the container ends.
///
/// # Errors
/// As [`stats`], or `report` fails.
pub fn follow(
    root: &Path,
    id: &ContainerId,
    interval: Duration,
    mut report: impl FnMut(&Value) -> Result<()>,
) -> Result<()> {
    let record = record::read(root, id)?.ok_or_else(|| Error::not_found(id.as_str()))?;
    let process = record.process().ok_or_else(Error::not_running)?;
    // Without a memory controller nothing can run out.
    let mut watch = record.group().watch_oom().ok();
    let mut next = std::time::Instant::now() + interval;
    loop {
        let wait = next.saturating_duration_since(std::time::Instant::now());
        match wait_for(&process, watch.as_ref(), wait)? {
            Happened::Ended => return Ok(()),
            Happened::Memory => {
                let news = watch.as_mut().and_then(|watch| watch.take().ok());
                match news {
                    Some(Oom::Times(times)) => (0..times)
                        .try_for_each(|_| report(&json!({ "type": "oom", "id": id.as_str() })))?,
                    Some(Oom::Ended) | None => watch = None,
                }
            }
            Happened::Nothing => {
                report(&stats(root, id)?)?;
                next += interval;
            }
        }
    }
}

enum Happened {
    Ended,
    Memory,
    Nothing,
}

fn wait_for(
    process: &sys::process::Process,
    watch: Option<&OomWatch>,
    wait: Duration,
) -> Result<Happened> {
    let process = process.pidfd.as_fd();
    let memory = watch.map(AsFd::as_fd);
    let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
    fds.extend(
        memory
            .as_ref()
            .map(|memory| PollFd::new(memory, PollFlags::IN)),
    );
    let timeout = Timespec::try_from(wait).ok();
    rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref())).during(|| "wait")?;
    let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
    Ok(match (ready(0), ready(1)) {
        (true, _) => Happened::Ended,
        (false, true) => Happened::Memory,
        (false, false) => Happened::Nothing,
    })
}

/// The `data` of a statistics event.
fn document(stats: &Stats) -> Value {
    let hugetlb: Map<String, Value> = stats
        .hugetlb
        .iter()
        .map(|(size, used)| (size.clone(), usage(used)))
        .collect();
    json!({
        "cpu": cpu(&stats.cpu),
        "cpuset": stats.cpuset.as_ref().map(|set| json!({
            "cpus": set.cpus,
            "mems": set.mems,
        })).unwrap_or_else(|| json!({})),
        "memory": stats.memory.as_ref().map(memory).unwrap_or_else(|| json!({})),
        "pids": stats.pids.as_ref().map(|pids| json!({
            "current": pids.current,
            "limit": pids.limit,
        })).unwrap_or_else(|| json!({})),
        "blkio": stats.block_io.as_ref().map(block_io).unwrap_or_else(|| json!({})),
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn cpu(cpu: &CpuStats) -> Value {
    json!({
        "usage": {
            "total": cpu.total,
            "percpu": cpu.per_cpu,
            "percpu_kernel": cpu.per_cpu_kernel,
            "percpu_user": cpu.per_cpu_user,
            "kernel": cpu.kernel,
            "user": cpu.user,
        },
        "throttling": {
            "periods": cpu.periods,
            "throttledPeriods": cpu.throttled_periods,
            "throttledTime": cpu.throttled_time,
        },
        "psi": cpu.pressure.as_ref().map(pressure),
    })
}

fn memory(memory: &MemoryStats) -> Value {
    json!({
        "cache": memory.cache,
        "usage": usage(&memory.usage),
        "swap": usage(&memory.swap),
        "kernel": usage(&memory.kernel),
        "kernelTCP": usage(&memory.kernel_tcp),
        "raw": memory.raw,
        "psi": memory.pressure.as_ref().map(pressure),
    })
}

fn usage(usage: &Usage) -> Value {
    json!({
        "limit": usage.limit,
        "usage": usage.usage,
        "max": usage.max,
        "failcnt": usage.fail_count,
    })
}

fn block_io(io: &BlockIoStats) -> Value {
    let entries = |list: &[BlockIoEntry]| -> Vec<Value> {
        let entry = |entry: &BlockIoEntry| {
            json!({
                "major": entry.major,
                "minor": entry.minor,
                "op": entry.operation,
                "value": entry.value,
            })
        };
        list.iter().map(entry).collect()
    };
    json!({
        "ioServiceBytesRecursive": entries(&io.service_bytes),
        "ioServicedRecursive": entries(&io.serviced),
        "ioQueueRecursive": entries(&io.queued),
        "ioServiceTimeRecursive": entries(&io.service_time),
        "ioWaitTimeRecursive": entries(&io.wait_time),
        "ioMergedRecursive": entries(&io.merged),
        "ioTimeRecursive": entries(&io.time),
        "sectorsRecursive": entries(&io.sectors),
        "psi": io.pressure.as_ref().map(pressure),
    })
}

fn pressure(pressure: &Pressure) -> Value {
    let stall = |stall: &cgroup::stats::Stall| {
        json!({
            "avg10": stall.avg10,
            "avg60": stall.avg60,
            "avg300": stall.avg300,
            "total": stall.total,
        })
    };
    json!({ "some": stall(&pressure.some), "full": stall(&pressure.full) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_look_for_is_where_they_look() {
        let stats = Stats {
            cpu: CpuStats {
                total: 7,
                ..CpuStats::default()
            },
            memory: Some(MemoryStats {
                usage: Usage {
                    usage: 5,
                    limit: 9,
                    ..Usage::default()
                },
                ..MemoryStats::default()
            }),
            ..Stats::default()
        };
        let document = document(&stats);
        for (path, value) in [
            ("/cpu/usage/total", 7),
            ("/memory/usage/usage", 5),
            ("/memory/usage/limit", 9),
        ] {
            assert_eq!(document.pointer(path), Some(&Value::from(value)), "{path}");
        }
    }
}
