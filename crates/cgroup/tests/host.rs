//! Groups for real, on whatever layout this host has. Needs root and writable cgroups.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that panics has failed; skips are told"
)]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cgroup::devices::{DeviceAccess, DeviceKind, DeviceRule};
use cgroup::group::Frozen;
use cgroup::resources::{Cpu, Limit, Memory};
use cgroup::{Controller, Group, Layout, Request, Resources};
use rustix::process::{Pid, Signal};

#[path = "host/events.rs"]
mod events;

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
        let directory = self.group.directory(controller).unwrap();
        // A cpuset mounted without prefix has bare names.
        let bare = file.split_once('.').map_or(file, |(_, bare)| bare);
        let text = std::fs::read_to_string(directory.join(file));
        let text = text.or_else(|_| std::fs::read_to_string(directory.join(bare)));
        text.unwrap().trim().to_owned()
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

/// The groups of a process in the hierarchies that the layout shows.
fn own_groups(layout: &Layout, pid: Pid) -> Vec<String> {
    let path = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap();
    let shown = |names: &str| match names {
        "" => layout.v2.is_some(),
        names => layout.v1.iter().any(|found| found.names.join(",") == names),
    };
    let lines = text
        .lines()
        .map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    lines
        .filter(|line| shown(line[1]))
        .map(|line| line[2].to_owned())
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
    for group in own_groups(&fixture.layout, pid) {
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
    let v2 = fixture.group.paths().contains_key("");
    for (rules, expected) in rows {
        if !v2 && rules.contains(&not_zero) {
            continue;
        }
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

#[test]
fn statistics_count_what_the_group_did() {
    let Some(mut fixture) = Fixture::new("stats") else {
        return;
    };
    fixture.group.create().unwrap();
    let mut shell = Command::new("sh")
        .args([
            "-c",
            "read go; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; read end",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    fixture.group.attach(Pid::from_child(&shell)).unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let mut stats = fixture.group.stats().unwrap();
    while stats.cpu.total < 1_000_000 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
        stats = fixture.group.stats().unwrap();
    }
    assert!(stats.cpu.total >= 1_000_000, "{stats:?}");
    if let Some(pids) = stats.pids {
        assert_eq!(pids.current, 1);
    }
    stdin.write_all(b"end\n").unwrap();
    shell.wait().unwrap();
}

#[test]
fn limits_stay_outside_of_an_inner_group() {
    let Some(mut fixture) = Fixture::new("inner") else {
        return;
    };
    fixture.group.create().unwrap();
    if fixture.group.directory(Controller::Pids).is_none() {
        println!("SKIP: no pids controller");
        return;
    }
    let limit = |count| Resources {
        pids: Some(Limit::Max(count)),
        ..Resources::default()
    };
    fixture.group.apply(&limit(50)).unwrap();
    let mut inner = fixture.group.inner("payload");
    inner.create().unwrap();
    let pid = fixture.spawn();
    inner.attach(pid).unwrap();
    for group in own_groups(&fixture.layout, pid) {
        assert_eq!(group, format!("{}/group/payload", fixture.parent));
    }
    assert_eq!(fixture.group.procs().unwrap(), []);
    assert_eq!(fixture.group.procs_recursive().unwrap(), [pid]);
    // Controllers reach the inner group, so that what is in it can have groups with limits.
    assert!(
        inner
            .directory(Controller::Pids)
            .unwrap()
            .join("pids.max")
            .exists()
    );
    fixture.group.apply(&limit(60)).unwrap();
    assert_eq!(fixture.read(Controller::Pids, "pids.max"), "60");
    fixture.group.freeze().unwrap();
    fixture.group.kill(Signal::KILL).unwrap();
    fixture.children[0].wait().unwrap();
    fixture.group.remove().unwrap();
    assert!(!fixture.group.exists() && !inner.exists());
}

#[test]
fn processors_change_under_an_inner_group() {
    let Some(mut fixture) = Fixture::new("cpuset") else {
        return;
    };
    fixture.group.create().unwrap();
    if fixture.group.directory(Controller::Cpuset).is_none() {
        println!("SKIP: no cpuset controller");
        return;
    }
    if std::thread::available_parallelism().unwrap().get() < 2 {
        println!("SKIP: one processor only");
        return;
    }
    let mut inner = fixture.group.inner("payload");
    inner.create().unwrap();
    inner.attach(fixture.spawn()).unwrap();
    for cpus in ["0", "1", "0-1"] {
        let cpu = Cpu {
            cpus: Some(cpus.to_owned()),
            ..Cpu::default()
        };
        fixture
            .group
            .apply(&Resources {
                cpu,
                ..Resources::default()
            })
            .unwrap();
        assert_eq!(fixture.read(Controller::Cpuset, "cpuset.cpus"), cpus);
        let stats = inner.stats().unwrap().cpuset.unwrap();
        let names: Vec<_> = stats.cpus.iter().map(u32::to_string).collect();
        assert_eq!(names.join("-"), cpus);
    }
}

/// All of the above again where the host shows only some of its hierarchies. Mounts of a private
/// namespace; the host's stay as they are.
#[test]
fn every_layout_that_this_host_can_show() {
    if std::env::var_os("FLOE_CGROUP_INNER").is_some() {
        return;
    }
    let Some(fixture) = Fixture::new("layouts") else {
        return;
    };
    if fixture.layout.v1.is_empty() || fixture.layout.v2.is_none() {
        // One layout only, on which the others run without our help.
        assert!(fixture.layout.is_unified() || fixture.layout.v2.is_none());
        return;
    }
    let v2 = fixture
        .layout
        .v2
        .as_ref()
        .unwrap()
        .mount_point
        .display()
        .to_string();
    let only_v1 = format!("umount {v2}");
    let only_v2 = "mount -t cgroup2 none /sys/fs/cgroup".to_owned();
    for (name, prepare) in [("v1", only_v1), ("v2", only_v2)] {
        let script = format!("{prepare} && exec \"$0\" --test-threads 1");
        let own = std::env::current_exe().unwrap();
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(&own)
            .env("FLOE_CGROUP_INNER", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {text}");
    }
}

/// A container makes groups that no path reaches, with a process at the bottom.
#[test]
fn groups_too_deep_for_a_path_are_killed_and_removed() {
    let Some(mut fixture) = Fixture::new("deep") else {
        return;
    };
    fixture.group.create().unwrap();
    let at = fixture
        .group
        .paths()
        .remove("")
        .or_else(|| fixture.group.paths().remove("devices"));
    let name = "d".repeat(250);
    let script = "cd \"$0\" || exit 1; n=$1; i=0; while [ $i -lt 40 ]; do mkdir $n && cd -P $n || exit 1; \
                  i=$((i+1)); done; echo 0 > cgroup.procs && exec sleep 1000";
    let child = Command::new("bash")
        .args(["-c", script])
        .arg(at.unwrap())
        .arg(name)
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    fixture.children.push(child);
    let until = Instant::now() + Duration::from_secs(120);
    while fixture.group.procs_recursive().unwrap().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(fixture.group.procs_recursive().unwrap(), [pid]);
    fixture.group.kill(Signal::KILL).unwrap();
    fixture.children[0].wait().unwrap();
    fixture.group.remove().unwrap();
    assert!(!fixture.group.exists());
}

/// Root delegates a v2 group; a process of another user in it gets a group of its own there.
#[test]
fn a_user_gets_groups_where_it_was_delegated() {
    if std::env::var_os("FLOE_CGROUP_USER").is_some() {
        group_of_a_user();
        return;
    }
    let Some(mut fixture) = Fixture::new("user") else {
        return;
    };
    if fixture.layout.v2.is_none() {
        println!("ELSEWHERE: no v2");
        return;
    }
    fixture.group.create().unwrap();
    fixture.group.delegate(1000, 1000).unwrap();
    let mut session = fixture.group.inner("session");
    session.create().unwrap();
    session.delegate(1000, 1000).unwrap();
    // A copy that the user may execute, wherever the build directory is.
    let place = tempfile::Builder::new()
        .permissions(open_to_all())
        .tempdir()
        .unwrap();
    let copy = place.path().join("host");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let script =
        "read go; exec \"$0\" --exact a_user_gets_groups_where_it_was_delegated --nocapture";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .arg(&copy)
        .env("FLOE_CGROUP_USER", "1")
        .uid(1000)
        .gid(1000)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    session.attach(Pid::from_child(&child)).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}

fn open_to_all() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

/// The part of the test that runs as that user.
fn group_of_a_user() {
    let layout = Layout::detect().unwrap();
    let request = Request {
        id: "web",
        path: None,
        rootless: true,
    };
    let mut group = Group::place(&layout, &request).unwrap();
    group.create().unwrap();
    let path = group.paths().remove("").unwrap();
    assert!(path.ends_with("group/floe/web"), "{}", path.display());
    let has_pids = layout.places().of(Controller::Pids).is_some() && layout.is_unified();
    let pids = Some(Limit::Max(5)).filter(|_| has_pids);
    let devices = vec![DeviceRule {
        allow: false,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        access: DeviceAccess::ALL,
    }];
    group
        .apply(&Resources {
            pids,
            devices,
            ..Resources::default()
        })
        .unwrap();
    if has_pids {
        let written = std::fs::read_to_string(path.join("pids.max")).unwrap();
        assert_eq!(written, "5\n");
    }
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    group.attach(Pid::from_child(&child)).unwrap();
    group.kill(Signal::KILL).unwrap();
    child.wait().unwrap();
    group.remove().unwrap();
    // Without any right nothing is made, and nothing is an error until it is asked for.
    let request = Request {
        path: Some("/elsewhere"),
        ..request
    };
    let mut group = Group::place(&layout, &request).unwrap();
    group.create().unwrap();
    assert_eq!(group.paths().len(), 0);
    let pids = Some(Limit::Max(5));
    let error = group
        .apply(&Resources {
            pids,
            ..Resources::default()
        })
        .unwrap_err();
    assert!(
        error.to_string().contains("no usable pids controller"),
        "{error}"
    );
}

/// A container's own systemd moves everything into groups below: exec then joins it there.
#[test]
fn a_process_joins_where_the_first_one_went() {
    let Some(mut fixture) = Fixture::new("beside") else {
        return;
    };
    fixture.group.create().unwrap();
    let first = fixture.spawn();
    let second = fixture.spawn();
    let mut below = fixture.group.inner("init.scope");
    below.create().unwrap();
    below.attach(first).unwrap();
    let paths = fixture.group.paths();
    let Some(v2) = paths.get("") else {
        println!("ELSEWHERE: no v2");
        return;
    };
    let controllers = std::fs::read_to_string(v2.join("cgroup.controllers")).unwrap();
    let Some(one) = controllers.split_whitespace().next() else {
        println!("ELSEWHERE: no v2 controller that a group can be given");
        return;
    };
    std::fs::write(v2.join("cgroup.subtree_control"), format!("+{one}")).unwrap();
    assert_eq!(
        fixture.group.attach(second).unwrap_err().errno(),
        Some(rustix::io::Errno::BUSY)
    );
    fixture.group.attach_beside(second, first).unwrap();
    assert_eq!(below.procs().unwrap().len(), 2);
}

#[test]
fn a_group_below_processes_has_no_controllers_and_says_why() {
    let Some(mut fixture) = Fixture::new("blocked") else {
        return;
    };
    fixture.group.create().unwrap();
    let Some(v2) = fixture.group.paths().remove("") else {
        println!("ELSEWHERE: no v2");
        return;
    };
    let controllers = std::fs::read_to_string(v2.join("cgroup.controllers")).unwrap();
    let known = [("pids", "pids.max"), ("hugetlb", "hugetlb.2MB.max")];
    let usable = known
        .iter()
        .find(|(controller, _)| controllers.contains(controller));
    let Some((_, name)) = usable else {
        println!("ELSEWHERE: no v2 controller that a group can be given");
        return;
    };
    let resources = Resources {
        unified: [((*name).to_owned(), "max".to_owned())].into(),
        ..Resources::default()
    };
    let pid = fixture.spawn();
    fixture.group.attach(pid).unwrap();
    let mut below = fixture.group.inner("below");
    below.create().unwrap();
    let text = below.apply(&resources).unwrap_err().to_string();
    assert_eq!(
        text,
        format!(
            "set unified `{name}`: `{}` has processes of its own, and v2 gives groups below such a \
             one no controllers",
            v2.display()
        )
    );
}

#[test]
fn refusals_say_what_is_in_the_way() {
    let Some(mut fixture) = Fixture::new("refused") else {
        return;
    };
    fixture.group.create().unwrap();
    if !fixture.group.paths().contains_key("cpu") {
        // v2 has no real time, and plans leave it out.
        assert!(fixture.layout.is_unified());
        return;
    }
    let cpu = Cpu {
        realtime_runtime: Some(10_000),
        ..Cpu::default()
    };
    let text = fixture.group.apply(&Resources {
        cpu,
        ..Resources::default()
    });
    let text = text.unwrap_err().to_string();
    let file = fixture
        .group
        .directory(Controller::Cpu)
        .unwrap()
        .join("cpu.rt_runtime_us");
    // Kernels need not schedule real time by group.
    let cause = if file.exists() {
        "a group above it allows less real time"
    } else {
        "no such file or directory (ENOENT)"
    };
    assert!(
        text.ends_with(&format!("cpu.rt_runtime_us`: {cause}")),
        "{text}"
    );
}
