//! Cases for Docker and Podman: states, signals, restarts, events, and that nothing is left.

use std::time::{Duration, Instant};
use tests::engine::{Case, Engine, IMAGE, Kind, unmounted_hierarchy};
use tests::{skip, wait_until};

pub(crate) const CASES: &[Case<Engine>] = &[
    ("states_from_created_to_removed", states),
    ("stop_kill_restart", stop_kill_restart),
    ("pause_stops_the_clock", pause),
    ("top_and_stats", top_and_stats),
    ("wait_and_restart_policy", restart_policy),
    ("events_of_a_life", events),
    ("healthcheck", healthcheck),
    ("copy_diff_commit", copy_diff_commit),
    ("a_failed_start_leaves_nothing", failed_start),
    ("twenty_in_parallel", twenty_in_parallel),
];

fn states(engine: &Engine) {
    let container = engine.name();
    let mut client = engine.client();
    client
        .args(["create", "--name", container.name()])
        .args(engine.options(&[]));
    engine
        .sandbox()
        .outcome(client.args([IMAGE, "sleep", "1000"]))
        .succeeds();
    assert_eq!(container.inspect("{{.State.Status}}"), "created");
    container.call(&["start"]).succeeds();
    assert_eq!(
        container.inspect("{{.State.Status}} {{.State.Running}} {{.State.Paused}}"),
        "running true false"
    );
    assert_eq!(
        engine
            .sandbox()
            .read(&format!("/proc/{}/comm", container.pid())),
        "sleep\n"
    );
    engine
        .call(&["ps", "--format", "{{.Names}} {{.Status}}"])
        .succeeds()
        .stdout()
        .lines()
        .find(|line| line.starts_with(container.name()) && line.contains("Up"))
        .expect("a line of ps");
    container.call(&["kill"]).succeeds();
    container.becomes("exited");
    assert_eq!(
        container.inspect("{{.State.ExitCode}} {{.State.Running}} {{.State.OOMKilled}}"),
        "137 false false"
    );
    container.call(&["start"]).succeeds();
    container.call(&["rm"]).fails();
    container.remove().succeeds();
    container.call(&["inspect"]).fails();
}

fn stop_kill_restart(engine: &Engine) {
    let container = engine.start(&["--stop-signal=USR1"], "trap 'exit 3' USR1; trap 'echo hup' HUP; trap 'exit 5' TERM; echo up; while :; do sleep 1000 & wait; done");
    container.logs("up");
    container.call(&["kill", "--signal=HUP"]).succeeds();
    container.logs("hup");
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
    container.call(&["stop"]).succeeds();
    assert_eq!(
        container.inspect("{{.State.Status}} {{.State.ExitCode}}"),
        "exited 3"
    );
    container.call(&["restart"]).succeeds();
    wait_until("the second life begins", || {
        container.call(&["logs"]).stdout() == "up\nhup\nup\n"
    });
    container.call(&["kill", "--signal=15"]).succeeds();
    container.becomes("exited");
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "5");

    let deaf = engine.start(&[], "trap '' TERM; echo up; while :; do sleep 0.1; done");
    deaf.logs("up");
    let start = Instant::now();
    deaf.call(&["restart", "--time=1"]).succeeds();
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "killed before its time"
    );
    assert_eq!(deaf.inspect("{{.State.Status}}"), "running");
    deaf.call(&["stop", "--time=0"]).succeeds();
    assert_eq!(deaf.inspect("{{.State.ExitCode}}"), "137");
}

fn pause(engine: &Engine) {
    let container = engine.start(
        &[],
        "i=0; while :; do i=$((i+1)); echo $i >/tmp/count; sleep 0.02; done",
    );
    let count = || {
        let pid = container.pid();
        engine
            .sandbox()
            .read(&format!("/proc/{pid}/root/tmp/count"))
    };
    let file = engine
        .sandbox()
        .outside(format!("/proc/{}/root/tmp/count", container.pid()));
    wait_until("it counts", || file.exists());
    container.call(&["pause"]).succeeds();
    assert_eq!(container.inspect("{{.State.Status}}"), "paused");
    let before = count();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(count(), before, "a paused container went on");
    container.exec(&[], &["true"]).fails();
    container.call(&["unpause"]).succeeds();
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
    wait_until("it goes on", || count() != before);
    container.exec(&[], &["true"]).succeeds();
}

fn top_and_stats(engine: &Engine) {
    if let (Kind::Docker, Some(name)) = (engine.kind(), unmounted_hierarchy()) {
        skip!("containerd reads no group while the hierarchy `{name}` is mounted nowhere");
    }
    let container = engine.start(&[], "sleep 4321 & sleep 1234; true");
    wait_until("top shows both", || {
        let list = container.call(&["top"]).succeeds().stdout();
        list.contains("sleep 4321") && list.contains("sleep 1234")
    });
    let line = container
        .call(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.MemUsage}} {{.PIDs}}",
        ])
        .succeeds();
    let pids = line.stdout().trim().rsplit(' ').next().map(str::to_owned);
    assert_eq!(pids.as_deref(), Some("3"), "{}", line.stdout());
}

fn restart_policy(engine: &Engine) {
    let container = engine.start(&["--restart=on-failure:2"], "echo life; exit 1");
    wait_until("its third life ended", || {
        container.call(&["logs"]).stdout().matches("life").count() == 3
    });
    container.becomes("exited");
    container.call(&["wait"]).succeeds().prints("1\n");
}

fn events(engine: &Engine) {
    let container = engine.start(&[], "exit 6");
    container.call(&["wait"]).succeeds().prints("6\n");
    container.call(&["rm"]).succeeds();
    let filter = format!("container={}", container.name());
    // Docker cuts `until` to whole seconds: one ahead of now is not too early.
    let (until, format) = match engine.kind() {
        Kind::Docker => ("--until=-1s", "{{.Action}}"),
        Kind::Podman => ("--stream=false", "{{.Status}}"),
    };
    let args = [
        "events",
        "--since=5m",
        until,
        "--filter",
        &filter,
        "--format",
        format,
    ];
    let outcome = engine.call(&args).succeeds();
    let events = outcome.stdout();
    let expected: &[&str] = match engine.kind() {
        Kind::Docker => &["create", "start", "die", "destroy"],
        Kind::Podman => &["create", "init", "start", "died", "remove"],
    };
    let mut rest = events.lines();
    for event in expected {
        assert!(
            rest.any(|line| line == *event),
            "no {event} in its place: {events}"
        );
    }
}

fn healthcheck(engine: &Engine) {
    if engine.kind() == Kind::Podman {
        let container = engine.sleeper(&[
            "--health-cmd=test -e /tmp/well",
            "--health-interval=disable",
        ]);
        container.call(&["healthcheck", "run"]).exits(1);
        container.shell(&[], ": >/tmp/well").succeeds();
        container.call(&["healthcheck", "run"]).succeeds();
        return;
    }
    let container = engine.sleeper(&[
        "--health-cmd=test -e /tmp/well",
        "--health-interval=200ms",
        "--health-retries=2",
    ]);
    wait_until("it is ill", || {
        container.inspect("{{.State.Health.Status}}") == "unhealthy"
    });
    container.shell(&[], ": >/tmp/well").succeeds();
    wait_until("it is well", || {
        container.inspect("{{.State.Health.Status}}") == "healthy"
    });
}

fn copy_diff_commit(engine: &Engine) {
    let container = engine.sleeper(&[]);
    container
        .shell(&[], "echo new >/data/new; rm /data/seed")
        .succeeds();
    let from = format!("{}:/data/new", container.name());
    let to = engine
        .sandbox()
        .path(&format!("copied-{}", container.name()));
    engine.call(&["cp", &from, &to]).succeeds();
    assert_eq!(engine.sandbox().read(&to), "new\n");
    engine
        .call(&["cp", &to, &format!("{}:/tmp/back", container.name())])
        .succeeds();
    container
        .exec(&[], &["cat", "/tmp/back"])
        .succeeds()
        .prints("new\n");
    container
        .call(&["diff"])
        .succeeds()
        .prints_line("A /data/new")
        .prints_line("D /data/seed");
    let image = format!("localhost/committed-{}", container.name());
    engine
        .call(&["commit", container.name(), &image])
        .succeeds();
    let mut client = engine.client();
    client
        .args(["run", "--rm"])
        .args(engine.options(&[]))
        .args([&image, "ls", "/data"]);
    engine
        .sandbox()
        .outcome(&mut client)
        .succeeds()
        .prints("new\n");
}

fn failed_start(engine: &Engine) {
    let container = engine.name();
    let mut client = engine.client();
    client
        .args(["create", "--name", container.name()])
        .args(engine.options(&[]));
    engine
        .sandbox()
        .outcome(client.args([IMAGE, "/no/such/program"]))
        .succeeds();
    let id = container.inspect("{{.Id}}");
    container.call(&["start"]).fails().says("/no/such/program");
    if engine.kind() == Kind::Docker {
        nothing_of(engine, &id);
    }
    container.call(&["rm"]).succeeds();
    nothing_of(engine, &id);
}

fn twenty_in_parallel(engine: &Engine) {
    std::thread::scope(|scope| {
        for i in 0..20 {
            scope.spawn(move || {
                let number = i.to_string();
                engine
                    .run(&[], &["echo", &number])
                    .succeeds()
                    .prints(&format!("{i}\n"));
            });
        }
    });
}

/// Asserts that no process, mount, group or state of the container is left while its engine runs on.
pub(crate) fn nothing_of(engine: &Engine, id: &str) {
    let sandbox = engine.sandbox();
    let left = || {
        // Podman 5 keeps a directory for the exit status after `rm`, with every runtime.
        let script = format!(
            "grep -o '[^ ]*{id}[^ ]*' /proc/mounts || true; \
             find /sys/fs/cgroup /run -name '*{id}*' ! -path '*/libpod/persist/*' 2>/dev/null || true"
        );
        let mut left = sandbox.shell(&script).succeeds().stdout();
        left.push_str(&sandbox.processes_with(id).join("\n"));
        left
    };
    let mut found = String::new();
    for _ in 0..200 {
        found = left();
        if found.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("left of {id}:\n{found}");
}

/// After everything: no container of the engine has left anything.
pub(crate) fn nothing_is_left(engine: &Engine) {
    let container = engine.sleeper(&["--tmpfs=/scratch", "--volume=named:/named"]);
    container.exec(&["--detach"], &["sleep", "1000"]).succeeds();
    let id = container.inspect("{{.Id}}");
    assert_eq!(id.len(), 64, "{id}");
    drop(container);
    nothing_of(engine, &id);
    // An engine keeps groups of its own, such as conmon's; a container's carries its id. A pod's
    // has an id too, and Podman 5 leaves it in the hierarchies that it does not know.
    let prefix = match engine.kind() {
        Kind::Docker => "",
        Kind::Podman => "libpod-",
    };
    let group = engine.sandbox().group();
    let script = format!("find /sys/fs/cgroup -type d -path '*{group}/*'");
    let groups = || {
        let found = engine
            .sandbox()
            .shell(&format!("{script} 2>/dev/null || true"));
        let of_container = |path: &&str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.strip_prefix(prefix).is_some_and(|id| id.len() == 64)
        };
        found
            .stdout()
            .lines()
            .filter(of_container)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for _ in 0..200 {
        if groups().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("groups of removed containers are left: {:#?}", groups());
}
