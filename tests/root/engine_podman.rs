//! The runtime under Podman: `podman --runtime`.

use crate::{engine_lifecycle, engine_limits, engine_process, engine_security, engine_storage};
use tests::engine::{self, Case, Engine, IMAGE};
use tests::need;

#[test]
fn podman_runs_containers() {
    let engine = need!(Engine::podman(), "needs podman and busybox-static");
    everything(&engine);
}

#[test]
#[ignore = "takes the newest engines"]
fn newest_podman_runs_containers() {
    let root = need!(
        engine::newest_root(),
        "needs the newest engines (cargo xtask peers engines)"
    );
    let engine = need!(Engine::newest_podman(&root), "needs busybox-static");
    everything(&engine);
}

fn everything(engine: &Engine) {
    let own: &[Case<Engine>] = &[
        ("user_namespaces", user_namespaces),
        ("pods_share_namespaces", pods),
        ("file_descriptors_are_preserved", preserved_descriptors),
        ("time_and_personal_limits", init_and_timeout),
    ];
    let cases = [
        engine_process::CASES,
        engine_lifecycle::CASES,
        engine_limits::CASES,
        engine_security::CASES,
        engine_storage::CASES,
        own,
    ];
    engine::all(engine, &cases.concat(), 4);
    engine_lifecycle::nothing_is_left(engine);
}

fn user_namespaces(engine: &Engine) {
    let options = ["--uidmap=0:1000000:65536", "--gidmap=0:1000000:65536"];
    engine
        .shell(
            &options,
            "id -u; tr -s ' ' </proc/self/uid_map; stat -c %u /etc/passwd",
        )
        .succeeds()
        .prints("0\n 0 1000000 65536\n0\n");
    let options = ["--userns=auto:size=1000"];
    engine
        .shell(&options, "id -u; awk '{print $1, $3}' /proc/self/uid_map")
        .succeeds()
        .prints("0\n0 1000\n");
    let container = engine.sleeper(&["--uidmap=0:1000000:65536", "--user=guest"]);
    let pid = container.pid();
    engine
        .sandbox()
        .shell(&format!("grep Uid: /proc/{pid}/status | cut -f 2"))
        .succeeds()
        .prints("1001000\n");
    container
        .exec(&[], &["id", "-u"])
        .succeeds()
        .prints("1000\n");
}

fn pods(engine: &Engine) {
    let pod = format!("pod-{}", engine.name().name());
    let parent = format!("--cgroup-parent={}", engine.sandbox().group());
    // No pause image is at hand: without the infra container the pod's group is what is shared.
    engine
        .call(&["pod", "create", "--infra=false", &parent, "--name", &pod])
        .succeeds();
    let option = format!("--pod={pod}");
    let mut client = engine.client();
    client.args([
        "run",
        "--rm",
        &option,
        "--network=none",
        IMAGE,
        "echo",
        "in a pod",
    ]);
    engine
        .sandbox()
        .outcome(&mut client)
        .succeeds()
        .prints("in a pod\n");
    engine.call(&["pod", "rm", "--force", &pod]).succeeds();
}

fn preserved_descriptors(engine: &Engine) {
    let file = engine.sandbox().path("preserved");
    engine.sandbox().write(&file, "through a descriptor\n");
    let mut client = engine.client();
    client
        .args(["run", "--rm", "--preserve-fds=1"])
        .args(engine.options(&[]))
        .args([IMAGE, "sh", "-c", "cat <&3"]);
    let words: Vec<String> = client
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // Everything after `--` is the client's own command line: a shell opens descriptor 3 for it.
    let start = words.iter().position(|word| word == "--").unwrap() + 1;
    let mut shell = engine.sandbox().command("sh");
    shell.env("CONTAINERS_CONF", "/run/containers.conf");
    shell
        .args(["-c", "exec 3<\"$0\"; exec \"$@\"", &file])
        .args(&words[start..]);
    engine
        .sandbox()
        .outcome(&mut shell)
        .succeeds()
        .prints("through a descriptor\n");
}

fn init_and_timeout(engine: &Engine) {
    engine.run(&["--timeout=1"], &["sleep", "100"]).fails();
}
