//! Groups for real, on whatever layout this host has. Needs root and writable cgroups.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that panics has failed; skips are told"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cgroup::devices::{DeviceAccess, DeviceKind, DeviceRule};
use cgroup::group::Frozen;
use cgroup::resources::{Cpu, Limit, Memory};
use cgroup::{Controller, Group, Layout, Request, Resources};
use rustix::process::{Pid, Signal};

/// Two processes in a group of the test's own; everything is removed in the end.
struct Fixture {
    group: Group,
    parent: String,
    layout: Layout,
    children: Vec<Child>,
}

impl Fixture {
    fn new(name: &str) -> Option<Self> {
        let layout = Layout::detect().unwrap();
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: not root");
            return None;
        }
        let hierarchies = || layout.v1.iter().chain(&layout.v2);
        if hierarchies().next().is_none() || hierarchies().any(|found| found.read_only) {
            println!("SKIP: no writable cgroup file system");
            return None;
        }
        let parent = format!("/floe-test-{}-{name}", std::process::id());
        let path = format!("{parent}/group");
        let request = Request {
            id: "unused",
            path: Some(&path),
            rootless: false,
        };
        let group = Group::place(&layout, &request).unwrap();
        Some(Self {
            group,
            parent,
            layout,
            children: Vec::new(),
        })
    }

    fn spawn(&mut self) -> Pid {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        self.children.push(child);
        pid
    }

    fn read(&self, controller: Controller, file: &str) -> String {
        let path = self.group.directory(controller).unwrap().join(file);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    fn parents(&self) -> Vec<PathBuf> {
        let hierarchies = self.layout.v1.iter().chain(&self.layout.v2);
        hierarchies
            .map(|found| found.directory(Path::new(&self.parent)))
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.group.remove();
        for parent in self.parents() {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

fn own_groups(pid: Pid) -> Vec<String> {
    let path = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| line.splitn(3, ':').nth(2).unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_process_is_in_the_group_in_every_hierarchy() {
    let Some(mut fixture) = Fixture::new("attach") else {
        return;
    };
    fixture.group.create().unwrap();
    let pid = fixture.spawn();
    fixture.group.attach(pid).unwrap();
    let expected = format!("{}/group", fixture.parent);
    for group in own_groups(pid) {
        assert_eq!(group, expected);
    }
    assert_eq!(fixture.group.procs().unwrap(), [pid]);
    let reopened = Group::open(&fixture.group.paths());
    assert_eq!(reopened.paths(), fixture.group.paths());
    assert_eq!(reopened.procs_recursive().unwrap(), [pid]);
}

#[test]
fn limits_are_in_force_and_change() {
    let Some(mut fixture) = Fixture::new("limits") else {
        return;
    };
    fixture.group.create().unwrap();
    let set = |limit: u64, swap: u64| Memory {
        limit: Some(Limit::Max(limit << 20)),
        swap: Some(Limit::Max(swap << 20)),
        ..Memory::default()
    };
    let has = |fixture: &Fixture, controller| fixture.group.directory(controller).is_some();
    if !has(&fixture, Controller::Memory) || !has(&fixture, Controller::Pids) {
        println!("SKIP: no memory or pids controller");
        return;
    }
    let v1 = fixture.group.paths().contains_key("memory");
    let file = if v1 {
        "memory.limit_in_bytes"
    } else {
        "memory.max"
    };
    // New, raised beyond the old memory+swap, lowered below it; then through a reopened group.
    for (limit, swap) in [(64, 128), (256, 512), (32, 48)] {
        let memory = set(limit, swap);
        let resources = Resources {
            memory,
            pids: Some(Limit::Max(limit)),
            ..Resources::default()
        };
        fixture.group.apply(&resources).unwrap();
        assert_eq!(
            fixture.read(Controller::Memory, file),
            (limit << 20).to_string()
        );
        assert_eq!(
            fixture.read(Controller::Pids, "pids.max"),
            limit.to_string()
        );
    }
    let mut reopened = Group::open(&fixture.group.paths());
    let memory = Memory {
        limit: Some(Limit::Unlimited),
        ..Memory::default()
    };
    reopened
        .apply(&Resources {
            memory,
            ..Resources::default()
        })
        .unwrap();
    let unlimited = fixture.read(Controller::Memory, file);
    assert!(unlimited == "max" || unlimited.len() == 19, "{unlimited}");
}

#[test]
fn bandwidth_changes_in_any_order() {
    let Some(mut fixture) = Fixture::new("bandwidth") else {
        return;
    };
    fixture.group.create().unwrap();
    if fixture.group.directory(Controller::Cpu).is_none() {
        println!("SKIP: no cpu controller");
        return;
    }
    for (quota, period, burst) in [
        (50_000, 100_000, 20_000),
        (500_000, 1_000_000, 100_000),
        (2_000, 10_000, 1_000),
    ] {
        let cpu = Cpu {
            quota: Some(Limit::Max(quota)),
            period: Some(period),
            burst: Some(burst),
            ..Cpu::default()
        };
        fixture
            .group
            .apply(&Resources {
                cpu,
                ..Resources::default()
            })
            .unwrap();
    }
}

#[test]
fn frozen_processes_thaw_and_frozen_groups_die() {
    let Some(mut fixture) = Fixture::new("freeze") else {
        return;
    };
    fixture.group.create().unwrap();
    let pid = fixture.spawn();
    fixture.group.attach(pid).unwrap();
    assert_eq!(fixture.group.frozen().unwrap(), Frozen::No);
    fixture.group.freeze().unwrap();
    assert_eq!(fixture.group.frozen().unwrap(), Frozen::Yes);
    fixture.group.thaw().unwrap();
    assert_eq!(fixture.group.frozen().unwrap(), Frozen::No);
    fixture.group.freeze().unwrap();
    fixture.group.kill(Signal::KILL).unwrap();
    let status = fixture.children[0].wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
    assert_eq!(fixture.group.procs().unwrap(), []);
}

#[test]
fn remove_takes_the_groups_below_along_and_nothing_else() {
    let Some(mut fixture) = Fixture::new("remove") else {
        return;
    };
    fixture.group.create().unwrap();
    let paths = fixture.group.paths();
    for path in paths.values() {
        std::fs::create_dir_all(path.join("made/by/the container")).unwrap();
    }
    fixture.group.remove().unwrap();
    assert!(!fixture.group.exists());
    for parent in fixture.parents() {
        assert!(parent.exists(), "{}", parent.display());
    }
    fixture.group.remove().unwrap();
}

#[test]
fn a_group_that_was_there_before_stays() {
    let Some(mut fixture) = Fixture::new("adopt") else {
        return;
    };
    fixture.group.create().unwrap();
    let mut second = fixture.group.clone();
    second.create().unwrap();
    second.remove().unwrap();
    assert!(fixture.group.exists());
    let mut reopened = Group::open(&fixture.group.paths());
    reopened.keep(&second.adopted());
    reopened.remove().unwrap();
    assert!(fixture.group.exists());
}

#[test]
fn busy_groups_are_reported_all() {
    let Some(mut fixture) = Fixture::new("busy") else {
        return;
    };
    fixture.group.create().unwrap();
    let pid = fixture.spawn();
    fixture.group.attach(pid).unwrap();
    let text = fixture.group.remove().unwrap_err().to_string();
    assert_eq!(
        text.matches("remove group").count(),
        fixture.parents().len(),
        "{text}"
    );
}

#[test]
fn device_rules_hold_for_processes_of_the_group() {
    let Some(mut fixture) = Fixture::new("devices") else {
        return;
    };
    fixture.group.create().unwrap();
    let rule = |allow, kind, number: Option<(u32, u32)>, access: &str| DeviceRule {
        allow,
        kind,
        major: number.map(|(major, _)| major),
        minor: number.map(|(_, minor)| minor),
        access: DeviceAccess::parse(access).unwrap(),
    };
    let nothing = rule(false, DeviceKind::All, None, "rwm");
    let null = rule(true, DeviceKind::Char, Some((1, 3)), "rw");
    let zero = rule(true, DeviceKind::Char, Some((1, 5)), "r");
    let all_char = rule(true, DeviceKind::Char, None, "r");
    let not_zero = rule(false, DeviceKind::Char, Some((1, 5)), "r");
    // (rules, what opens for reading among null, zero, full); the hole is beyond v1.
    let rows: [(&[DeviceRule], &str); 5] = [
        (&[nothing, null], "null"),
        (&[nothing, zero], "zero"),
        (&[nothing, all_char, not_zero], "null full"),
        (&[nothing, null, zero], "null zero"),
        (
            &[rule(true, DeviceKind::All, None, "rwm")],
            "null zero full",
        ),
    ];
    for (rules, expected) in rows {
        let resources = Resources {
            devices: rules.to_vec(),
            ..Resources::default()
        };
        fixture.group.apply(&resources).unwrap();
        assert_eq!(opened_in(&fixture.group), expected, "{rules:?}");
    }
}

/// The devices that a shell in the group can open.
fn opened_in(group: &Group) -> String {
    let script = "read go; for d in null zero full; do (: </dev/$d) 2>&- && echo $d; done";
    let mut shell = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    group.attach(Pid::from_child(&shell)).unwrap();
    shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
