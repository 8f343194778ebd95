//! Namespaces of every kind: new, shared with the host, or another container's.

use serde_json::json;
use std::os::unix::fs::MetadataExt as _;
use tests::{Bundle, Container, Outcome};

/// The kinds as the configuration and as `/proc/PID/ns` name them.
const KINDS: [(&str, &str); 8] = [
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("time", "time"),
    ("user", "user"),
    ("uts", "uts"),
];

/// The link of a process's namespace, as `net:[4026531840]`.
fn namespace(pid: &str, file: &str) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("a namespace");
    link.to_string_lossy().into_owned()
}

fn has(outcome: &Outcome, link: &str) -> bool {
    outcome.stdout().lines().any(|line| line == link)
}

#[test]
fn listed_kinds_are_new_and_others_the_hosts() {
    tests::differs!("runc 1.1 has no time namespaces");
    for new in ["", "time", "user"] {
        let mut bundle = Bundle::new().args(["namespaces"]);
        if new == "user" {
            bundle = bundle.user_namespace(100_000);
        } else if !new.is_empty() {
            bundle = bundle.push("/linux/namespaces", json!({"type": new}));
        }
        if new == "time" && !tests::host::has("/proc/self/ns/time") {
            tests::elsewhere!("the kernel has no time namespaces");
        }
        let listed = bundle.config()["linux"]["namespaces"].to_string();
        let container = Container::new(bundle);
        let outcome = container.run().succeeds();
        for (kind, file) in KINDS {
            let own = listed.contains(&format!("\"{kind}\""));
            let host = has(&outcome, &namespace("self", file));
            assert_eq!(host, !own, "{kind}, with {listed}: {}", outcome.stdout());
        }
    }
}

#[test]
fn without_any_but_mount_the_host_is_shared() {
    let mut bundle = Bundle::new().args(["namespaces"]).remove("/hostname");
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        bundle = bundle.without_namespace(kind);
    }
    let bundle = bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        // A new sysfs or mqueue needs the namespace that it shows.
        mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "mqueue");
    });
    let outcome = Container::new(bundle).run().succeeds();
    for (kind, file) in KINDS {
        let host = has(&outcome, &namespace("self", file));
        assert_eq!(host, kind != "mount", "{kind}: {}", outcome.stdout());
    }
}

/// Lists the namespaces of a container that joins `kind` of a running one.
fn joined(first: &Container, kind: &str, file: &str, mut second: Bundle) -> String {
    let path = format!("/proc/{}/ns/{file}", first.pid());
    second = second
        .args(["namespaces"])
        .without_namespace(kind)
        .push("/linux/namespaces", json!({"type": kind, "path": path}));
    if kind == "uts" {
        second = second.remove("/hostname");
    }
    Container::new(second).run().succeeds().stdout()
}

fn running(bundle: Bundle) -> Container {
    let container = Container::new(bundle.args(["sleep", "1000"]));
    container.create().succeeds();
    container.start().succeeds();
    container
}

#[test]
fn each_kind_can_be_joined_by_its_path() {
    tests::differs!("runc 1.1 has no time namespaces");
    let mut bundle = Bundle::new();
    let time = tests::host::has("/proc/self/ns/time");
    if time {
        bundle = bundle.push("/linux/namespaces", json!({"type": "time"}));
    }
    let first = running(bundle);
    for (kind, file) in KINDS {
        if kind == "user" || kind == "mount" || (kind == "time" && !time) {
            continue;
        }
        let printed = joined(&first, kind, file, Bundle::new());
        let wanted = namespace(&first.pid().to_string(), file);
        assert!(
            printed.contains(&wanted),
            "{kind}: {wanted} not in {printed}"
        );
    }
}

#[test]
fn a_user_namespace_can_be_joined() {
    tests::differs!("runc 1.1 wants mappings for a user namespace that it joins");
    let first = running(Bundle::new().user_namespace(100_000));
    // Its files must be the namespace's own: the same owner as the first container's.
    let second = Bundle::new().user_namespace(100_000);
    let second = second
        .without_namespace("user")
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    let printed = joined(&first, "user", "user", second);
    let wanted = namespace(&first.pid().to_string(), "user");
    assert!(printed.contains(&wanted), "{wanted} not in {printed}");
}

/// What the second container would mount must not appear in the first one.
#[test]
fn a_joined_mount_namespace_is_left_as_it_is() {
    tests::differs!("runc mounts nothing there either, but must find its own bundle inside");
    let first = running(Bundle::new());
    let mounts = || {
        std::fs::read_to_string(format!("/proc/{}/mountinfo", first.pid())).expect("mountinfo")
    };
    let before = mounts();
    // Its `/proc` shows the first container's pids.
    let path = format!("/proc/{}/ns/pid", first.pid());
    let second = Bundle::new()
        .without_namespace("pid")
        .push("/linux/namespaces", json!({"type": "pid", "path": path}));
    let printed = joined(&first, "mount", "mnt", second);
    assert!(printed.contains(&namespace(&first.pid().to_string(), "mnt")));
    assert_eq!(mounts(), before);
}

#[test]
fn a_path_of_another_kind_is_refused() {
    let path = "/proc/self/ns/uts";
    let bundle = Bundle::new()
        .without_namespace("ipc")
        .push("/linux/namespaces", json!({"type": "ipc", "path": path}));
    Container::new(bundle).run().fails().says("ipc");
    let bundle = Bundle::new().without_namespace("ipc").push(
        "/linux/namespaces",
        json!({"type": "ipc", "path": "/nowhere/ns"}),
    );
    Container::new(bundle).run().fails().says("/nowhere/ns");
}

/// Roadmap N11.
#[test]
fn clocks_are_offset_by_the_second() {
    clocks_are_offset(Bundle::new());
}

/// Roadmap N11. The offsets are written before the runtime's ids are given up.
#[test]
fn clocks_are_offset_in_a_user_namespace() {
    clocks_are_offset(Bundle::new().user_namespace(300_000));
}

fn clocks_are_offset(bundle: Bundle) {
    tests::differs!("runc 1.1 has no time namespaces");
    if !tests::host::has("/proc/self/ns/time") {
        tests::elsewhere!("the kernel has no time namespaces");
    }
    let bundle = bundle
        .args(["clock"])
        .push("/linux/namespaces", json!({"type": "time"}))
        .set(
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 100_000, "nanosecs": 5}, "boottime": {"secs": 7_000_000}}),
        );
    let container = Container::new(bundle);
    let clock = |id| rustix::time::clock_gettime(id).tv_sec;
    let (monotonic, boottime) = (
        clock(rustix::time::ClockId::Monotonic),
        clock(rustix::time::ClockId::Boottime),
    );
    let printed = container.run().succeeds().stdout();
    let numbers: Vec<i64> = printed
        .split_whitespace()
        .filter_map(|word| word.split_once('=')?.1.parse().ok())
        .collect();
    let [inner_monotonic, inner_boottime] = numbers[..] else {
        panic!("no clocks: {printed}")
    };
    let took = 60; // seconds that the run may have taken
    assert!((100_000..100_000 + took).contains(&(inner_monotonic - monotonic)));
    assert!((7_000_000..7_000_000 + took).contains(&(inner_boottime - boottime)));
}

/// With no pid namespace of its own, the container's other processes would outlive the first.
#[test]
fn sigkill_ends_all_of_a_container_that_shares_its_pids() {
    let container = running(Bundle::new().without_namespace("pid"));
    let file = container.bundle().directory().join("pid");
    let mut exec = container.command(["exec", "--detach", "--pid-file"]);
    exec.arg(&file).arg(container.id()).args(["/payload", "sleep", "1000"]);
    container.outcome(&mut exec).succeeds();
    let pid = std::fs::read_to_string(file).expect("a pid");
    let cmdline = format!("/proc/{pid}/cmdline");
    assert!(std::fs::read_to_string(&cmdline).expect("a process").contains("sleep"));
    container.kill("KILL").succeeds();
    // A process that has ended has no command line, even before it is waited for.
    tests::wait_until("the second process is gone", || {
        std::fs::read_to_string(&cmdline).map_or(true, |line| line.is_empty())
    });
}

/// Roadmap N11: a process that joins later sees the same clocks.
#[test]
fn exec_joins_the_clocks() {
    tests::differs!("runc 1.1 has no time namespaces");
    if !tests::host::has("/proc/self/ns/time") {
        tests::elsewhere!("the kernel has no time namespaces");
    }
    let container = running(
        Bundle::new()
            .push("/linux/namespaces", json!({"type": "time"}))
            .set("/linux/timeOffsets", json!({"boottime": {"secs": 9_000_000}})),
    );
    let printed = container.exec(["/payload", "clock"]).succeeds().stdout();
    let boottime = printed
        .rsplit('=')
        .next()
        .and_then(|text| text.trim().parse::<i64>().ok());
    assert!(boottime.is_some_and(|value| value > 9_000_000), "{printed}");
}

#[test]
fn names_are_the_containers_own() {
    tests::differs!("runc 1.1 has no domainname");
    let bundle = Bundle::new()
        .args(["hostname", "--", "domainname"])
        .set("/hostname", "ice")
        .set("/domainname", "polar");
    Container::new(bundle).run().succeeds().prints("ice\npolar\n");
    assert_ne!(
        rustix::system::uname().nodename().to_string_lossy(),
        "ice",
        "the host was renamed"
    );
}

#[test]
fn a_hostname_without_a_namespace_is_refused() {
    let bundle = Bundle::new().without_namespace("uts");
    Container::new(bundle).run().fails().says("hostname");
}

/// The container's group is the root of its cgroup namespace, in every hierarchy.
#[test]
fn the_groups_root_is_the_containers_group() {
    let printed = Container::new(Bundle::new().args(["cgroup"]))
        .run()
        .succeeds()
        .stdout();
    // Hierarchies without a group of ours (unified `name=` ones) do not exist on test machines.
    for line in printed.lines() {
        assert!(line.ends_with(":/"), "{line} in {printed}");
    }
}

/// A file that was made in the container belongs to the mapped id outside.
#[test]
fn owners_follow_the_id_maps() {
    let bundle = Bundle::new()
        .args([
            "id", "--", "touch", "/tmp/of-root", "--", "touch", "/tmp/of-ten", "--", "chown",
            "/tmp/of-ten", "10", "11",
        ])
        .user_namespace(100_000)
        .edit(|config| {
            config["linux"]["gidMappings"] = json!([
                {"containerID": 0, "hostID": 100_000, "size": 10},
                {"containerID": 10, "hostID": 300_000, "size": 10},
            ]);
        });
    let all = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    let bundle = ["bounding", "effective", "permitted"]
        .iter()
        .fold(bundle, |bundle, set| {
            bundle.set(&format!("/process/capabilities/{set}"), all.clone())
        });
    let rootfs = bundle.rootfs();
    let container = Container::new(bundle);
    container
        .run()
        .succeeds()
        .prints("uid=0 gid=0 groups=\n");
    let owner = |name: &str| {
        let found = std::fs::metadata(rootfs.join("tmp").join(name)).expect("the file");
        (found.uid(), found.gid())
    };
    assert_eq!(owner("of-root"), (100_000, 100_000));
    assert_eq!(owner("of-ten"), (100_010, 300_001));
}
