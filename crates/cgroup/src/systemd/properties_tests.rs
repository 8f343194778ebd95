use super::*;
use crate::controller::Controllers;
use crate::devices::tests::rule;
use crate::plan::{self, Current, Places};
use crate::resources::{Cpu, Limit, Memory, Resources};

fn properties(v1: bool, resources: &Resources) -> Vec<String> {
    let all = Controllers::of(["cpu", "cpuset", "memory", "pids", "io"]);
    let none = Controllers::default();
    let (v1, v2) = if v1 { (all, none) } else { (none, all) };
    let places = Places {
        v1,
        v2,
        unified: true,
        noprefix: false,
    };
    let plan = plan::plan(&places, resources, &Current::default()).unwrap();
    let line = |(name, value): &(String, Value)| match value {
        Value::U64(INFINITY) => format!("{name}=infinity"),
        Value::U64(value) => format!("{name}={value}"),
        value => format!("{name}={value:?}"),
    };
    of_plan(&plan).iter().map(line).collect()
}

#[test]
fn limits_become_properties() {
    let resources = Resources {
        cpu: Cpu {
            shares: Some(1024),
            quota: Some(Limit::Max(50_500)),
            cpus: Some("0-2,9".to_owned()),
            ..Cpu::default()
        },
        memory: Memory {
            limit: Some(Limit::Max(100)),
            swap: Some(Limit::Max(150)),
            ..Memory::default()
        },
        pids: Some(Limit::Unlimited),
        unified: [("memory.high".to_owned(), "90".to_owned())].into(),
        ..Resources::default()
    };
    let expected = [
        "CPUWeight=100",
        "AllowedCPUs=Bytes([7, 2])",
        "MemorySwapMax=50",
        "MemoryMax=100",
        "TasksMax=infinity",
        "MemoryHigh=90",
        "CPUQuotaPerSecUSec=510000",
    ];
    assert_eq!(properties(false, &resources), expected);
    let resources = Resources {
        unified: [].into(),
        ..resources
    };
    let expected = [
        "CPUShares=1024",
        "MemoryLimit=100",
        "TasksMax=infinity",
        "CPUQuotaPerSecUSec=510000",
    ];
    assert_eq!(properties(true, &resources), expected);
    assert_eq!(properties(false, &Resources::default()), [""; 0]);
}

#[test]
fn bandwidth_is_per_second() {
    for (quota, period, expected) in [
        (
            Limit::Max(5_000),
            10_000,
            "CPUQuotaPeriodUSec=10000 CPUQuotaPerSecUSec=500000",
        ),
        (Limit::Max(1), 100_000, "CPUQuotaPerSecUSec=10000"),
        (
            Limit::Unlimited,
            50_000,
            "CPUQuotaPeriodUSec=50000 CPUQuotaPerSecUSec=infinity",
        ),
    ] {
        let cpu = Cpu {
            quota: Some(quota),
            period: Some(period),
            ..Cpu::default()
        };
        let resources = Resources {
            cpu,
            ..Resources::default()
        };
        assert_eq!(properties(false, &resources).join(" "), expected);
    }
}

const DEVICES: &str =
    "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n254 virtblk\n";

fn devices(rules: &[&str]) -> String {
    let rules: Vec<DeviceRule> = rules.iter().map(|text| rule(text)).collect();
    let all = of_devices(&rules, DEVICES);
    let Value::Text(policy) = &all[0].1 else {
        panic!("{all:?}")
    };
    let Value::TextPairs(list) = &all[2].1 else {
        panic!("{all:?}")
    };
    let words = list
        .iter()
        .map(|(device, access)| format!(" {device} {access}"));
    policy.clone() + &words.collect::<String>()
}

#[test]
fn device_rules_become_a_policy() {
    let deny = "deny a *:* rwm";
    for (rules, expected) in [
        (vec![deny], "strict"),
        (vec![deny, "allow c 1:3 rwm"], "strict /dev/char/1:3 rwm"),
        (vec![deny, "allow c 136:* rw"], "strict char-pts rw"),
        (vec![deny, "allow b 8:* r"], "strict block-sd r"),
        (vec![deny, "allow c 99:* rw"], "strict"),
        (vec![deny, "allow a *:* m"], "strict block-* m char-* m"),
        (vec![deny, "allow c *:3 r"], "auto"),
        (vec![deny, "allow c *:* m", "deny c 1:3 m"], "auto"),
        (vec!["allow a *:* rwm"], "auto"),
    ] {
        assert_eq!(devices(&rules), expected, "{rules:?}");
    }
}

#[test]
fn annotations_give_values() {
    for (text, expected) in [
        ("'a b'", Some(Value::Text("a b".to_owned()))),
        ("\"x\"", Some(Value::Text("x".to_owned()))),
        ("true", Some(Value::Bool(true))),
        ("9", Some(Value::I32(9))),
        ("uint64 5", Some(Value::U64(5))),
        (
            "['a', 'b']",
            Some(Value::Texts(vec!["a".to_owned(), "b".to_owned()])),
        ),
        ("uint64 -5", None),
        ("['a', b]", None),
        ("bare", None),
        ("", None),
    ] {
        assert_eq!(parse(text), expected, "{text}");
    }
}
