//! Hostile documents, ids and state: one clear line, runc's exit code, nothing made, nothing left.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};
use tests::leftovers::Leftovers;
use tests::{Bundle, Container, Outcome};

/// One line, exit code 1, and no trace of the container; `wanted` is in the line.
#[track_caller]
fn refused(container: &Container, outcome: &Outcome, wanted: &str) {
    let error = outcome.stderr();
    assert_eq!(outcome.code(), 1, "{wanted}: {outcome:?}");
    assert_eq!(error.lines().count(), 1, "{wanted}: {error:?}");
    assert!(error.contains(wanted), "`{wanted}` is not in: {error}");
    assert!(error.len() < 5000, "{wanted}: {} bytes", error.len());
    let state = container.state_root().join(container.id());
    let left = Leftovers::of(container.id(), container.bundle().directory(), &state);
    assert!(left.is_empty(), "{wanted}: {left:#?}");
}

/// `create` of a bundle whose `config.json` is this text.
#[track_caller]
fn check_text(container: &Container, text: &[u8], wanted: &str) {
    fs::write(container.bundle().path().join("config.json"), text).expect("config.json");
    let start = Instant::now();
    let outcome = container.create();
    assert!(start.elapsed() < Duration::from_secs(5) * tests::slowness(), "{wanted}: slow");
    if container.runtime().is_floe() {
        refused(container, &outcome, wanted);
    } else {
        assert_ne!(outcome.code(), 0, "{wanted}");
    }
}

/// Each row is a good configuration with one value replaced, and what the error must name.
#[track_caller]
fn check_rows(rows: &[(&str, Value, &str)]) {
    let container = Container::new(Bundle::new().args(["true"]));
    for (pointer, value, wanted) in rows {
        let config = Edited(container.bundle().config().clone()).set(pointer, value.clone());
        check_text(&container, config.to_string().as_bytes(), wanted);
    }
}

/// Fails for each row whose check is taken away.
#[test]
fn values_of_the_wrong_kind_name_their_field() {
    let huge = u64::MAX;
    let long = "x".repeat(100_000);
    check_rows(&[
        ("/process/args", json!("sh"), "process.args"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!([7]), "process.args[0]"),
        ("/process/args", json!(["/payload\u{0}"]), "process.args"),
        ("/process/env", json!(["A\u{0}B=1"]), "process.env"),
        ("/process/env", json!(["=x"]), "process.env"),
        ("/process/cwd", json!("tmp"), "process.cwd"),
        ("/process/cwd", json!({}), "process.cwd"),
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/process/user/uid", json!(huge), "process.user.uid"),
        ("/process/user/uid", json!(1e30), "process.user.uid"),
        ("/process/user/umask", json!(0o7777), "process.user.umask"),
        ("/process/oomScoreAdj", json!(100_000), "process.oomScoreAdj"),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": -1, "hard": 5}]), "process.rlimits[0].soft"),
        ("/process/rlimits", json!([{"type": "RLIMIT_MOON", "soft": 1, "hard": 5}]), "process.rlimits[0].type"),
        ("/process/capabilities", json!(["CAP_KILL"]), "process.capabilities"),
        ("/root", json!(["rootfs"]), "root"),
        ("/root/path", json!(""), "root.path"),
        ("/root/path", json!("nothing"), "root.path"),
        ("/root/path", json!("config.json"), "root.path"),
        ("/root/path", json!(long), "root.path"),
        ("/hostname", json!(7), "hostname"),
        ("/hostname", json!(long), "hostname"),
        ("/hooks", json!({"prestart": [{"path": "x"}]}), "hooks.prestart[0].path"),
        ("/hooks", json!({"createRuntime": [{"path": "/no/such"}]}), "hooks.createRuntime[0]"),
        ("/ociVersion", json!("9.0"), "ociVersion"),
        ("/ociVersion", json!(1), "ociVersion"),
        ("/annotations", json!({"a": {}}), "annotations"),
    ]);
}

/// Fails for each row whose check is taken away.
#[test]
fn absurd_mounts_name_themselves() {
    let long = "x".repeat(100_000);
    check_rows(&[
        ("/mounts", json!({}), "mounts"),
        ("/mounts", json!([null]), "mounts[0]"),
        ("/mounts", json!([{"destination": "", "type": "tmpfs"}]), "mounts[0].destination"),
        ("/mounts", json!([{"destination": "/x"}]), "mounts[0]"),
        ("/mounts", json!([{"destination": "/x", "type": "bind"}]), "mounts[0]"),
        ("/mounts", json!([{"destination": "/x\u{0}y", "type": "tmpfs"}]), "mounts[0].destination"),
        ("/mounts", json!([{"destination": "/", "type": "tmpfs"}]), "`/`"),
        ("/mounts", json!([{"destination": "/../..", "type": "tmpfs"}]), "/../.."),
        ("/mounts", json!([{"destination": "/x", "type": "no-such"}]), "no-such"),
        ("/mounts", json!([{"destination": "/x", "type": "ext4", "source": "/dev/null"}]), "ext4"),
        ("/mounts", json!([{"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}]), "/no/such"),
        ("/mounts", json!([{"destination": "/x", "type": "tmpfs", "options": ["size=-1"]}]), "size=-1"),
        ("/mounts", json!([{"destination": "/x", "type": "tmpfs", "options": [long]}]), "/x"),
        ("/mounts", json!([{"destination": format!("/{long}"), "type": "tmpfs"}]), "ENAMETOOLONG"),
        ("/mounts", json!([{"destination": "/x/y".repeat(900), "type": "tmpfs", "options": ["no-such"]}]), "no-such"),
    ]);
}

/// Fails for each row whose check is taken away.
#[test]
fn values_of_linux_of_the_wrong_kind_name_their_field() {
    check_rows(&[
        ("/linux", json!([]), "linux"),
        ("/linux/namespaces", json!([{"type": "moon"}]), "linux.namespaces[0].type"),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]), "linux.namespaces"),
        ("/linux/namespaces", json!([{"type": "uts"}, {"type": "mount"}, {"type": "network", "path": "/dev/null"}]), "`net`"),
        ("/linux/namespaces", json!([{"type": "uts"}, {"type": "mount"}, {"type": "network", "path": "/no/such"}]), "/no/such"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": -1}]), "linux.uidMappings[0].size"),
        ("/linux/cgroupsPath", json!(7), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!(format!("/{}", "x/".repeat(3000))), "ENAMETOOLONG"),
        ("/linux/sysctl", json!({"kernel.core_pattern": "|/x"}), "kernel.core_pattern"),
        ("/linux/sysctl", json!({"net/../kernel/core_pattern": "|/x"}), "core_pattern"),
        ("/linux/sysctl", json!({"net.ipv4.ip_forward": 1}), "linux.sysctl"),
        ("/linux/maskedPaths", json!(["proc"]), "linux.maskedPaths[0]"),
        ("/linux/readonlyPaths", json!("/proc"), "linux.readonlyPaths"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "q", "major": 1, "minor": 1}]), "linux.devices[0].type"),
        ("/linux/devices", json!([{"path": "x", "type": "c", "major": 1, "minor": 1}]), "linux.devices[0].path"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 1}]), "linux.devices[0]"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": 1_i64 << 40, "minor": 1}]), "linux.devices[0]"),
        ("/linux/resources/memory", json!({"limit": "lots"}), "linux.resources.memory.limit"),
        ("/linux/resources/memory", json!({"limit": 1e300}), "linux.resources.memory.limit"),
        ("/linux/resources/cpu", json!({"shares": -3}), "linux.resources.cpu.shares"),
        ("/linux/resources/cpu", json!({"cpus": "0-99999999999"}), "linux.resources"),
        ("/linux/resources/devices", json!([{"allow": 1}]), "linux.resources.devices[0].allow"),
        ("/linux/resources/unified", json!({"../x": "1"}), "linux.resources.unified"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_X"}), "linux.seccomp.defaultAction"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": []}]}), "linux.seccomp.syscalls[0]"),
    ]);
}

struct Edited(Value);

impl Edited {
    fn set(mut self, pointer: &str, value: Value) -> Value {
        let mut at = &mut self.0;
        for key in pointer.split('/').skip(1) {
            at = &mut at[key];
        }
        *at = value;
        self.0
    }
}

/// Fails without `check_size`, `check_nul` or the depth limit of spec/load.rs.
#[test]
fn documents_that_are_none_are_refused() {
    let container = Container::new(Bundle::new());
    let good = container.bundle().config().to_string();
    let deep = |open: &str, close: &str| {
        let nest = format!("{}{}", open.repeat(200_000), close.repeat(200_000));
        good.replacen('{', &format!("{{\"hooks\":{nest},"), 1).into_bytes()
    };
    let padded = [good.as_bytes(), &vec![b' '; 10 << 20]].concat();
    let rows: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "EOF"),
        (b"{".to_vec(), "EOF"),
        (b"[]".to_vec(), "invalid type"),
        (b"null".to_vec(), "invalid type"),
        (b"{} {}".to_vec(), "trailing"),
        (b"\xff\xfe\x00".to_vec(), "expected value"),
        (vec![0; 4096], "expected value"),
        (padded, "larger than"),
        (vec![b'['; 3 << 20], "invalid type"),
        (deep("[", "]"), "hooks"),
        (deep(r#"{"a":"#, "}"), "hooks"),
        (good.replace("floe-test", "a\\u0000b").into_bytes(), "NUL"),
        (good.replacen("1.0.2", "\\ud800", 1).into_bytes(), "ociVersion"),
    ];
    for (text, wanted) in rows {
        check_text(&container, &text, wanted);
    }
}

fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("a fifo");
}

/// Fails where the configuration is opened without `O_NONBLOCK`, or read without a limit.
#[test]
fn files_that_are_none_are_refused() {
    let container = Container::new(Bundle::new());
    let config = container.bundle().path().join("config.json");
    type Make = fn(&Path);
    let makers: [(Make, &str); 4] = [
        (make_fifo, "config.json"),
        (|path| fs::create_dir(path).expect("a directory"), "config.json"),
        (|path| symlink("/dev/zero", path).expect("a link"), "larger than"),
        (|path| symlink("/no/such", path).expect("a link"), "config.json"),
    ];
    for (make, wanted) in makers {
        let _gone = fs::remove_file(&config).or_else(|_| fs::remove_dir(&config));
        make(&config);
        if container.runtime().is_floe() {
            refused(&container, &container.create(), wanted);
        }
    }
}

/// Hundreds of mounts are many, but no attack; nor do they leave anything when the last one fails.
#[test]
fn hundreds_of_mounts_end_in_one_line() {
    let mut bundle = Bundle::new();
    for number in 0..500 {
        bundle = bundle.mount("tmpfs", "tmpfs", &format!("/tmp/{number}"), &["size=4k"]);
    }
    let container = Container::new(bundle.mount("no-such", "x", "/tmp/last", &[]));
    let outcome = container.create();
    if container.runtime().is_floe() {
        refused(&container, &outcome, "/tmp/last");
    }
}

/// Fails without `ContainerId::new`.
#[test]
fn ids_that_are_none_are_refused() {
    let container = Container::new(Bundle::new());
    let bundle = container.bundle().path().display().to_string();
    let beside = container.bundle().directory().join("beside");
    fs::create_dir_all(&beside).expect("a directory");
    fs::write(beside.join("state.json"), "{}").expect("a file");
    let long = "x".repeat(1025);
    for id in ["", ".", "..", "../beside", "a/b", "/tmp", "a b", "a\n", "ä", "\u{1b}[2J", "a;b", "$(x)", &long] {
        for args in [
            vec!["create", "--bundle", &bundle, "--", id],
            vec!["run", "--bundle", &bundle, "--", id],
            vec!["delete", "--force", "--", id],
            vec!["kill", "--", id, "KILL"],
            vec!["state", "--", id],
            vec!["start", "--", id],
            vec!["exec", "--", id, "/payload"],
        ] {
            let outcome = container.call(args.iter().copied());
            let error = outcome.stderr();
            assert_ne!(outcome.code(), 0, "{args:?}");
            assert!(!error.chars().any(|letter| letter.is_control() && letter != '\n'), "{error:?}");
            assert_eq!(error.lines().count(), 1, "{args:?}: {error:?}");
        }
    }
    assert!(beside.join("state.json").exists());
}

/// Plants a state file and returns the container whose it would be.
fn planted(text: &[u8]) -> Container {
    let container = Container::new(Bundle::new());
    let directory = container.state_root().join(container.id());
    fs::create_dir_all(&directory).expect("a state directory");
    fs::set_permissions(container.state_root(), fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::write(directory.join("state.json"), text).expect("state.json");
    container
}

fn unplant(container: &Container) {
    fs::remove_dir_all(container.state_root().join(container.id())).expect("the planted state");
}

/// A state file that cannot be read is an error of one line for every command, and none for `list`.
#[test]
fn state_files_that_are_none_are_refused() {
    let deep = "[".repeat(1 << 20);
    for text in ["", "{", "[]", "null", "\u{0}", r#"{"id":7}"#, r#"{"init_process_pid":"x"}"#, r#"{"init_process_pid":99999999999}"#, r#"{"cgroup_paths":[]}"#, &deep] {
        let container = planted(text.as_bytes());
        let id = container.id().to_owned();
        for args in [vec!["state", &id], vec!["start", &id], vec!["kill", &id, "KILL"], vec!["exec", &id, "/payload"], vec!["delete", &id], vec!["pause", &id], vec!["ps", &id]] {
            let outcome = container.call(args.iter().copied());
            assert_ne!(outcome.code(), 0, "{args:?} of {text:.20}");
            let error = outcome.stderr();
            assert_eq!(error.lines().count(), 1, "{args:?}: {error:?}");
            assert!(error.contains(".json") || error.contains("not exist"), "{args:?}: {error}");
        }
        container.call(["list"]).succeeds();
        unplant(&container);
    }
}

/// A pid in a planted state file is not believed: the process that has it must also have started
/// when the file says. Fails where `Process::open` of sys does not compare the start.
#[test]
fn a_process_that_is_not_the_containers_is_not_killed() {
    let mut victim = std::process::Command::new(tests::bundle::payload())
        .args(["sleep", "1000"])
        .spawn()
        .expect("the payload program");
    let text = json!({"init_process_pid": victim.id(), "init_process_start": 1, "cgroup_paths": {}});
    let container = planted(text.to_string().as_bytes());
    container.kill("KILL").fails();
    container.call(["delete", "--force", container.id()]).succeeds();
    assert!(victim.try_wait().expect("wait").is_none(), "the process was killed");
    victim.kill().expect("kill");
    victim.wait().expect("wait");
}

/// Groups in a planted state file that are none: a directory of the host, or a whole hierarchy with
/// all that runs in it. Fails without the check of the paths in `Record::group` of record.rs.
#[test]
fn groups_that_are_not_the_containers_are_not_emptied() {
    let keep = Bundle::new();
    let victim_directory = keep.directory().join("precious");
    fs::create_dir(&victim_directory).expect("a directory");
    let mut victim = std::process::Command::new(tests::bundle::payload())
        .args(["sleep", "1000"])
        .spawn()
        .expect("the payload program");
    fs::write(victim_directory.join("cgroup.procs"), victim.id().to_string()).expect("a file");
    fs::create_dir(victim_directory.join("below")).expect("a directory");
    let relative = Path::new("../../..").join(victim_directory.strip_prefix("/").expect("absolute"));
    for path in [victim_directory.clone(), relative] {
        let text = json!({"init_process_pid": 0, "cgroup_paths": {"memory": path, "": path}});
        let container = planted(text.to_string().as_bytes());
        let outcome = container.call(["delete", "--force", container.id()]);
        assert_ne!(outcome.code(), 0, "{outcome:?}");
        assert!(victim.try_wait().expect("wait").is_none(), "the process was killed");
        assert!(victim_directory.join("below").is_dir(), "a directory was removed");
        unplant(&container);
    }
    victim.kill().expect("kill");
    victim.wait().expect("wait");
}

/// The state of another user's making is not believed: root would act on its pids and groups.
/// Fails without the check of the owner in `existing` of record.rs.
#[test]
fn state_that_others_can_write_is_refused() {
    let start = json!({"init_process_pid": 0, "cgroup_paths": {}}).to_string();
    type Change = fn(&Path);
    let changes: [(Change, &str); 3] = [
        (|path| std::os::unix::fs::chown(path, Some(1000), Some(1000)).expect("chown"), "owner"),
        (|path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod"), "write"),
        (
            |path| {
                let moved = path.with_extension("moved");
                fs::rename(path, &moved).expect("rename");
                symlink(moved, path).expect("a link");
            },
            "directory",
        ),
    ];
    for (change, wanted) in changes {
        let container = planted(start.as_bytes());
        let directory = container.state_root().join(container.id());
        change(&directory);
        for args in [["state", container.id()], ["delete", container.id()]] {
            let outcome = container.call(args);
            if container.runtime().is_floe() {
                outcome.exits(1).says(wanted);
            }
        }
        let _link = fs::remove_file(&directory);
        let _directory = fs::remove_dir_all(&directory);
    }
}

/// A group that is somebody else's: its processes would die with the container.
/// Fails without `refuse_inhabited` in create.rs.
#[test]
fn a_group_with_processes_is_not_taken_over() {
    let bundle = Bundle::new();
    let group = bundle.config()["linux"]["cgroupsPath"].as_str().expect("a path").to_owned();
    let hierarchy = tests::host::cgroup_mounts().into_iter().next().expect("a hierarchy");
    let directory = hierarchy.join(group.trim_start_matches('/'));
    fs::create_dir_all(&directory).expect("a group");
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let parent = directory.parent().expect("a parent");
        for place in [parent, &directory] {
            if let Ok(value) = fs::read_to_string(hierarchy.join(file)) {
                let _set = fs::write(place.join(file), value);
            }
        }
    }
    let mut victim = std::process::Command::new(tests::bundle::payload())
        .args(["sleep", "1000"])
        .spawn()
        .expect("the payload program");
    fs::write(directory.join("cgroup.procs"), victim.id().to_string()).expect("attach");
    let container = Container::new(bundle);
    let outcome = container.create();
    container.call(["delete", "--force", container.id()]).succeeds();
    assert!(victim.try_wait().expect("wait").is_none(), "the process was killed");
    victim.kill().expect("kill");
    victim.wait().expect("wait");
    fs::remove_dir(&directory).expect("remove the group");
    outcome.exits(1).says("cgroup");
}
