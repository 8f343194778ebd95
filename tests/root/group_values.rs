//! `floe group set`, `get`: one vocabulary on every layout.

use tests::{host, need, skip};

use crate::group_fixture::Groups;
use crate::kill_steps::{End, command_killed_at};

#[test]
fn values_are_requested_and_effective() {
    need!(host::controller("memory"), "needs a memory controller");
    let groups = Groups::new();
    groups.line("create %/a memory.max=1000000 cpu.max=150% pids.max=50 cpu.weight=200").succeeds();
    let memory = groups.get("%/a", "memory.max");
    assert_eq!((&memory["requested"], &memory["effective"]), (&"1000000".into(), &"976K".into()));
    assert_eq!(memory["note"], "as near as the kernel has it");
    for (key, value) in [("cpu.max", "150%"), ("pids.max", "50"), ("cpu.weight", "200")] {
        assert_eq!(groups.effective("%/a", key), value, "{key}");
    }
    groups.line("set % memory.max=512K pids.max=7").succeeds();
    assert_eq!(groups.effective("%/a", "memory.max"), "512K");
    assert_eq!(groups.get("%/a", "memory.max")["value"], "976K");
    assert_eq!(groups.get("%/a", "pids.max")["note"], format!("bounded by `{}`", groups.top));
    groups.line("set % memory.max=default pids.max=max").succeeds();
    assert_eq!(groups.effective("%/a", "pids.max"), "50");
    assert!(groups.get("%", "memory.max")["requested"].is_null());
    // Somebody else's change is told from the kernel's rounding.
    let file = groups.file("%/a", "pids", ["pids.max", "pids.max"]).unwrap();
    std::fs::write(file, "9").unwrap();
    let pids = groups.get("%/a", "pids.max");
    assert_eq!((&pids["effective"], &pids["note"]), (&"9".into(), &"was 50, and was changed since".into()));
}

#[test]
fn every_key_is_read_and_every_value_there_is_can_be_set_again() {
    let groups = Groups::new();
    groups.line("create %").succeeds();
    let all = groups.line("get --format json %").succeeds().json();
    let all = all[&groups.top].as_object().unwrap();
    assert!(all.len() > 8, "{all:?}");
    for (key, line) in all {
        let value = line["value"].as_str().unwrap();
        // A new group of v1 cannot inherit nothing; some have no value at all until one is set.
        if value.is_empty() || key.starts_with("rdma") || key.starts_with("misc") {
            continue;
        }
        groups.call(["set", "%", &format!("{key}={value}")]).succeeds();
        let again = groups.get("%", key);
        assert_eq!(again["value"], line["value"], "{key}");
        groups.call(["set", "%", &format!("{key}=default")]).succeeds();
    }
    let list = groups.line("keys --format json").succeeds().json();
    assert!(list.as_array().unwrap().len() > 30);
    groups.line("keys").succeeds();
}

#[test]
fn a_refused_value_changes_nothing() {
    need!(host::controller("cpu"), "needs a cpu controller");
    let groups = Groups::new();
    groups.line("create % pids.max=50 cpu.max=50%").succeeds();
    for (asked, says) in [
        // The kernel refuses the second of these, or the third: a burst beyond the quota.
        ("pids.max=9 cpu.max=10% cpu.max.burst=1s", "invalid argument"),
        ("pids.max=9 nothing.max=1", "no such key"),
        ("pids.max=9 pids.max=8", "given twice"),
        ("pids.max=9 v2:no.such_file=1", "no.such_file"),
        ("pids.max=9 cpuset.cpus=8191", "cpuset.cpus"),
    ] {
        groups.line(&format!("set % {asked}")).exits(125).says(says);
        assert_eq!(groups.effective("%", "pids.max"), "50", "{asked}");
        assert_eq!(groups.effective("%", "cpu.max"), "50%", "{asked}");
        assert_eq!(groups.get("%", "pids.max")["requested"], "50");
        groups.line(&format!("create %/new {asked}")).exits(125).says(says);
        assert!(groups.directories("%/new").is_empty(), "{asked}");
    }
}

#[test]
fn what_the_host_lacks_is_said_or_left_out() {
    let groups = Groups::new();
    groups.line("create %").succeeds();
    let (lacking, why) = if groups.effective("%", "memory.high") == "-" {
        ("memory.high=1M", "is on v1")
    } else {
        ("memory.swappiness=10", "is on v2")
    };
    if host::controller("memory").is_none() {
        skip!("needs a memory controller");
    }
    groups.line(&format!("set % pids.max=9 {lacking}")).exits(125).says(why);
    groups.line(&format!("set --lenient % pids.max=9 {lacking}")).succeeds().says(why);
    assert_eq!(groups.effective("%", "pids.max"), "9");
    let key = lacking.split('=').next().unwrap();
    assert!(groups.get("%", key)["note"].as_str().unwrap().contains(why));
}

#[test]
fn memory_and_swap_have_limits_of_their_own() {
    let groups = Groups::new();
    groups.line("create %").succeeds();
    if groups.effective("%", "memory.swap.max") == "-" {
        skip!("needs a kernel that counts swap");
    }
    groups.line("set % memory.max=64M memory.swap.max=16M").succeeds();
    groups.line("set % memory.max=32M").succeeds();
    assert_eq!(groups.effective("%", "memory.swap.max"), "16M");
    groups.line("set % memory.max=128M").succeeds();
    assert_eq!(groups.effective("%", "memory.swap.max"), "16M");
    groups.line("set % memory.swap.max=0").succeeds();
    assert_eq!(groups.effective("%", "memory.swap.max"), "0");
    assert_eq!(groups.effective("%", "memory.max"), "128M");
}

#[test]
fn cpuset_and_memset_are_set_and_inherited_each_for_itself() {
    need!(host::controller("cpuset"), "needs a cpuset controller");
    let mut groups = Groups::new();
    // Only one of the two is asked for: v1 wants both before a process may enter.
    groups.line("create %/cpus cpuset.cpus=0").succeeds();
    groups.line("create %/mems memset.mems=0").succeeds();
    for (group, cpus) in [("%/cpus", Some("0")), ("%/mems", None)] {
        let pid = groups.start(group, &["sleep", "1000"]);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let allowed = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().to_owned()
        };
        assert_eq!(allowed("Mems_allowed_list:"), "0");
        if let Some(cpus) = cpus {
            assert_eq!(allowed("Cpus_allowed_list:"), cpus);
        }
        assert_eq!(groups.effective(group, "cpuset.cpus"), allowed("Cpus_allowed_list:"));
    }
    // The old name means the same.
    assert_eq!(groups.effective("%/mems", "cpuset.mems"), "0");
    assert_eq!(groups.get("%/mems", "cpuset.mems")["requested"], "0");
    assert!(groups.get("%/mems", "cpuset.cpus")["requested"].is_null());
    groups.line("set %/cpus cpuset.cpus=inherit").succeeds();
    assert_eq!(groups.effective("%/cpus", "cpuset.cpus"), groups.effective("%", "cpuset.cpus"));
    // What is inherited follows: on v1 because floe moves it with the group above.
    groups.line("set % cpuset.cpus=0").succeeds();
    assert_eq!(groups.effective("%/cpus", "cpuset.cpus"), "0");
}

#[test]
fn memory_nodes_have_knobs_of_their_own() {
    let groups = Groups::new();
    groups.line("create %").succeeds();
    if groups.get("%", "memset.memory_migrate")["value"].is_null() {
        skip!("needs a cpuset controller");
    }
    groups.line("set % memset.memory_migrate=1").succeeds();
    assert_eq!(groups.effective("%", "cpuset.memory_migrate"), "1");
    let spread = groups.line("set % memset.memory_spread_page=1");
    if groups.directories("%").iter().any(|at| at.join("cpuset.memory_spread_page").exists()) {
        spread.succeeds();
        assert_eq!(groups.effective("%", "memset.memory_spread_page"), "1");
    } else {
        spread.exits(125).says("is on v2, where it is always 0");
    }
}

#[test]
fn limits_hold() {
    need!(host::controller("pids"), "needs a pids controller");
    let mut groups = Groups::new();
    groups.line("create %/a").succeeds();
    groups.line("set % pids.max=5").succeeds();
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait";
    let pid = groups.start("%/a", &["sh", "-c", script]);
    assert_ne!(groups.wait(pid), 0, "a fork beyond the limit fails");
    if host::controller("memory").is_some() {
        groups.line("set % pids.max=max memory.max=16M").succeeds();
        let payload = tests::bundle::payload().display().to_string();
        let pid = groups.start("%/a", &[&payload, "alloc", "64"]);
        assert_eq!(groups.wait(pid), 137, "killed for want of memory");
        let stats = groups.line("stats --format json %/a").succeeds().json();
        assert!(stats[0]["memory"]["oomKills"].as_u64().unwrap() >= 1, "{stats}");
    }
}

#[test]
fn experts_write_files_as_they_are() {
    let groups = Groups::new();
    groups.line("create %").succeeds();
    let key = if host::layout() == host::Layout::V1 { "v1:pids.max" } else { "v2:cgroup.max.depth" };
    groups.call(["set", "%", &format!("{key}=3")]).succeeds();
    assert_eq!(groups.effective("%", key), "3");
    groups.line("set % v2:../cgroup.procs=1").exits(125).says("not the name of a file");
}

/// How many system calls from one kill to the next.
fn stride() -> usize {
    if tests::slowness() > 1 { 23 } else { 7 }
}

/// Attack: a command is killed at any of its system calls. What it had begun must not stay.
#[test]
fn a_killed_change_is_taken_back_by_the_next_command() {
    let groups = Groups::new();
    groups.line("create % pids.max=50 cpu.weight=100").succeeds();
    let args = ["set", "%", "pids.max=9", "cpu.weight=200"];
    let mut finished = false;
    // Enough to hit what is before, between and after the writes and renames.
    for step in (60..4000).step_by(stride()) {
        let end = command_killed_at(&groups.command(args), step);
        let state = [groups.effective("%", "pids.max"), groups.effective("%", "cpu.weight")];
        let requested = groups.get("%", "pids.max")["requested"].clone();
        let (old, new) = (["50", "100"], ["9", "200"]);
        assert!(state == old || state == new, "step {step}: {state:?}");
        assert_eq!(requested, state[0].as_str(), "step {step}: what is remembered is what is");
        if let End::Exited(code) = end {
            assert_eq!((code, state), (0, new.map(str::to_owned)));
            finished = true;
            break;
        }
        groups.line("set % pids.max=50 cpu.weight=100").succeeds();
    }
    assert!(finished, "the last step is reached");
}

#[test]
fn a_killed_creation_leaves_nothing_or_all() {
    let groups = Groups::new();
    let hierarchies = host::cgroup_mounts().len();
    let mut finished = false;
    for step in (60..4000).step_by(stride()) {
        let end = command_killed_at(&groups.command(["create", "%/a", "pids.max=9"]), step);
        groups.line("ls").succeeds();
        let found = groups.directories("%/a").len();
        assert!(found == 0 || found == hierarchies, "step {step}: {found} directories");
        assert_eq!(groups.directories("%").len(), found, "step {step}");
        if found > 0 {
            assert_eq!(groups.effective("%/a", "pids.max"), "9", "step {step}");
            groups.line("rm -r %").succeeds();
        }
        if let End::Exited(code) = end {
            assert_eq!(code, 0);
            finished = true;
            break;
        }
    }
    assert!(finished, "the last step is reached");
}
