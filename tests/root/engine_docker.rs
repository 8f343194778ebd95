//! The runtime under Docker: `dockerd --add-runtime`.

use crate::{engine_lifecycle, engine_limits, engine_process, engine_security, engine_storage};
use tests::engine::{self, Case, Engine};
use tests::need;

#[test]
fn docker_runs_containers() {
    let engine = need!(Engine::docker(&[]), "needs docker.io and busybox-static");
    let own: &[Case<Engine>] = &[("buildkit_runs_commands", buildkit)];
    everything(&engine, own);
}

#[test]
#[ignore = "takes the newest engines"]
fn newest_docker_runs_containers() {
    let root = need!(
        engine::newest_root(),
        "needs the newest engines (cargo xtask peers engines)"
    );
    let engine = need!(Engine::newest_docker(&root), "needs busybox-static");
    everything(&engine, &[]);
}

fn everything(engine: &Engine, own: &[Case<Engine>]) {
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

#[test]
fn docker_maps_users() {
    let name = "floe-remapped";
    let engine = need!(
        Engine::docker_remapped(name),
        "needs docker.io and busybox-static"
    );
    let cases: &[Case<Engine>] = &[
        ("container_is_mapped", mapped),
        ("volumes_of_mapped_containers", mapped_volume),
        ("user_namespace_of_the_host", unmapped),
    ];
    engine::all(&engine, cases, 2);
    engine_lifecycle::nothing_is_left(&engine);
}

fn buildkit(engine: &Engine) {
    engine_storage::build_with(engine, &[("DOCKER_BUILDKIT", "1")]);
}

fn mapped(engine: &Engine) {
    let script =
        "id -u; tr -s ' ' </proc/self/uid_map; touch /tmp/mine; stat -c %u /tmp/mine /etc/passwd";
    engine
        .shell(&[], script)
        .succeeds()
        .prints("0\n 0 1000000 65536\n0\n0\n");
    let container = engine.sleeper(&["--user=guest"]);
    let pid = container.pid();
    let uid = engine
        .sandbox()
        .shell(&format!("grep Uid: /proc/{pid}/status | cut -f 2"));
    uid.succeeds().prints("1001000\n");
    container
        .exec(&[], &["id", "-u"])
        .succeeds()
        .prints("1000\n");
    container
        .shell(&["--user=0"], "mount -t tmpfs tmpfs /mnt")
        .fails();
}

fn mapped_volume(engine: &Engine) {
    engine
        .shell(
            &["--volume=kept:/data"],
            "touch /data/mine && stat -c %u /data/mine",
        )
        .succeeds()
        .prints("0\n");
    let volume = engine
        .call(&["volume", "inspect", "--format={{.Mountpoint}}", "kept"])
        .succeeds()
        .stdout();
    let owner = engine
        .sandbox()
        .shell(&format!("stat -c %u {}/mine", volume.trim()));
    owner.succeeds().prints("1000000\n");
}

fn unmapped(engine: &Engine) {
    engine
        .shell(&["--userns=host"], "tr -s ' ' </proc/self/uid_map")
        .succeeds()
        .prints(" 0 0 4294967295\n");
}
