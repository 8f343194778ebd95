//! `floe group account`: what was used is known after the group is gone.

use serde_json::Value;
use tests::host;

use crate::group_fixture::Groups;

/// Some tenths of a second of work.
const WORK: &str = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";

fn entries(groups: &Groups, line: &str) -> Vec<Value> {
    let all = groups.line(&format!("account --format json {line}")).succeeds().json();
    let own = |entry: &&Value| {
        let name = entry["name"].as_str().unwrap();
        name.starts_with(&groups.top) || entry["kind"] != "group"
    };
    all.as_array().unwrap().iter().filter(own).cloned().collect()
}

#[test]
fn a_group_is_accounted_after_its_removal() {
    let mut groups = Groups::new();
    groups.line("create --delegate 1000 %/a").succeeds();
    let pid = groups.start("%/a", &["sh", "-c", WORK]);
    assert_eq!(groups.wait(pid), 0);
    let before = entries(&groups, "");
    assert!(before.iter().all(|entry| entry["ended"].is_null()), "{before:?}");
    // v1 tells the peak, and v2 from Linux 5.19 on.
    let peak = ["memory.max_usage_in_bytes", "memory.peak"];
    let counts_memory = groups.file("%/a", "memory", peak).is_some();
    groups.line("rm -r %").succeeds();
    let after = entries(&groups, "");
    assert_eq!(after.len(), 2, "{after:?}");
    let inner = &after[1];
    assert_eq!(inner["name"], format!("{}/a", groups.top));
    assert_eq!(inner["path"], format!("/floe/{}/a", groups.top));
    assert_eq!(inner["user"], 1000);
    assert!(inner["cpuNanoseconds"].as_u64().unwrap() > 10_000_000, "{inner}");
    assert!(inner["ended"].as_str().unwrap() > inner["started"].as_str().unwrap());
    if counts_memory {
        assert!(inner["memoryPeakBytes"].as_u64().unwrap() > 100_000, "{inner}");
    }
    // A second group of the name is another entry of the same group.
    groups.line("create %/a").succeeds();
    groups.line("rm -r %").succeeds();
    let sums = entries(&groups, "--by group");
    assert_eq!((sums.len(), &sums[1]["entries"]), (2, &2.into()));
    assert!(groups.line("account").succeeds().stdout().contains(&groups.top));
    assert!(entries(&groups, "--since 2999-01-01").is_empty());
    assert_eq!(entries(&groups, "--since 1h").len(), 4);
    groups.line("account --since yesterday").exits(125).says("--since");
}

#[test]
fn users_are_accounted_without_counting_twice() {
    let mut groups = Groups::new();
    groups.line("create %/a/b").succeeds();
    let pid = groups.start("%/a/b", &["sh", "-c", WORK]);
    assert_eq!(groups.wait(pid), 0);
    groups.line("rm -r %").succeeds();
    let all = entries(&groups, "");
    let users = entries(&groups, "--by user");
    let root: Vec<&Value> = users.iter().filter(|entry| entry["user"] == 0).collect();
    assert_eq!(root.len(), 1, "{users:?}");
    let outermost = all.iter().find(|entry| entry["name"] == groups.top.as_str()).unwrap();
    // Other tests may have groups at the same time; those of this one count once.
    assert!(root[0]["cpuNanoseconds"].as_u64() >= outermost["cpuNanoseconds"].as_u64());
    assert_eq!((&root[0]["kind"], &root[0]["name"]), (&"user".into(), &"root".into()));
}

#[test]
fn containers_are_accounted_after_their_removal() {
    let groups = Groups::new();
    groups.floe.call(["run", "--rm", "--name", "short", "--", "sh", "-c", WORK]).succeeds();
    let id = groups.floe.call(["run", "-d", "--name", "long", "--", "sh", "-c", &format!("{WORK}; sleep 1000")]);
    let id = id.succeeds().stdout().trim().to_owned();
    let find = |name: &str| {
        let all = entries(&groups, "--by container");
        all.into_iter().find(|entry| entry["name"] == name)
    };
    let cpu = |entry: &Value| entry["cpuNanoseconds"].as_u64().unwrap();
    let short = find("short").expect("a container that ended");
    assert!(cpu(&short) > 10_000_000 && short["ended"].is_string(), "{short}");
    if host::controller("memory").is_some() {
        assert!(short["memoryPeakBytes"].as_u64().is_some());
    }
    tests::wait_until("it has worked", || find("long").is_some_and(|entry| cpu(&entry) > 10_000_000));
    assert!(find("long").unwrap()["ended"].is_null());
    groups.floe.line("rename long longer").succeeds();
    groups.floe.line("rm -f longer").succeeds();
    let long = find("longer").expect("a container that was removed");
    assert_eq!((long["id"].as_str().unwrap(), &long["entries"]), (&*id, &1.into()));
    assert!(long["ended"].is_string() && cpu(&long) > 10_000_000, "{long}");
}

#[test]
fn a_container_whose_monitor_was_killed_is_accounted_too() {
    let groups = Groups::new();
    groups.floe.call(["run", "-d", "--name", "k", "--", "sh", "-c", &format!("{WORK}; sleep 1000")]).succeeds();
    let find = || entries(&groups, "--by container").into_iter().find(|entry| entry["name"] == "k");
    let cpu = |entry: &Value| entry["cpuNanoseconds"].as_u64().unwrap();
    tests::wait_until("it has worked", || find().is_some_and(|entry| cpu(&entry) > 10_000_000));
    let id = groups.floe.inspect("k")["id"].as_str().unwrap().to_owned();
    let status = std::fs::read_to_string(groups.floe.path("run").join(id).join("status")).unwrap();
    let monitor = status.lines().find_map(|line| line.strip_prefix("monitor=")).unwrap();
    let monitor = rustix::process::Pid::from_raw(monitor.parse().unwrap()).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    groups.floe.wait_for_status("k", "exited");
    let entry = find().unwrap();
    assert!(entry["ended"].is_string() && cpu(&entry) > 10_000_000, "{entry}");
    groups.floe.line("rm k").succeeds();
    assert!(find().is_some());
}
