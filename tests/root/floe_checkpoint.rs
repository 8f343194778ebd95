//! `floe checkpoint` and `floe restore`.

use serde_json::Value;
use std::process::{Command, Stdio};
use tests::bundle::payload;
use tests::floe::busybox;
use tests::{Floe, need, wait_until};

const COUNTER: &str =
    "while :; do count=$((count+1)); echo $count >/tmp/next; mv /tmp/next /tmp/count; echo tick; sleep 0.05; done";

/// A container that counts, detached.
fn counter(floe: &Floe, options: &[&str]) -> Option<()> {
    let root = busybox(&floe.path(""))?;
    std::os::unix::fs::symlink("busybox", root.join("bin/mv")).expect("a link");
    let root = root.to_str().expect("UTF-8").to_owned();
    let run = ["run", "--detach", "--name", "box", "--rootfs", &root];
    let all = run.iter().chain(options).chain(&["sh", "-c", COUNTER]);
    floe.call(all.copied().collect::<Vec<_>>()).succeeds();
    wait_until("it counts", || count(floe) > 5);
    Some(())
}

fn count(floe: &Floe) -> u64 {
    floe.line("exec box cat /tmp/count").stdout().trim().parse().unwrap_or(0)
}

#[track_caller]
fn counts_on(floe: &Floe) {
    let now = count(floe);
    wait_until("it counts on", || count(floe) > now + 3);
}

#[test]
fn a_container_goes_on_where_it_was() {
    let floe = Floe::new();
    need!(counter(&floe, &[]), "needs busybox-static");
    let before = count(&floe);
    floe.line("checkpoint box").succeeds().prints("box\n");
    floe.wait_for_status("box", "exited");
    let lines = floe.line("logs box").stdout().lines().count();
    floe.line("restore box").succeeds().prints("box\n");
    floe.wait_for_status("box", "running");
    let after = count(&floe);
    assert!(after >= before, "{after} after {before}");
    counts_on(&floe);
    wait_until("its output is logged", || {
        floe.line("logs box").stdout().lines().count() > lines
    });
    floe.line("restore box").fails().says("running");
    // Another life begins at the beginning.
    floe.line("restart --time 0 box").succeeds();
    counts_on(&floe);
}

#[test]
fn leave_running_and_statistics() {
    let floe = Floe::new();
    need!(counter(&floe, &["--restart", "always"]), "needs busybox-static");
    let told = floe.line("checkpoint --leave-running --format json box").succeeds().json();
    assert_eq!(told["name"], "box");
    for field in ["frozenMicroseconds", "pages", "processes", "files", "bytes"] {
        assert!(told[field].as_u64().is_some_and(|number| number > 0), "{field}: {told}");
    }
    counts_on(&floe);
    assert_eq!(floe.status("box"), "running");
}

/// A policy that starts containers again must not do so with one that was checkpointed.
#[test]
fn a_checkpointed_container_is_not_started_again() {
    let floe = Floe::new();
    need!(counter(&floe, &["--restart", "always"]), "needs busybox-static");
    floe.line("checkpoint box").succeeds();
    floe.wait_for_status("box", "exited");
    floe.line("restore box").succeeds();
    counts_on(&floe);
}

#[test]
fn what_is_in_the_images_is_shown() {
    let floe = Floe::new();
    need!(counter(&floe, &[]), "needs busybox-static");
    let images = floe.path("images");
    let to = images.to_str().expect("UTF-8");
    floe.call(["checkpoint", "--to", to, "box"]).succeeds();
    let shown = floe.call(["checkpoint", "show", "--format", "json", to]).succeeds().json();
    let first = &shown["processes"][0];
    assert_eq!((&first["pid"], &first["name"]), (&Value::from(1), &Value::from("sh")), "{shown}");
    assert!(first["memoryBytes"].as_u64().is_some_and(|bytes| bytes > 4096), "{shown}");
    let table = floe.call(["checkpoint", "show", to]).succeeds().stdout();
    assert!(table.contains("PID") && table.contains("pipe"), "{table}");
    floe.call(["restore", "--from", to, "box"]).succeeds();
    counts_on(&floe);
}

#[test]
fn without_a_checkpoint_there_is_nothing_to_restore() {
    let floe = Floe::new();
    need!(counter(&floe, &[]), "needs busybox-static");
    floe.line("checkpoint").fails().says("name a container");
    floe.line("checkpoint nobody").fails().says("no container `nobody`");
    floe.line("restore box").fails().says("no checkpoint");
    floe.line("kill box").succeeds();
    floe.wait_for_status("box", "exited");
    floe.line("checkpoint box").fails().says("exited, not running");
}

#[test]
fn plain_processes_by_pid() {
    let floe = Floe::new();
    let output = std::fs::File::create(floe.path("output")).expect("a file");
    let mut command = Command::new("setsid");
    command.arg(payload()).args(["signal-wait", "--", "echo", "end"]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(output);
    let mut child = command.spawn().expect("the payload");
    let pid = child.id().to_string();
    let said = || std::fs::read_to_string(floe.path("output")).unwrap_or_default();
    wait_until("it is ready", || said().contains("ready"));
    let images = floe.path("images");
    let to = images.to_str().expect("UTF-8");
    floe.call(["checkpoint", "--pid", &pid, "--to", to]).succeeds();
    child.wait().expect("wait");
    floe.call(["restore", to]).succeeds();
    let process = rustix::process::Pid::from_raw(pid.parse().expect("a number")).expect("a pid");
    rustix::process::kill_process(process, rustix::process::Signal::USR1).expect("wake it");
    wait_until("it goes on", || said().contains("end"));
}
