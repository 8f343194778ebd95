//! `floe stats`

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::output::{self, Format};
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::container::{Container, Word};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Show it once instead of each second
    #[arg(long)]
    no_stream: bool,
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Names or ids; all that run if none is given
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    let live = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let mut former: HashMap<String, (Instant, u64)> = HashMap::new();
    loop {
        let mut samples = Vec::new();
        for container in chosen(&store, flags)? {
            samples.extend(Sample::take(&store, &runtime, &container, flags.all)?);
        }
        let first = former.is_empty();
        for sample in &mut samples {
            sample.share = former.get(&sample.id).map(|(then, used)| {
                let nanos = then.elapsed().as_nanos().max(1);
                let used = sample.cpu_nanos.saturating_sub(*used);
                u64::try_from(u128::from(used) * 10_000 / nanos).unwrap_or(u64::MAX)
            });
            former.insert(sample.id.clone(), (Instant::now(), sample.cpu_nanos));
        }
        // A share of the cpus needs two looks.
        if first && !samples.is_empty() {
            std::thread::sleep(Duration::from_millis(200));
            continue;
        }
        show(&samples, flags, live && !flags.no_stream)?;
        if flags.no_stream || samples.is_empty() {
            return Ok(0);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn chosen(store: &Store, flags: &Flags) -> Result<Vec<Container>> {
    if flags.containers.is_empty() {
        let mut all = store.all()?;
        all.sort_by(|a, b| a.record.created.cmp(&b.record.created));
        return Ok(all);
    }
    flags
        .containers
        .iter()
        .map(|name| store.find(name))
        .collect()
}

/// What one container uses at one moment.
#[derive(Debug)]
struct Sample {
    id: String,
    name: String,
    status: &'static str,
    cpu_nanos: u64,
    /// Hundredths of a percent of one cpu.
    share: Option<u64>,
    memory: u64,
    memory_limit: u64,
    pids: u64,
    read: u64,
    written: u64,
}

impl Sample {
    fn take(
        store: &Store,
        runtime: &Runtime,
        container: &Container,
        all: bool,
    ) -> Result<Option<Self>> {
        let word = container.state(store)?.word;
        let runs = matches!(word, Word::Running | Word::Paused);
        if !runs && !all {
            return Ok(None);
        }
        let record = &container.record;
        let data = if runs {
            match runtime.run("events", ["--stats", &record.id]) {
                Ok(text) => {
                    let mut value: Value =
                        serde_json::from_str(&text).context("read the runtime's statistics")?;
                    value["data"].take()
                }
                // It may have ended just now.
                Err(error) if container.is_held() => return Err(error),
                Err(_) => return Ok(None),
            }
        } else {
            Value::Null
        };
        let mut sample = Self::of(&data);
        sample.id.clone_from(&record.id);
        sample.name.clone_from(&record.name);
        sample.status = word.name();
        Ok(Some(sample))
    }

    /// Reads the runtime's statistics; what a kernel does not count is 0.
    fn of(data: &Value) -> Self {
        let number = |path: &str| data.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let bytes = |operation: &str| {
            let entries = data
                .pointer("/blkio/ioServiceBytesRecursive")
                .and_then(Value::as_array);
            let entries = entries.into_iter().flatten();
            entries
                .filter(|entry| {
                    entry["op"]
                        .as_str()
                        .is_some_and(|op| op.eq_ignore_ascii_case(operation))
                })
                .filter_map(|entry| entry["value"].as_u64())
                .sum()
        };
        let cache =
            number("/memory/raw/inactive_file").max(number("/memory/raw/total_inactive_file"));
        Self {
            id: String::new(),
            name: String::new(),
            status: "",
            cpu_nanos: number("/cpu/usage/total"),
            share: None,
            // As docker: cache that can be dropped at once is not used.
            memory: number("/memory/usage/usage").saturating_sub(cache),
            memory_limit: number("/memory/usage/limit"),
            pids: number("/pids/current"),
            read: bytes("Read"),
            written: bytes("Write"),
        }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "cpuNanoseconds": self.cpu_nanos,
            "cpuHundredthsOfPercent": self.share,
            "memory": self.memory,
            "memoryLimit": (self.memory_limit < NO_LIMIT).then_some(self.memory_limit),
            "pids": self.pids,
            "blockRead": self.read,
            "blockWritten": self.written,
        })
    }

    fn row(&self) -> Vec<String> {
        let share = self.share.unwrap_or(0);
        let limit = if self.memory_limit < NO_LIMIT && self.memory_limit > 0 {
            text::size(self.memory_limit)
        } else {
            "-".to_owned()
        };
        vec![
            self.id.get(..12).unwrap_or_default().to_owned(),
            self.name.clone(),
            format!("{}.{:02}%", share / 100, share % 100),
            format!("{} / {limit}", text::size(self.memory)),
            format!("{} / {}", text::size(self.read), text::size(self.written)),
            self.pids.to_string(),
        ]
    }
}

/// v1 writes "no limit" as a number of pages near the largest.
const NO_LIMIT: u64 = 1 << 60;

fn show(samples: &[Sample], flags: &Flags, clear: bool) -> Result<()> {
    if flags.format == Format::Json {
        return output::json(&samples.iter().map(Sample::json).collect::<Vec<_>>());
    }
    let rows: Vec<_> = samples.iter().map(Sample::row).collect();
    let head = [
        "CONTAINER ID",
        "NAME",
        "CPU",
        "MEMORY / LIMIT",
        "READ / WRITTEN",
        "PIDS",
    ];
    let table = text::table(&head, &rows);
    // Home, then clear to the end: the table stays in place.
    output::print(&if clear {
        format!("\x1b[H\x1b[J{table}")
    } else {
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_with_or_without_a_field() {
        let sample = Sample::of(&json!({
            "cpu": {"usage": {"total": 5}},
            "memory": {"usage": {"usage": 100, "limit": 200}, "raw": {"inactive_file": 30}},
            "pids": {"current": 3},
            "blkio": {"ioServiceBytesRecursive": [
                {"op": "Read", "value": 1}, {"op": "write", "value": 2}, {"op": "Read", "value": 4},
            ]},
        }));
        assert_eq!((sample.cpu_nanos, sample.memory, sample.pids), (5, 70, 3));
        assert_eq!((sample.read, sample.written), (5, 2));
        assert_eq!(Sample::of(&Value::Null).memory, 0);
    }
}
