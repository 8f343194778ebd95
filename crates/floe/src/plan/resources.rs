//! Limits as OCI `linux.resources`.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::flags::LimitFlags;
use crate::parse;

/// Translates the limits; an empty object if none is asked for.
///
/// # Errors
/// A value that is not a size, a number of cpus, a list.
pub(crate) fn resources(flags: &LimitFlags) -> Result<Map<String, Value>> {
    let mut memory = Map::new();
    let mut cpu = Map::new();
    if let Some(text) = &flags.memory {
        let limit = parse::bytes(text)?;
        memory.insert("limit".into(), limit.into());
        // As docker: twice the memory is the usual bound for memory and swap.
        if flags.memory_swap.is_none() && limit > 0 {
            memory.insert("swap".into(), limit.saturating_mul(2).into());
        }
    }
    if let Some(text) = &flags.memory_swap {
        let swap = parse::bytes(text)?;
        let Some(limit) = memory.get("limit").and_then(Value::as_i64) else {
            bail!("--memory-swap counts memory and swap together: give --memory too");
        };
        if swap >= 0 && swap < limit {
            bail!("--memory-swap {text} is less than --memory: it counts both");
        }
        memory.insert("swap".into(), swap.into());
    }
    if let Some(text) = &flags.memory_reservation {
        memory.insert("reservation".into(), parse::bytes(text)?.into());
    }
    if let Some(text) = &flags.cpus {
        cpu.insert("quota".into(), parse::cpus(text)?.into());
        cpu.insert("period".into(), parse::CPU_PERIOD.into());
    }
    if let Some(shares) = flags.cpu_shares {
        cpu.insert("shares".into(), shares.into());
    }
    for (name, key, text) in [
        ("--cpuset", "cpus", &flags.cpuset),
        ("--memset", "mems", &flags.memset),
    ] {
        if let Some(text) = text {
            if !is_list(text) {
                bail!("{name} `{text}`: a list such as 0-2,4");
            }
            cpu.insert(key.into(), text.as_str().into());
        }
    }
    let mut resources = Map::new();
    if !memory.is_empty() {
        resources.insert("memory".into(), memory.into());
    }
    if !cpu.is_empty() {
        resources.insert("cpu".into(), cpu.into());
    }
    if let Some(pids) = flags.pids {
        if pids == 0 || pids < -1 {
            bail!("--pids {pids}: a number of processes, or -1 for no limit");
        }
        resources.insert("pids".into(), json!({ "limit": pids }));
    }
    Ok(resources)
}

/// `0-2,4`
fn is_list(text: &str) -> bool {
    text.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(a), Ok(b)) if a <= b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: &LimitFlags, expected: &Value) {
        assert_eq!(&Value::Object(resources(flags).unwrap()), expected);
    }

    #[test]
    fn limits_become_oci_words() {
        let some = |text: &str| Some(text.to_owned());
        check(&LimitFlags::default(), &json!({}));
        check(
            &LimitFlags {
                memory: some("64m"),
                pids: Some(9),
                ..LimitFlags::default()
            },
            &json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}, "pids": {"limit": 9}}),
        );
        check(
            &LimitFlags {
                memory: some("64m"),
                memory_swap: some("-1"),
                cpus: some("0.5"),
                cpuset: some("0-1,3"),
                memset: some("0"),
                ..LimitFlags::default()
            },
            &json!({
                "memory": {"limit": 67_108_864, "swap": -1},
                "cpu": {"quota": 50_000, "period": 100_000, "cpus": "0-1,3", "mems": "0"},
            }),
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let some = |text: &str| Some(text.to_owned());
        let flags = [
            LimitFlags {
                memory_swap: some("1g"),
                ..LimitFlags::default()
            },
            LimitFlags {
                memory: some("1g"),
                memory_swap: some("1m"),
                ..LimitFlags::default()
            },
            LimitFlags {
                cpuset: some("3-1"),
                ..LimitFlags::default()
            },
            LimitFlags {
                memset: some(""),
                ..LimitFlags::default()
            },
            LimitFlags {
                pids: Some(0),
                ..LimitFlags::default()
            },
        ];
        for flags in flags {
            assert!(resources(&flags).is_err(), "{flags:?}");
        }
    }
}
