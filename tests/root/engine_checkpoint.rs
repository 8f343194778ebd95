//! Checkpoints under the engines, with no criu but floe's.

use std::os::unix::fs::symlink;
use tests::bundle::built_program;
use tests::engine::{Containerd, Engine, Sandbox};
use tests::{need, wait_until};

const COUNTER: &str = "while :; do count=$((count+1)); echo $count >/tmp/next; mv /tmp/next /tmp/count; sleep 0.05; done";

/// Engines ask criu for its version themselves.
fn with_criu(sandbox: &Sandbox) {
    let link = sandbox.outside(sandbox.path("bin/criu"));
    symlink(built_program("floe-criu"), link).expect("link to floe-criu");
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

#[test]
fn podman_exports_and_imports_a_checkpoint() {
    let engine = need!(Engine::podman(), "needs podman and busybox-static");
    with_criu(engine.sandbox());
    let container = engine.start(&[], COUNTER);
    let count = || number(&container.exec(&[], &["cat", "/tmp/count"]).stdout());
    wait_until("it counts", || count() > 5);
    let before = count();
    let archive = engine.sandbox().path("tmp/checkpoint.tar");
    let export = ["container", "checkpoint", "--compress=none", "--export", &archive];
    container.call(&export).succeeds();
    assert!(container.inspect("{{.State.Status}}") == "exited");
    container.remove().succeeds();
    let import = format!("--import={archive}");
    engine.call(&["container", "restore", &import]).succeeds();
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
    let after = count();
    assert!(after >= before, "{after} after {before}");
    wait_until("it counts on", || count() > after + 5);
}

#[test]
fn podman_leaves_it_running_and_restores_in_place() {
    let engine = need!(Engine::podman(), "needs podman and busybox-static");
    with_criu(engine.sandbox());
    let container = engine.start(&[], COUNTER);
    let count = || number(&container.exec(&[], &["cat", "/tmp/count"]).stdout());
    wait_until("it counts", || count() > 5);
    container.call(&["container", "checkpoint", "--leave-running"]).succeeds();
    let now = count();
    wait_until("it counts on", || count() > now);
    container.call(&["container", "checkpoint"]).succeeds();
    container.call(&["container", "restore"]).succeeds();
    let now = count();
    wait_until("it counts on", || count() > now);
}

#[test]
fn docker_starts_from_a_checkpoint() {
    let engine = need!(Engine::docker(&["--experimental"]), "needs docker and busybox-static");
    with_criu(engine.sandbox());
    let container = engine.start(&[], COUNTER);
    let count = || number(&container.exec(&[], &["cat", "/tmp/count"]).stdout());
    wait_until("it counts", || count() > 5);
    let before = count();
    let name = container.name();
    engine.call(&["checkpoint", "create", name, "one"]).succeeds();
    container.becomes("exited");
    engine.call(&["start", "--checkpoint", "one", name]).succeeds();
    let after = count();
    assert!(after >= before, "{after} after {before}");
    wait_until("it counts on", || count() > after + 5);
}

#[test]
fn containerd_checkpoints_a_task() {
    let containerd = need!(Containerd::start(), "needs containerd and busybox-static");
    with_criu(containerd.sandbox());
    let id = "counter";
    let mut run = containerd.run_command(id, &["--detach"], &["sh", "-c", COUNTER]);
    containerd.sandbox().outcome(&mut run).succeeds();
    let count = |exec: &str| {
        number(&containerd.call(&["task", "exec", "--exec-id", exec, id, "cat", "/tmp/count"]).stdout())
    };
    let mut tries = 0;
    wait_until("it counts", || {
        tries += 1;
        count(&format!("e{tries}")) > 5
    });
    let images = containerd.sandbox().path("tmp/images");
    let image = format!("--image-path={images}");
    let work = format!("--work-path={}", containerd.sandbox().path("tmp/work"));
    containerd.call(&["task", "checkpoint", &image, &work, id]).succeeds();
    assert!(containerd.sandbox().outside(&images).join("pstree.img").exists());
    let before = count("before");
    wait_until("it counts on", || {
        tries += 1;
        count(&format!("e{tries}")) > before
    });
    containerd.call(&["task", "kill", "--signal", "KILL", id]).succeeds();
    wait_until("the task is gone", || containerd.call(&["task", "delete", id]).code() == 0);
    containerd.call(&["containers", "delete", id]).succeeds();
}
