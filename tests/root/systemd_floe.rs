//! `floe` where systemd is the service manager: its containers are scopes.

use std::path::Path;
use std::process::Command;
use tests::host::{self, Layout};
use tests::{Floe, elsewhere};

macro_rules! need_systemd {
    () => {
        if !host::has("/run/systemd/system") {
            elsewhere!("needs systemd as the service manager");
        }
    };
}

fn show(unit: &str, property: &str) -> String {
    let output = Command::new("systemctl").args(["show", "--value", "-p", property, unit]).output();
    String::from_utf8(output.expect("execute systemctl").stdout).expect("text").trim().to_owned()
}

fn reload() {
    let status = Command::new("systemctl").arg("daemon-reload").status();
    assert!(status.expect("execute systemctl").success());
}

/// The group of the container's first process, seen from outside.
fn group(floe: &Floe, name: &str) -> String {
    let pid = floe.inspect(name)["state"]["pid"].as_i64().expect("a pid");
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process");
    let line = text.lines().find(|line| line.starts_with("0::") || line.contains(":name=systemd:"));
    line.and_then(|line| line.splitn(3, ':').nth(2)).expect("a group").to_owned()
}

#[test]
fn a_container_is_a_scope_for_all_its_life() {
    need_systemd!();
    let floe = Floe::new();
    let id = floe.line("run -d --name s -m 64m --pids 40 -- sleep 1000").succeeds().stdout().trim().to_owned();
    let unit = format!("floe-{id}.scope");
    let own = format!("/system.slice/{unit}");
    assert_eq!(show(&unit, "ControlGroup"), own);
    // The inner group: the container's namespace begins below its limits.
    assert_eq!(group(&floe, "s"), format!("{own}/payload"));
    let inside = floe.line("exec s cat /proc/self/cgroup").succeeds().stdout();
    assert!(inside.lines().all(|line| line.ends_with(":/")), "{inside}");
    let memory = if host::layout() == Layout::V2 { "MemoryMax" } else { "MemoryLimit" };
    let limits = || (show(&unit, memory), show(&unit, "TasksMax"));
    assert_eq!(limits(), ("67108864".to_owned(), "40".to_owned()));
    floe.line("update -m 128m --pids 50 s").succeeds();
    reload();
    assert_eq!(limits(), ("134217728".to_owned(), "50".to_owned()));
    let stats = floe.line("stats --no-stream --format json s").succeeds().json();
    assert_eq!((&stats[0]["memoryLimit"], &stats[0]["pids"]), (&134_217_728.into(), &1.into()));
    floe.line("pause s").succeeds();
    assert_eq!(floe.status("s"), "paused");
    floe.line("unpause s").succeeds();
    floe.line("restart -t 0 s").succeeds();
    assert_eq!(group(&floe, "s"), format!("{own}/payload"));
    assert_eq!(limits(), ("134217728".to_owned(), "50".to_owned()));
    floe.line("stop -t 0 s").succeeds();
    assert_eq!(show(&unit, "LoadState"), "not-found");
    // A copy makes a container of its own for as long as it takes.
    let out = floe.path("out/passwd").display().to_string();
    floe.call(["cp", "s:/etc/passwd", &out]).succeeds();
    assert!(Path::new(&out).exists());
    assert_eq!(show(&format!("floe-{id}-cp.scope"), "LoadState"), "not-found");
    floe.line("start s").succeeds();
    floe.line("rm --force s").succeeds();
    assert_eq!(show(&unit, "LoadState"), "not-found");
}

#[test]
fn a_parent_is_a_slice_or_a_path() {
    need_systemd!();
    let floe = Floe::new();
    let id = floe.line("run -d --name s --cgroup-parent floetest.slice -- sleep 1000").succeeds().stdout();
    let unit = format!("floe-{}.scope", id.trim());
    assert_eq!(group(&floe, "s"), format!("/floetest.slice/{unit}/payload"));
    floe.line("rm --force s").succeeds();
    let id = floe.line("run -d --name p --cgroup-parent /floetest -- sleep 1000").succeeds().stdout();
    assert_eq!(group(&floe, "p"), format!("/floetest/{}/payload", id.trim()));
    floe.line("rm --force p").succeeds();
    for mount in host::cgroup_mounts() {
        // Not there where floe made no group.
        let _ = std::fs::remove_dir(mount.join("floetest"));
    }
    floe.line("run --rm --cgroup-parent some/where -- true").exits(125).says("--cgroup-parent `some/where`");
}
