//! The texts of counter files. A line in another form is left out, never an error: kernels add
//! fields, and a count that is missing is better than no statistics.

use std::collections::BTreeMap;

use super::{BlockIoEntry, Pressure, RdmaStats, Stall};

/// One number; `max` is the largest there is, anything else 0.
pub(super) fn number(text: &str) -> u64 {
    match text.trim_ascii() {
        "max" => u64::MAX,
        digits => digits.parse().unwrap_or_default(),
    }
}

/// Numbers with blanks between.
pub(super) fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// `name value` lines.
pub(super) fn flat(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim_ascii().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// `cpu user system` rows below a heading: the user and system times of each processor.
pub(super) fn usage_all(text: &str) -> Vec<(u64, u64)> {
    let row = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words.next()?.parse::<u32>().ok()?;
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// More processors or nodes than any kernel has: a bound for hostile ranges.
const LIST_BOUND: u32 = 1 << 16;

/// A list with ranges: `0-3,7`.
pub(crate) fn list(text: &str) -> Vec<u32> {
    let mut all = Vec::new();
    for part in text.trim_ascii().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            all.extend(first..=last.min(LIST_BOUND));
        }
    }
    all
}

/// The `some` and `full` lines of pressure stall information; `full` is missing from
/// `cpu.pressure` before Linux 5.13.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let mut stall = Stall::default();
        for field in line.split_ascii_whitespace() {
            let (name, value) = field.split_once('=')?;
            match name {
                "avg10" => stall.avg10 = value.parse().ok()?,
                "avg60" => stall.avg60 = value.parse().ok()?,
                "avg300" => stall.avg300 = value.parse().ok()?,
                "total" => stall.total = value.parse().ok()?,
                _ => {}
            }
        }
        Some(stall)
    };
    Some(Pressure {
        some: stall("some ")?,
        full: stall("full ").unwrap_or_default(),
    })
}

/// `major:minor [operation] value` lines; the sum over all devices has no device, and is left out.
pub(super) fn block_io_v1(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = device(words.next()?)?;
        let second = words.next()?;
        let (operation, value) = match words.next() {
            Some(value) => (second, value),
            None => ("", second),
        };
        let operation = operation.to_owned();
        Some(BlockIoEntry {
            major,
            minor,
            operation,
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// `major:minor rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…` lines: bytes, and operations.
pub(super) fn block_io_v2(text: &str) -> (Vec<BlockIoEntry>, Vec<BlockIoEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else {
            continue;
        };
        for word in words {
            let Some((name, value)) = word.split_once('=') else {
                continue;
            };
            let (target, operation) = match name {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                "dios" => (&mut operations, "Discard"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            let operation = operation.to_owned();
            target.push(BlockIoEntry {
                major,
                minor,
                operation,
                value,
            });
        }
    }
    (bytes, operations)
}

fn device(word: &str) -> Option<(u32, u32)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `rdma.current` and `rdma.max`: `device hca_handle=… hca_object=…` lines.
pub(super) fn rdma(current: &str, max: &str) -> Vec<RdmaStats> {
    let field = |line: &str, name: &str| -> Option<u64> {
        let mut fields = line
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='));
        fields.find(|(found, _)| *found == name)?.1.parse().ok()
    };
    let entry = |line: &str| {
        let device = line.split_ascii_whitespace().next()?;
        let is_same = |line: &&str| line.split_ascii_whitespace().next() == Some(device);
        let limits = max.lines().find(is_same).unwrap_or_default();
        Some(RdmaStats {
            device: device.to_owned(),
            handles: field(line, "hca_handle").unwrap_or_default(),
            objects: field(line, "hca_object").unwrap_or_default(),
            handles_limit: field(limits, "hca_handle"),
            objects_limit: field(limits, "hca_object"),
        })
    };
    current.lines().filter_map(entry).collect()
}
