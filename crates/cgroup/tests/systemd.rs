//! Scopes of a real systemd. Needs root and systemd as the service manager; a VM has both.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that panics has failed; skips are told"
)]

use std::process::{Child, Command};

use cgroup::devices::{DeviceAccess, DeviceKind, DeviceRule};
use cgroup::resources::{Cpu, Limit, Memory};
use cgroup::systemd::{Systemd, Unit, booted};
use cgroup::{Controller, Group, Layout, Resources};
use rustix::process::{Pid, Signal};

/// A sleeping process for a scope of the test's own.
struct Fixture {
    layout: Layout,
    systemd: Systemd,
    unit: Unit,
    child: Child,
}

impl Fixture {
    fn new(name: &str, user: bool) -> Option<Self> {
        if !booted() || !rustix::process::geteuid().is_root() {
            println!("ELSEWHERE: needs systemd as the service manager");
            return None;
        }
        let id = format!("{}-{name}", std::process::id());
        Some(Self {
            layout: Layout::detect().unwrap(),
            systemd: Systemd::connect(user).unwrap(),
            unit: Unit::parse(Some(&format!("floetest.slice:floe:{id}")), &id, user).unwrap(),
            child: Command::new("sleep").arg("1000").spawn().unwrap(),
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn start(&mut self, resources: &Resources, extra: &[(String, String)]) -> Group {
        let pid = self.pid();
        let mut group = self
            .systemd
            .start(&self.unit, &self.layout, pid, resources, extra)
            .unwrap();
        group.apply(resources).unwrap();
        group
    }

    fn show(&self, property: &str) -> String {
        let output = Command::new("systemctl")
            .args(["show", "--value", "-p", property, self.unit.name()])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.systemd.stop(&self.unit);
    }
}

fn limits(mib: u64, pids: u64) -> Resources {
    let limit = Some(Limit::Max(mib << 20));
    let memory = Memory {
        limit,
        swap: limit,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: Some(512),
        quota: Some(Limit::Max(50_000)),
        ..Cpu::default()
    };
    Resources {
        memory,
        cpu,
        pids: Some(Limit::Max(pids)),
        ..Resources::default()
    }
}

fn read(group: &Group, controller: Controller, file: &str) -> String {
    let path = group.directory(controller).unwrap().join(file);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn a_scope_has_its_limits_and_keeps_them_over_a_reload() {
    let Some(mut fixture) = Fixture::new("limits", false) else {
        return;
    };
    let group = fixture.start(&limits(64, 30), &[]);
    assert_eq!(group.procs().unwrap(), [fixture.pid()]);
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", fixture.child.id())).unwrap();
    assert!(
        own.contains(&format!("/floetest.slice/{}", fixture.unit.name())),
        "{own}"
    );
    assert_eq!(fixture.show("TasksMax"), "30");
    assert_eq!(fixture.show("Delegate"), "yes");
    let file = if fixture.layout.is_unified() {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    let check = |limit: u64| {
        let reloaded = Command::new("systemctl")
            .arg("daemon-reload")
            .status()
            .unwrap();
        assert!(reloaded.success());
        assert_eq!(
            read(&group, Controller::Memory, file),
            (limit << 20).to_string()
        );
        assert_eq!(
            read(&group, Controller::Pids, "pids.max"),
            limit.to_string()
        );
    };
    fixture
        .systemd
        .update(&fixture.unit, &fixture.layout, &limits(30, 30))
        .unwrap();
    check(30);
    fixture
        .systemd
        .update(&fixture.unit, &fixture.layout, &limits(90, 90))
        .unwrap();
    let mut reopened = Group::open(&group.paths());
    reopened.apply(&limits(90, 90)).unwrap();
    check(90);
}

#[test]
fn a_stopped_scope_leaves_nothing() {
    let Some(mut fixture) = Fixture::new("stop", false) else {
        return;
    };
    let group = fixture.start(&Resources::default(), &[]);
    for path in group.paths().values() {
        std::fs::create_dir_all(path.join("made/below")).unwrap();
    }
    group.kill(Signal::KILL).unwrap();
    fixture.child.wait().unwrap();
    fixture.systemd.stop(&fixture.unit).unwrap();
    let reopened = Group::open(&group.paths());
    reopened.remove().unwrap();
    assert!(!reopened.exists());
    // Once more: a unit that is gone is stopped.
    fixture.systemd.stop(&fixture.unit).unwrap();
}

#[test]
fn a_second_unit_of_the_name_is_refused() {
    let Some(mut fixture) = Fixture::new("twice", false) else {
        return;
    };
    fixture.start(&Resources::default(), &[]);
    let (unit, pid) = (fixture.unit.clone(), Pid::from_raw(1).unwrap());
    let text = fixture
        .systemd
        .start(&unit, &fixture.layout, pid, &Resources::default(), &[])
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("org.freedesktop.systemd1.UnitExists"),
        "{text}"
    );
}

#[test]
fn devices_and_annotations_reach_systemd() {
    let Some(mut fixture) = Fixture::new("devices", false) else {
        return;
    };
    let rule = |allow, kind, major, minor, access: &str| DeviceRule {
        allow,
        kind,
        major,
        minor,
        access: DeviceAccess::parse(access).unwrap(),
    };
    let devices = vec![
        rule(false, DeviceKind::All, None, None, "rwm"),
        rule(true, DeviceKind::Char, Some(1), Some(3), "rw"),
        rule(true, DeviceKind::Char, Some(136), None, "rw"),
        rule(true, DeviceKind::Char, None, None, "m"),
    ];
    let resources = Resources {
        devices,
        ..Resources::default()
    };
    let extra = [("TimeoutStopUSec".to_owned(), "uint64 7000000".to_owned())];
    let group = fixture.start(&resources, &extra);
    assert_eq!(fixture.show("DevicePolicy"), "strict");
    assert_eq!(fixture.show("TimeoutStopUSec"), "7s");
    let list = fixture.show("DeviceAllow");
    for entry in ["/dev/char/1:3 rw", "char-pts rw", "char-* m"] {
        assert!(list.contains(entry), "{list}");
    }
    let script =
        "echo $$ > $0/cgroup.procs; for d in null zero; do (: </dev/$d) 2>&- && echo $d; done";
    let at = group
        .paths()
        .remove("devices")
        .or_else(|| group.paths().remove(""))
        .unwrap();
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(at)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "null\n");
}

/// A user's systemd, here root's own, reached over its private socket.
#[test]
fn a_users_systemd_gives_scopes_too() {
    if std::env::var_os("FLOE_CGROUP_USER").is_some() {
        scope_of_a_user();
        return;
    }
    let Some(fixture) = Fixture::new("outer", false) else {
        return;
    };
    let runtime = tempfile::tempdir().unwrap();
    let mut manager = Command::new("/lib/systemd/systemd")
        .arg("--user")
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .env_remove("NOTIFY_SOCKET")
        .spawn()
        .unwrap();
    let socket = runtime.path().join("systemd/private");
    for _ in 0..200 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // The environment is this process's own: the other tests have none of it.
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own)
        .args(["--exact", "a_users_systemd_gives_scopes_too", "--nocapture"])
        .env("FLOE_CGROUP_USER", "1")
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .output()
        .unwrap();
    let _ = manager.kill();
    let _ = manager.wait();
    drop(fixture);
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}

/// The part of the test with the user's environment.
fn scope_of_a_user() {
    let mut fixture = Fixture::new("user", true).unwrap();
    let group = fixture.start(&limits(64, 30), &[]);
    assert_eq!(group.procs().unwrap(), [fixture.pid()]);
    fixture.child.kill().unwrap();
    fixture.child.wait().unwrap();
    fixture.systemd.stop(&fixture.unit).unwrap();
    let reopened = Group::open(&group.paths());
    reopened.remove().unwrap();
    assert!(!reopened.exists());
}
