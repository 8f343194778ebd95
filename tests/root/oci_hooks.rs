//! Hooks: where and in which order they run, what they are told, what their failure does.

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tests::{Bundle, Container};

/// The six kinds in the order of a container's life.
const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A hook that runs a shell script of the host. `startContainer` runs inside, where there is only
/// the payload: see [`inside`].
fn script(bundle: &Bundle, name: &str, text: &str) -> Value {
    let path = bundle.directory().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    json!({"path": path, "args": [name, "one", "two"], "env": ["WORD=ice", "PATH=/usr/bin:/bin"]})
}

fn inside(args: &[&str]) -> Value {
    json!({"path": "/payload", "args": args, "env": []})
}

fn log_of(bundle: &Bundle) -> PathBuf {
    bundle.directory().join("hooks.log")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A bundle with a hook of each kind but `startContainer`, which says its name in a log.
fn with_all_hooks(bundle: Bundle) -> Bundle {
    let log = log_of(&bundle).display().to_string();
    let mut hooks = serde_json::Map::new();
    for kind in KINDS {
        let hook = if kind == "startContainer" {
            inside(&["payload", "append", "/hook-log", "startContainer\n"])
        } else {
            script(&bundle, kind, &format!("echo {kind} >> {log}"))
        };
        hooks.insert(kind.to_owned(), json!([hook]));
    }
    // The same file inside, so that one order is seen.
    std::fs::write(log_of(&bundle), "").expect("the log");
    let bundle = bundle.mount("bind", &log, "/hook-log", &["bind"]);
    bundle.set("/hooks", hooks)
}

#[test]
fn hooks_run_in_the_order_of_the_containers_life() {
    tests::differs!("runc calls poststart hooks from `create`");
    let bundle = with_all_hooks(Bundle::new().args(["append", "/hook-log", "program\n"]));
    let log = log_of(&bundle);
    let container = Container::new(bundle);
    container.create().succeeds();
    assert_eq!(read(&log), "prestart\ncreateRuntime\ncreateContainer\n");
    container.start().succeeds();
    container.wait_for_status("stopped");
    let now = read(&log);
    // The program and `poststart` run side by side.
    assert!(now.contains("createContainer\nstartContainer\n") && now.contains("poststart\n"), "{now}");
    container.delete().succeeds();
    assert!(read(&log).ends_with("poststop\n"), "{}", read(&log));
    assert_eq!(read(&log).lines().count(), 7);
}

#[test]
fn hooks_of_a_kind_run_in_order_with_their_arguments_and_environment() {
    let bundle = Bundle::new();
    let log = log_of(&bundle);
    let text = format!("echo $0 $# $1 $2 $WORD ${{FLOE_TEST_ID-none}} >> {}", log.display());
    let hooks = json!({"createRuntime": [script(&bundle, "first", &text), script(&bundle, "second", &text)]});
    let container = Container::new(bundle.set("/hooks", hooks));
    container.run().succeeds();
    let lines: Vec<String> = read(&log).lines().map(str::to_owned).collect();
    // A script's $0 is its path, whatever argv[0] was.
    assert!(lines[0].ends_with("first 2 one two ice none"), "{lines:?}");
    assert!(lines[1].ends_with("second 2 one two ice none"), "{lines:?}");
}

/// The state on standard input, and whose namespaces they run in.
#[test]
fn hooks_are_told_the_state() {
    let bundle = Bundle::new().set("/annotations", json!({"a.b": "c"})).args(["sleep", "1000"]);
    let directory = bundle.directory().to_owned();
    let mut hooks = serde_json::Map::new();
    for kind in KINDS.into_iter().filter(|kind| *kind != "startContainer") {
        let text = format!(
            "cat > {0}/{kind}.json; readlink /proc/self/ns/net > {0}/{kind}.net; readlink /proc/self/ns/mnt > {0}/{kind}.mnt",
            directory.display()
        );
        hooks.insert(kind.to_owned(), json!([script(&bundle, kind, &text)]));
    }
    let container = Container::new(bundle.set("/hooks", hooks));
    container.create().succeeds();
    container.start().succeeds();
    let pid = container.pid();
    let link = |pid: &str, kind: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        link.display().to_string()
    };
    let (inner, outer) = (link(&pid.to_string(), "net"), link("self", "net"));
    let outer_mounts = link("self", "mnt");
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    container.delete().succeeds();
    for (kind, status, pid, net) in [
        ("prestart", "created", pid, &outer),
        ("createRuntime", "creating", pid, &outer),
        ("createContainer", "creating", pid, &inner),
        ("poststart", "running", pid, &outer),
        ("poststop", "stopped", 0, &outer), // 0: no process, and not printed
    ] {
        let state: Value = serde_json::from_str(&read(&directory.join(format!("{kind}.json")))).expect(kind);
        assert_eq!(state["id"], container.id(), "{kind}");
        if container.runtime().is_floe() {
            // runc says `creating` before `start`, and leaves the pid out afterwards.
            let seen = state["pid"].as_i64().unwrap_or_default();
            assert_eq!((&state["status"], seen), (&json!(status), pid.into()), "{kind}");
        }
        assert_eq!(state["annotations"]["a.b"], "c", "{kind}");
        assert_eq!(state["bundle"], json!(container.bundle().path()), "{kind}");
        assert!(state["ociVersion"].as_str().is_some_and(|text| text.starts_with("1.")), "{kind}");
        assert_eq!(read(&directory.join(format!("{kind}.net"))).trim(), net, "{kind}");
        let mounts = read(&directory.join(format!("{kind}.mnt")));
        assert_eq!(mounts.trim() == outer_mounts, kind != "createContainer", "{kind}");
    }
}

/// `startContainer` runs in the container, with its root, before the program.
#[test]
fn start_container_hooks_run_inside() {
    let hooks = json!({"startContainer": [inside(&["payload", "symlink", "/proc/self/ns/net", "/made-inside"])]});
    let bundle = Bundle::new().args(["readlink", "/made-inside"]).set("/hooks", hooks);
    Container::new(bundle).run().succeeds().prints("/proc/self/ns/net\n");
}

/// What fails before the program runs takes the container with it; what fails later is a warning.
#[test]
fn a_failing_hook_ends_the_container_until_the_program_runs() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let bundle = with_all_hooks(Bundle::new());
        let log = log_of(&bundle);
        let failing = script(&bundle, "failing", "exit 3");
        let bundle = bundle.push(&format!("/hooks/{kind}"), failing);
        let container = Container::new(bundle);
        let outcome = container.create().exits(1).says("exit status");
        if container.runtime().is_floe() {
            let outcome = outcome.says(&format!("hooks.{kind}[1]: run `")).says("exit status: 3");
            assert_eq!(outcome.stderr().lines().count(), 1);
        }
        container.call(["state", container.id()]).fails().says("does not exist");
        assert!(container.cgroups().is_empty(), "{kind}: {:?}", container.cgroups());
        assert!(!read(&log).contains("startContainer"), "{kind}");
    }
}

#[test]
fn a_failing_start_hook_stops_the_container() {
    tests::differs!("runc has answered `start` before those hooks run");
    let hooks = json!({"startContainer": [inside(&["payload", "exit", "4"])]});
    let bundle = Bundle::new().args(["touch", "/ran"]).set("/hooks", hooks);
    let ran = bundle.rootfs().join("ran");
    let container = Container::new(bundle);
    container.create().succeeds();
    let outcome = container.start().exits(1);
    if container.runtime().is_floe() {
        outcome.says("hooks.startContainer[0]: run `/payload`").says("exit status: 4");
    }
    container.wait_for_status("stopped");
    container.delete().succeeds();
    assert!(!ran.exists(), "the program ran");
}

#[test]
fn a_failing_late_hook_is_a_warning() {
    let bundle = with_all_hooks(Bundle::new());
    let log = log_of(&bundle);
    let failing = script(&bundle, "failing", "exit 3");
    let bundle = bundle
        .edit(|config| {
            for kind in ["poststart", "poststop"] {
                let list = config["hooks"][kind].as_array_mut().expect("hooks");
                list.insert(0, failing.clone());
            }
        });
    let container = Container::new(bundle);
    if !container.runtime().is_floe() {
        tests::elsewhere!("runc ends the container when a poststart hook fails");
    }
    container.run().succeeds();
    let log = read(&log);
    assert!(log.contains("poststart\n") && log.ends_with("poststop\n"), "{log}");
}

#[test]
fn a_hook_that_takes_too_long_is_killed_and_named() {
    let bundle = Bundle::new();
    let mut slow = script(&bundle, "slow", "exec sleep 100");
    slow["timeout"] = json!(1);
    let bundle = bundle.set("/hooks", json!({"createRuntime": [slow]}));
    let container = Container::new(bundle);
    let start = std::time::Instant::now();
    let outcome = container.create().exits(1);
    assert!(start.elapsed() < std::time::Duration::from_secs(20) * tests::slowness());
    if container.runtime().is_floe() {
        outcome.says("hooks.createRuntime[0]").says("still running after 1 s");
    }
}

#[test]
fn a_hook_that_is_not_there_is_named() {
    let bundle = Bundle::new().set("/hooks", json!({"prestart": [{"path": "/no/such/hook"}]}));
    Container::new(bundle).create().exits(1).says("/no/such/hook").says("no such file");
}

/// A hook that leaves a child behind, or never reads its input, holds nobody up.
#[test]
fn a_hook_need_not_read_its_input() {
    let bundle = Bundle::new().set("/annotations", json!({"long": "x".repeat(200_000)}));
    let deaf = script(&bundle, "deaf", "exec <&-; exit 0");
    let bundle = bundle.set("/hooks", json!({"createRuntime": [deaf.clone()], "poststop": [deaf]}));
    Container::new(bundle).run().succeeds();
}
