//! runc's command line: what engines call, read and match.

use serde_json::{Value, json};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use tests::{Bundle, Container, Outcome, wait_until};

fn sleeping() -> Container {
    Container::new(Bundle::new().args(["sleep", "1000"]))
}

fn running() -> Container {
    let container = sleeping();
    container.create().succeeds();
    container.start().succeeds();
    container
}

/// A verb with `--bundle` and the id, and flags before them.
fn with_flags(container: &Container, verb: &str, flags: &[&str]) -> Outcome {
    let mut command = container.command([verb]);
    command.args(flags).arg("--bundle").arg(container.bundle().path()).arg(container.id());
    container.outcome(&mut command)
}

fn one_error_line(outcome: &Outcome) {
    assert_eq!(outcome.stderr().lines().count(), 1, "{}", outcome.stderr());
}

#[test]
fn the_state_is_what_the_specification_says() {
    tests::differs!("runc looks the owner up as a login session has it");
    let bundle = Bundle::new()
        .args(["sleep", "1000"])
        .set("/annotations", json!({"org.example/key": "value"}));
    let container = Container::new(bundle);
    container.create().succeeds();
    let state = container.state();
    assert_eq!(state["id"], container.id());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], json!(container.bundle().path()));
    assert_eq!(state["rootfs"], json!(container.bundle().rootfs()));
    assert_eq!(state["annotations"], json!({"org.example/key": "value"}));
    assert_eq!(state["owner"], "root");
    let created = state["created"].as_str().expect("a time");
    assert!(created.ends_with('Z') && created.contains('T') && created.contains('.'), "{created}");
    let pid = container.pid();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    container.start().succeeds();
    assert_eq!((container.status().as_str(), container.pid()), ("running", pid));
    container.call(["pause", container.id()]).succeeds();
    assert_eq!(container.status(), "paused");
    container.call(["resume", container.id()]).succeeds();
    assert_eq!(container.status(), "running");
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    assert_eq!(container.state()["pid"], 0);
    container.delete().succeeds();
    let outcome = container.call(["state", container.id()]).exits(1).says("does not exist");
    one_error_line(&outcome);
}

#[test]
fn an_id_is_used_once_and_must_be_a_name() {
    let container = running();
    container.create().exits(1).says("already exists");
    assert_eq!(container.status(), "running", "the first one was harmed");
    for id in ["", "..", "a/b", "a b"] {
        let mut command = container.command(["create", "--bundle"]);
        command.arg(container.bundle().path()).arg(id);
        let outcome = container.outcome(&mut command).fails();
        assert!(!outcome.stderr().is_empty(), "{id}");
    }
}

#[test]
fn start_is_for_a_created_container_only() {
    let container = running();
    container.start().exits(1).says("running");
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    container.start().exits(1).says("stopped");
    container.call(["start", "floe-test-no-such"]).exits(1).says("does not exist");
}

#[test]
fn a_created_container_has_not_run_its_program() {
    let container = Container::new(Bundle::new().args(["touch", "/ran"]));
    let ran = container.bundle().rootfs().join("ran");
    container.create().succeeds();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!ran.exists());
    // The configuration counts as it was at `create`.
    std::fs::write(container.bundle().path().join("config.json"), "{}").expect("config.json");
    container.start().succeeds();
    wait_until("the program ran", || ran.exists());
}

#[test]
fn signals_have_names_and_numbers() {
    for (signal, number) in [
        ("TERM", 15),
        ("SIGUSR1", 10),
        ("usr2", 12),
        ("1", 1),
        ("RTMIN+3", 37),
        ("SIGRTMAX", 64),
        ("40", 40),
    ] {
        let container = Container::new(Bundle::new().args(["signal-wait"]));
        container.create().succeeds();
        container.start().succeeds();
        wait_until("it waits", || container.log().contains("ready"));
        let outcome = container.kill(signal);
        if outcome.code() != 0 && !container.runtime().is_floe() {
            continue; // runc has no names for real-time signals
        }
        outcome.succeeds();
        wait_until("the signal came", || container.log().contains(&format!("signal {number}\n")));
    }
    let container = running();
    container.kill("MOON").exits(1).says("MOON");
    container.kill("99").exits(1);
    container.call(["kill", "floe-test-no-such", "9"]).exits(1).says("does not exist");
}

#[test]
fn killing_a_stopped_container_says_not_running() {
    let container = running();
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    container.kill("KILL").exits(1).says("container not running");
    // The shim's way to make sure: nobody is left, and that is fine.
    container.call(["kill", "--all", container.id(), "9"]).succeeds();
}

#[test]
fn kill_all_reaches_every_process() {
    let bundle = Bundle::new()
        .without_namespace("pid")
        .args(["fork", "3", "--", "sleep", "1000"]);
    let container = Container::new(bundle);
    container.create().succeeds();
    container.start().succeeds();
    wait_until("it forked", || container.log().contains("forked 3"));
    let pids = container.call(["ps", "-f", "json", container.id()]).succeeds().json();
    assert_eq!(pids.as_array().map(Vec::len), Some(4));
    container.call(["kill", "-a", container.id(), "KILL"]).succeeds();
    wait_until("all are gone", || {
        pids.as_array().expect("pids").iter().all(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
    });
}

#[test]
fn delete_is_for_stopped_containers_unless_forced() {
    let container = running();
    container.delete().exits(1).says("is not stopped");
    assert_eq!(container.status(), "running");
    container.call(["delete", "--force", container.id()]).succeeds();
    container.call(["state", container.id()]).exits(1);
    container.delete().exits(1).says("does not exist");
    container.call(["delete", "--force", container.id()]).succeeds();
    // A created one may go: its program has never run.
    let created = sleeping();
    created.create().succeeds();
    created.delete().succeeds();
}

#[test]
fn a_paused_container_dies_of_a_forced_delete() {
    let container = running();
    container.call(["pause", container.id()]).succeeds();
    container.call(["pause", container.id()]).exits(1);
    container.call(["delete", "-f", container.id()]).succeeds();
    container.call(["state", container.id()]).exits(1);
}

#[test]
fn a_killed_paused_container_ends() {
    let container = running();
    container.call(["pause", container.id()]).succeeds();
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    let running = running();
    running.call(["resume", running.id()]).exits(1);
}

#[test]
fn list_has_three_formats() {
    tests::differs!("runc ends `null` with a newline, and newer ones want the root to exist");
    let container = sleeping();
    container.call(["list", "--format", "json"]).succeeds().prints("null");
    container.create().succeeds();
    let id = container.id();
    container.call(["list", "--quiet"]).succeeds().prints(&format!("{id}\n"));
    let listed = container.call(["list", "-f", "json"]).succeeds().json();
    let mut state = container.state();
    assert_eq!(listed[0]["id"], state["id"]);
    for key in ["pid", "status", "bundle", "rootfs", "created", "owner"] {
        assert_eq!(listed[0][key], state[key].take(), "{key}");
    }
    let table = container.call(["list"]).succeeds().stdout();
    let lines: Vec<&str> = table.lines().collect();
    let heading: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(heading, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!((row[0], row[2], row[5]), (id, "created", "root"));
    container.call(["list", "-f", "moon"]).fails();
}

#[test]
fn ps_shows_processes_as_table_or_numbers() {
    let container = running();
    container.exec(["/payload", "true"]).succeeds();
    let pids = container.call(["ps", "--format", "json", container.id()]).succeeds().json();
    assert_eq!(pids, json!([container.pid()]));
    let table = container.call(["ps", container.id()]).succeeds().stdout();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("PID") && lines.len() == 2, "{table}");
    assert!(lines[1].contains("sleep 1000"), "{table}");
    let outcome = container.call(["ps", "--format", "table", container.id(), "-o", "pid,comm"]);
    let table = outcome.succeeds().stdout();
    assert!(table.contains("payload") && table.contains(&container.pid().to_string()), "{table}");
    container.call(["ps", "floe-test-no-such"]).exits(1).says("does not exist");
}

#[test]
fn the_pid_file_has_the_number_alone() {
    let container = sleeping();
    let file = container.bundle().directory().join("pid");
    let path = file.display().to_string();
    with_flags(&container, "create", &["--pid-file", &path]).succeeds();
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), container.pid().to_string());
    container.start().succeeds();
    let own = container.bundle().directory().join("exec.pid");
    let mut command = container.command(["exec", "--detach", "--pid-file"]);
    command.arg(&own).arg(container.id()).args(["/payload", "sleep", "1000"]);
    container.outcome(&mut command).succeeds();
    let pid = std::fs::read_to_string(&own).expect("the file");
    let pids = container.call(["ps", "-f", "json", container.id()]).succeeds().json();
    let listed = pids.as_array().expect("pids").iter().any(|other| *other == pid.parse::<i32>().unwrap_or(-1));
    assert!(listed, "{pid} not in {pids}");
}

/// The descriptor that comes through a socket.
fn received(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().expect("the runtime");
    let (_, fds) = sys::message::receive(&stream, &mut [0; 256]).expect("a message");
    fds.into_iter().next().expect("one descriptor")
}

fn pid_of(pidfd: &OwnedFd) -> i32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).expect("fdinfo");
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd");
    line.trim().parse().expect("a number")
}

#[test]
fn the_pidfd_socket_is_sent_a_pidfd() {
    let container = sleeping();
    let path = container.bundle().directory().join("pidfd.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let path = path.display().to_string();
    let outcome = with_flags(&container, "create", &["--pidfd-socket", &path]);
    if !container.runtime().is_floe() && outcome.stderr().contains("not defined") {
        tests::elsewhere!("this runc has no --pidfd-socket");
    }
    outcome.succeeds();
    assert_eq!(pid_of(&received(&listener)), container.pid());
    container.start().succeeds();
    let mut command = container.command(["exec", "--detach", "--pidfd-socket", &path, container.id()]);
    command.args(["/payload", "sleep", "1000"]);
    container.outcome(&mut command).succeeds();
    assert_ne!(pid_of(&received(&listener)), container.pid());
}

/// Descriptors reach the program only where asked, and only those that the caller has open.
#[test]
fn descriptors_are_handed_on_by_number() {
    tests::differs!("runc counts descriptors of its own among those to hand on");
    let container = Container::new(Bundle::new().args(["fds"]));
    let file = container.bundle().directory().join("handed-on");
    std::fs::write(&file, "").expect("a file");
    let run = |flags: &str| {
        let mut command = std::process::Command::new("sh");
        let runtime = container.command(["run"]);
        let script = format!(
            "exec 3<{0} 4<{0} 5<{0}; exec \"$0\" \"$@\" {flags} --bundle {1} {2}",
            file.display(),
            container.bundle().path().display(),
            container.id()
        );
        command.args(["-c", &script]).arg(runtime.get_program()).args(runtime.get_args());
        command.env(tests::leftovers::MARK, container.id());
        container.outcome(&mut command)
    };
    let numbers = |outcome: Outcome| -> Vec<String> {
        let printed = outcome.succeeds().stdout();
        let of_file = printed.lines().filter(|line| line.ends_with("handed-on"));
        of_file.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    };
    assert_eq!(numbers(run("")), [""; 0]);
    assert_eq!(numbers(run("--preserve-fds 2")), ["3", "4"]);
    run("--preserve-fds 30").exits(1).says("preserve-fds");
}

/// sd_listen_fds(3): the descriptors stay where they are, for process 1, if they were meant for the
/// runtime.
#[test]
fn sockets_of_an_activation_pass_through() {
    let container = Container::new(Bundle::new().args(["env", "--", "fds"]));
    let file = container.bundle().directory().join("socket");
    std::fs::write(&file, "").expect("a file");
    let activated = |pid: &str| {
        let runtime = container.command(["run", "--bundle"]);
        let mut command = std::process::Command::new("sh");
        let script = format!(
            "export LISTEN_FDS=1 LISTEN_PID={pid}; exec 3<{0} 4<{0}; exec \"$0\" \"$@\"",
            file.display()
        );
        command
            .args(["-c", &script])
            .arg(runtime.get_program())
            .args(runtime.get_args())
            .arg(container.bundle().path())
            .arg(container.id())
            .env(tests::leftovers::MARK, container.id());
        container.outcome(&mut command).succeeds()
    };
    let has = |outcome: &Outcome, number: &str| {
        outcome.stdout().contains(&format!("{number} {}", file.display()))
    };
    let outcome = activated("$$").prints_line("LISTEN_FDS=1").prints_line("LISTEN_PID=1");
    assert!(has(&outcome, "3") && !has(&outcome, "4"), "{}", outcome.stdout());
    let outcome = activated("4711");
    assert!(!has(&outcome, "3") && !outcome.stdout().contains("LISTEN_"), "{}", outcome.stdout());
}

/// `start` was killed between being heard and removing the socket.
#[test]
fn a_socket_that_a_killed_start_left_is_not_a_created_container() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
    tests::differs!("floe's own file");
    let container = running();
    let left = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    let path = container.state_root().join(container.id()).join("start.sock");
    bind(&left, &SocketAddrUnix::new(path).expect("an address")).expect("bind");
    drop(left);
    container.start().exits(1).says("already running");
    assert_eq!(container.status(), "running");
}

#[test]
fn run_can_be_detached_and_kept() {
    let container = sleeping();
    with_flags(&container, "run", &["--detach"]).succeeds();
    assert_eq!(container.status(), "running");
    container.call(["delete", "--force", container.id()]).succeeds();
    let container = Container::new(Bundle::new().args(["exit", "4"]));
    let outcome = with_flags(&container, "run", &["--keep"]);
    if !container.runtime().is_floe() && outcome.stderr().contains("not defined") {
        tests::elsewhere!("this runc has no --keep");
    }
    outcome.exits(4);
    assert_eq!(container.status(), "stopped");
    container.delete().succeeds();
    // Without it nothing stays.
    container.run().exits(4);
    container.call(["state", container.id()]).exits(1);
}

/// Go's flag parsers take one dash, and go-runc writes one.
#[test]
fn long_flags_may_have_one_dash() {
    let container = Container::new(Bundle::new().args(["exit", "4"]));
    with_flags(&container, "run", &["-no-subreaper"]).exits(4);
    with_flags(&container, "run", &["--no-subreaper", "--no-new-keyring"]).exits(4);
}

#[test]
fn without_pivot_root_the_root_is_the_same() {
    let container = Container::new(Bundle::new().args(["list", "/"]));
    let with = container.run().succeeds().stdout();
    with_flags(&container, "run", &["--no-pivot"]).succeeds().prints(&with);
}

/// The caller's session keyring is the container's only if asked.
#[test]
fn no_new_keyring_stays_in_the_callers() {
    if sys::keyring::search(c"floe") == Err(sys::Errno::NOSYS) {
        tests::elsewhere!("the kernel has no keyrings");
    }
    sys::keyring::join_session(c"floe-test").expect("a session keyring");
    sys::keyring::add(c"floe-test-key", b"x").expect("a key");
    let container = Container::new(Bundle::new().args(["try", "key-search", "floe-test-key"]));
    container.run().succeeds().prints("ENOKEY\n");
    let outcome = with_flags(&container, "run", &["--no-new-keyring"]).succeeds();
    assert!(outcome.stdout().ends_with("ok\n"), "{}", outcome.stdout());
}

#[test]
fn exit_codes_of_the_runtime_itself() {
    let container = sleeping();
    container.call(["frobnicate"]).exits(3);
    container.call(["state"]).fails();
    container.call(["create", "--no-such-flag", "x"]).fails();
    container.call(["--version"]).succeeds();
    container.call(["create", "--help"]).succeeds();
    container.exec(["/payload", "true"]).exits(255).says("does not exist");
}

/// Installed under runc's name it is taken for it.
#[test]
fn the_name_runc_is_answered() {
    let container = running();
    if !container.runtime().is_floe() {
        tests::elsewhere!("this is about floe-oci");
    }
    let link = container.bundle().directory().join("runc");
    std::fs::copy(container.runtime().program(), &link).expect("a copy");
    let call = |args: &[&str]| {
        let mut command = std::process::Command::new(&link);
        command.arg("--root").arg(container.state_root()).args(args);
        container.outcome(&mut command)
    };
    let version = call(&["--version"]).succeeds().stdout();
    assert!(version.starts_with("runc version "), "{version}");
    assert!(version.lines().any(|line| line.starts_with("spec: 1.")), "{version}");
    call(&["exec", container.id(), "/payload", "exit", "7"]).exits(7);
    call(&["state", container.id()]).succeeds();
}

/// Exactly one line, which Podman reads as the whole file and containerd as the last error.
#[test]
fn the_log_has_one_line_for_a_failure() {
    let container = Container::new(Bundle::new().set("/process/args", json!(["nosuchcmd"])));
    let log = container.bundle().directory().join("log.json");
    let mut command = container.command(["--log-format=json", "--log"]);
    command.arg(&log).args(["create", "--bundle"]).arg(container.bundle().path()).arg(container.id());
    container.outcome(&mut command).exits(1).says("executable file not found in $PATH");
    let text = std::fs::read_to_string(&log).expect("the log");
    if !container.runtime().is_floe() && text.lines().count() > 1 {
        tests::elsewhere!("this runc writes more than one line");
    }
    let line: Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().is_some_and(|text| text.contains("executable file not found in $PATH")), "{text}");
    let time = line["time"].as_str().expect("a time");
    // 2006-01-02T15:04:05Z or with an offset
    let shape: String = time.chars().take(19).map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00", "{time}");
    assert!(time.ends_with('Z') || time[19..].contains(['+', '-']), "{time}");
}

#[test]
fn the_log_may_be_text() {
    let container = sleeping();
    let log = container.bundle().directory().join("log");
    let mut command = container.command(["--log"]);
    command.arg(&log).args(["state", "floe-test-no-such"]);
    container.outcome(&mut command).exits(1);
    let text = std::fs::read_to_string(&log).expect("the log");
    assert!(text.starts_with("time=\"") && text.contains("level=error"), "{text}");
    assert!(text.contains("does not exist") && text.lines().count() == 1, "{text}");
}

#[test]
fn the_bundle_is_the_working_directory_by_default() {
    let container = Container::new(Bundle::new().args(["echo", "here"]));
    let mut command = container.command(["run", container.id()]);
    command.current_dir(container.bundle().path());
    container.outcome(&mut command).succeeds().prints("here\n");
    let mut command = container.command(["run", "--bundle", "bundle", container.id()]);
    command.current_dir(container.bundle().directory());
    container.outcome(&mut command).succeeds().prints("here\n");
    // Of a flag that comes twice the last one counts: Podman gives some twice.
    with_flags(&container, "create", &["--bundle", "/no/such/bundle"]).succeeds();
    container.delete().succeeds();
}

/// What `spec` writes is a bundle that runs, but for its program.
#[test]
fn spec_writes_a_configuration_that_runs() {
    let container = Container::new(Bundle::new());
    let config = container.bundle().path().join("config.json");
    std::fs::remove_file(&config).expect("config.json");
    let spec = || {
        let mut command = container.command(["spec", "--bundle"]);
        command.arg(container.bundle().path());
        container.outcome(&mut command)
    };
    spec().succeeds();
    spec().fails().says("exists");
    let text = std::fs::read(&config).expect("config.json");
    let mut document: Value = serde_json::from_slice(&text).expect("JSON");
    document["process"]["args"] = json!(["/payload", "hostname"]);
    document["process"]["terminal"] = json!(false);
    std::fs::write(&config, document.to_string()).expect("config.json");
    let name = if container.runtime().is_floe() { document["hostname"].as_str().expect("a name") } else { "runc" };
    container.run().succeeds().prints(&format!("{name}\n"));
}

/// Values in one of the group's files, whatever the layout is.
fn group_value(container: &Container, names: [&str; 2]) -> Option<String> {
    container.cgroups().iter().find_map(|group| {
        names.iter().find_map(|name| std::fs::read_to_string(group.join(name)).ok())
    })
}

#[test]
fn update_changes_limits() {
    if tests::host::controller("memory").is_none() || tests::host::controller("pids").is_none() {
        tests::elsewhere!("needs memory and pids controllers");
    }
    let container = running();
    let id = container.id().to_owned();
    container.call(["update", "--memory", "67108864", "--pids-limit", "77", &id]).succeeds();
    let memory = || group_value(&container, ["memory.max", "memory.limit_in_bytes"]);
    let pids = || group_value(&container, ["pids.max", "pids.max"]);
    assert_eq!(memory().as_deref(), Some("67108864\n"));
    assert_eq!(pids().as_deref(), Some("77\n"));
    // From a document on standard input; what it does not mention stays.
    let document = container.bundle().directory().join("resources.json");
    std::fs::write(&document, r#"{"memory": {"limit": 134217728}}"#).expect("a file");
    let input = std::fs::File::open(&document).expect("the file");
    let mut command = container.command(["update", "--resources=-", &id]);
    container.outcome(command.stdin(input)).succeeds();
    assert_eq!(memory().as_deref(), Some("134217728\n"));
    assert_eq!(pids().as_deref(), Some("77\n"));
    let path = document.display().to_string();
    std::fs::write(&document, r#"{"pids": {"limit": 88}}"#).expect("a file");
    container.call(["update", "--resources", &path, &id]).succeeds();
    assert_eq!(pids().as_deref(), Some("88\n"));
    std::fs::write(&document, r#"{"memory": {"limit": "much"}}"#).expect("a file");
    container.call(["update", "--resources", &path, &id]).exits(1);
    container.call(["update", "--memory", "1048576000", "floe-test-no-such"]).exits(1).says("does not exist");
}

#[test]
fn update_has_a_flag_for_each_limit() {
    if tests::host::controller("cpu").is_none() || tests::host::controller("cpuset").is_none() {
        tests::elsewhere!("needs cpu and cpuset controllers");
    }
    let container = running();
    let update = |flags: &[&str]| {
        let args: Vec<&str> = ["update"].into_iter().chain(flags.iter().copied()).chain([container.id()]).collect();
        container.call(args)
    };
    update(&["--cpu-period", "50000", "--cpu-quota", "20000"]).succeeds();
    let quota = group_value(&container, ["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota.as_deref().is_some_and(|text| text.starts_with("20000")), "{quota:?}");
    update(&["--cpuset-cpus", "0"]).succeeds();
    assert_eq!(group_value(&container, ["cpuset.cpus", "cpuset.cpus"]).as_deref(), Some("0\n"));
    update(&["--cpu-share", "512"]).succeeds();
    let weight = group_value(&container, ["cpu.weight", "cpu.shares"]);
    assert!(weight.as_deref().is_some_and(|text| text != "100\n" && text != "1024\n"), "{weight:?}");
}

#[test]
fn exec_has_a_flag_for_each_property() {
    tests::differs!("runc takes only one spelling of a flag at a time");
    let container = running();
    let id = container.id().to_owned();
    let exec = |flags: &[&str], program: &[&str]| {
        let args: Vec<&str> = ["exec"].iter().chain(flags).chain([&id.as_str(), &"/payload"]).chain(program).copied().collect();
        container.call(args)
    };
    exec(&["--cwd", "/tmp"], &["pwd"]).succeeds().prints("/tmp\n");
    exec(&["-e", "A=1", "--env", "B=2"], &["env"]).succeeds().prints_line("A=1").prints_line("B=2");
    exec(&["-u", "7:8", "-g", "9", "--additional-gids", "10"], &["id"]).succeeds();
    let printed = exec(&["-u", "7:8", "-g", "9", "-g", "10"], &["id"]).succeeds().stdout();
    assert!(printed.starts_with("uid=7 gid=8 groups=") && printed.contains("9,10"), "{printed}");
    let printed = exec(&["--cap", "CAP_CHOWN"], &["status", "CapEff"]).succeeds().stdout();
    let bits = printed.trim().rsplit('=').next().and_then(|text| u64::from_str_radix(text, 16).ok());
    assert_eq!(bits.map(|bits| bits & 1), Some(1), "{printed}");
    exec(&["--no-new-privs"], &["status", "NoNewPrivs"]).succeeds().prints("NoNewPrivs=1\n");
    exec(&[], &["exit", "42"]).exits(42);
    exec(&[], &["echo", "--flag", "-x"]).succeeds().prints("--flag -x\n");
    // 128 + N; not process 1, so the signal kills.
    exec(&[], &["kill-self", "15"]).exits(143);
}

/// What the program has is what the container's process has, where no flag says otherwise.
#[test]
fn exec_inherits_the_containers_process() {
    let bundle = Bundle::new()
        .args(["sleep", "1000"])
        .env("OWN=yes")
        .set("/process/cwd", "/tmp")
        .set("/process/oomScoreAdj", 55);
    let container = Container::new(bundle);
    container.create().succeeds();
    container.start().succeeds();
    let outcome = container.exec([
        "/payload", "env", "--", "pwd", "--", "cat", "/proc/self/oom_score_adj", "--", "cgroup",
        "--", "caps", "--", "limits", "--", "namespaces",
    ]);
    let outcome = outcome.succeeds().prints_line("OWN=yes").prints_line("/tmp").prints_line("55");
    let outcome = outcome.prints_line("CapBnd=0000000020000420");
    for file in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let link = std::fs::read_link(format!("/proc/{}/ns/{file}", container.pid())).expect("a namespace");
        assert!(outcome.stdout().contains(&link.display().to_string()), "{file}");
    }
}

#[test]
fn exec_of_what_cannot_run_is_255() {
    tests::differs!("runc says \"permission denied\" of a directory, and \"stopped\" of a container that is");
    let container = running();
    for (program, text) in [
        ("nosuchcmd", "executable file not found in $PATH"),
        ("/no/such", "no such file or directory"),
        ("/tmp", "directory"),
    ] {
        container.exec([program]).exits(255).says(text);
    }
    assert_eq!(container.status(), "running");
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    container.exec(["/payload", "true"]).exits(255).says("not running");
}

#[test]
fn exec_of_a_document_and_in_the_background() {
    let container = running();
    let path = container.bundle().directory().join("process.json");
    let mut document = container.bundle().config()["process"].clone();
    document["args"] = json!(["/payload", "id", "--", "exit", "11"]);
    document["user"] = json!({"uid": 3, "gid": 4});
    std::fs::write(&path, document.to_string()).expect("process.json");
    let path = path.display().to_string();
    let outcome = container.call(["exec", "--process", &path, container.id()]).exits(11);
    assert!(outcome.stdout().starts_with("uid=3 gid=4"), "{}", outcome.stdout());
    let outcome = container.call(["exec", "-d", container.id(), "/payload", "sleep", "1000"]);
    outcome.succeeds();
    let pids = container.call(["ps", "-f", "json", container.id()]).succeeds().json();
    assert_eq!(pids.as_array().map(Vec::len), Some(2));
}

#[test]
fn exec_in_a_paused_container_is_refused_unless_ignored() {
    let container = running();
    container.call(["pause", container.id()]).succeeds();
    container.exec(["/payload", "true"]).exits(255).says("paused");
    let mut command = container.command(["exec", "--ignore-paused", container.id(), "/payload", "exit", "5"]);
    let child = command.spawn().expect("the runtime");
    std::thread::sleep(std::time::Duration::from_millis(200));
    container.call(["resume", container.id()]).succeeds();
    assert_eq!({ child }.wait().expect("wait").code(), Some(5));
}

/// A group below the container's own, which the container (or an engine) made.
#[test]
fn exec_can_enter_a_group_below() {
    let container = running();
    let groups = container.cgroups();
    for group in &groups {
        std::fs::create_dir(group.join("below")).expect("a group");
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read(group.join(name)) {
                let _v2_inherits = std::fs::write(group.join("below").join(name), value);
            }
        }
    }
    let outcome = container.call(["exec", "--cgroup", "below", container.id(), "/payload", "cgroup"]);
    let printed = outcome.succeeds().stdout();
    // Named hierarchies but systemd's are not mounted where we could see them.
    let ours = |line: &&str| !line.contains(":name=") || line.contains(":name=systemd:");
    let mut ours = printed.lines().filter(ours);
    assert!(ours.all(|line| line.ends_with(":/below")), "{printed}");
}

/// `execCPUAffinity`: on which processors a joined process starts and stays.
#[test]
fn exec_affinity_is_as_asked() {
    let container = running();
    let path = container.bundle().directory().join("process.json");
    let mut document = container.bundle().config()["process"].clone();
    document["args"] = json!(["/payload", "status", "Cpus_allowed_list"]);
    document["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
    std::fs::write(&path, document.to_string()).expect("process.json");
    let path = path.display().to_string();
    if std::thread::available_parallelism().is_ok_and(|count| count.get() < 2) {
        tests::elsewhere!("needs two processors");
    }
    let outcome = container.call(["exec", "--process", &path, container.id()]);
    if !container.runtime().is_floe() && !outcome.stdout().contains("=1\n") {
        tests::elsewhere!("this runc knows no affinity");
    }
    outcome.succeeds().prints("Cpus_allowed_list=1\n");
}

/// The descriptor that a test passes on is its own: no copy of another stays open in the container.
#[test]
fn the_program_has_the_standard_streams_alone() {
    let container = Container::new(Bundle::new().args(["fds"]));
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let _inheritable = rustix::io::fcntl_setfd(null.as_fd(), rustix::io::FdFlags::empty());
    let printed = container.run().succeeds().stdout();
    let numbers: Vec<&str> = printed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{printed}");
    let container = running();
    let printed = container.exec(["/payload", "fds"]).succeeds().stdout();
    assert_eq!(printed.lines().count(), 3, "{printed}");
}
