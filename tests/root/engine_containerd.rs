//! The runtime under containerd: `ctr run --runc-binary`, through the runc v2 shim.

use std::time::Duration;
use tests::engine::{self, Case, Containerd, Limit, unmounted_hierarchy};
use tests::{need, skip, wait_until};

#[test]
fn containerd_runs_containers() {
    let containerd = need!(Containerd::start(), "needs containerd and busybox-static");
    everything(&containerd);
}

#[test]
#[ignore = "takes the newest engines"]
fn newest_containerd_runs_containers() {
    let root = need!(
        engine::newest_root(),
        "needs the newest engines (cargo xtask peers engines)"
    );
    let containerd = need!(Containerd::newest(&root), "needs busybox-static");
    everything(&containerd);
}

fn everything(containerd: &Containerd) {
    let cases: &[Case<Containerd>] = &[
        ("run_returns_the_status", run),
        ("unexecutable", unexecutable),
        ("life_of_a_task", life),
        ("exec", exec),
        ("terminal", terminal),
        ("pause_and_resume", pause),
        ("limits_and_metrics", limits),
        ("out_of_memory", out_of_memory),
        ("options", options),
        ("mounts", mounts),
        ("user_namespace", user_namespace),
        ("joined_namespaces", joined_namespaces),
        ("twenty_in_parallel", twenty_in_parallel),
    ];
    engine::all(containerd, cases, 4);
    nothing_is_left(containerd);
}

fn run(containerd: &Containerd) {
    containerd
        .run(&[], &["echo", "hi"])
        .succeeds()
        .prints("hi\n");
    containerd
        .run(&[], &["sh", "-c", "echo err >&2; exit 3"])
        .exits(3)
        .says("err");
}

fn unexecutable(containerd: &Containerd) {
    let rows = [
        ("nosuchcmd", "executable file not found in $PATH"),
        ("/no/such", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ];
    for (program, text) in rows {
        containerd
            .run(&[], &[program])
            .fails()
            .says(text)
            .says(program);
    }
}

fn status(containerd: &Containerd, id: &str) -> Option<String> {
    let list = containerd.call(&["task", "list"]).succeeds().stdout();
    let line = list
        .lines()
        .find(|line| line.split_whitespace().next() == Some(id))?;
    line.split_whitespace().nth(2).map(str::to_owned)
}

fn remove(containerd: &Containerd, id: &str) {
    let _ = containerd.call(&["task", "kill", "--signal=KILL", id]);
    wait_until("the task is stopped", || {
        status(containerd, id).is_none_or(|status| status == "STOPPED")
    });
    let _ = containerd.call(&["task", "delete", id]);
    containerd.call(&["container", "delete", id]).succeeds();
}

fn life(containerd: &Containerd) {
    let id = containerd.start_container(&[], "trap 'exit 4' USR1; while :; do sleep 0.05; done");
    assert_eq!(status(containerd, &id).as_deref(), Some("RUNNING"));
    let processes = containerd.call(&["task", "ps", &id]).succeeds().stdout();
    assert!(processes.lines().count() >= 2, "{processes}");
    containerd
        .call(&["task", "kill", "--signal=USR1", &id])
        .succeeds();
    wait_until("it ended", || {
        status(containerd, &id).as_deref() == Some("STOPPED")
    });
    containerd
        .call(&["task", "delete", &id])
        .says("exit code 4");
    containerd.call(&["container", "delete", &id]).succeeds();
    assert_eq!(status(containerd, &id), None);
    nothing_of(containerd, &id);
}

fn exec(containerd: &Containerd) {
    let id = containerd.start_container(&[], "while :; do sleep 1; done");
    let exec = |options: &[&str], command: &[&str]| {
        let mut client = containerd.client();
        client
            .args(["task", "exec", "--exec-id", &tests::unique_id()])
            .args(options)
            .arg(&id)
            .args(command);
        containerd.sandbox().outcome(&mut client)
    };
    exec(&[], &["sh", "-c", "echo hi; exit 7"])
        .exits(7)
        .prints("hi\n");
    exec(&["--cwd=/www"], &["pwd"]).succeeds().prints("/www\n");
    exec(&["--user=1000:1000"], &["id", "-u"])
        .succeeds()
        .prints("1000\n");
    exec(&[], &["nosuchcmd"])
        .fails()
        .says("executable file not found in $PATH");
    containerd
        .call(&["task", "kill", "--all", "--signal=KILL", &id])
        .succeeds();
    remove(containerd, &id);
}

fn terminal(containerd: &Containerd) {
    if !containerd.sandbox().outside("/usr/bin/script").exists() {
        skip!("needs script(1)");
    }
    let command = containerd.run_command(&tests::unique_id(), &["--rm", "--tty"], &["sh", "-c", "until stty size 2>/dev/null | grep '33 91'; do sleep 0.02; done; tty | grep -c /dev/pts/0; exit 6"]);
    let words: Vec<String> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let start = words
        .iter()
        .position(|word| word == "--")
        .expect("nsenter's end of options")
        + 1;
    let quoted: Vec<String> = words[start..]
        .iter()
        .map(|word| format!("\"{word}\""))
        .collect();
    let script = format!("stty rows 33 cols 91; {}", quoted.join(" "));
    let mut shell = containerd.sandbox().command("script");
    shell.env("CONTAINERD_ADDRESS", "/run/containerd.sock");
    let outcome = containerd.sandbox().outcome(shell.args([
        "--quiet",
        "--return",
        "--command",
        &script,
        "/dev/null",
    ]));
    let outcome = outcome.exits(6);
    let said = outcome.stdout().replace('\r', "");
    assert!(said.contains("33 91\n1\n"), "{said:?}");
}

fn pause(containerd: &Containerd) {
    let id = containerd.start_container(&[], "while :; do sleep 1; done");
    containerd.call(&["task", "pause", &id]).succeeds();
    assert_eq!(status(containerd, &id).as_deref(), Some("PAUSED"));
    containerd.call(&["task", "resume", &id]).succeeds();
    assert_eq!(status(containerd, &id).as_deref(), Some("RUNNING"));
    remove(containerd, &id);
}

fn pid(containerd: &Containerd, id: &str) -> String {
    let list = containerd.call(&["task", "list"]).succeeds().stdout();
    let line = list
        .lines()
        .find(|line| line.split_whitespace().next() == Some(id));
    line.and_then(|line| line.split_whitespace().nth(1))
        .expect("a pid in the list")
        .to_owned()
}

fn limits(containerd: &Containerd) {
    let options = ["--memory-limit=67108864", "--cpus=0.5", "--cpu-shares=555"];
    let id = containerd.start_container(&options, "while :; do sleep 1; done");
    let limits = [
        Limit {
            controller: "memory",
            v1: ("memory.limit_in_bytes", "67108864"),
            v2: ("memory.max", "67108864"),
        },
        Limit {
            controller: "cpu",
            v1: ("cpu.cfs_quota_us", "50000"),
            v2: ("cpu.max", "50000 100000"),
        },
    ];
    let pid = pid(containerd, &id);
    for limit in limits {
        limit.is_set_for(containerd.sandbox(), &pid);
    }
    if let Some(name) = unmounted_hierarchy() {
        remove(containerd, &id);
        skip!("containerd reads no group while the hierarchy `{name}` is mounted nowhere");
    }
    let metrics = containerd
        .call(&["task", "metrics", &id])
        .succeeds()
        .stdout();
    assert!(
        metrics.contains("memory") && metrics.contains("pids"),
        "{metrics}"
    );
    remove(containerd, &id);
}

fn out_of_memory(containerd: &Containerd) {
    containerd
        .run(&["--memory-limit=16777216"], &["tail", "/dev/zero"])
        .exits(137);
}

fn options(containerd: &Containerd) {
    let shell = |options: &[&str], script: &str| containerd.run(options, &["sh", "-c", script]);
    let outcome = shell(&["--read-only"], "touch /x").fails();
    assert!(
        outcome.stderr().contains("Read-only"),
        "{}",
        outcome.stderr()
    );
    let narrow = ["--cap-add=CAP_SYS_TIME", "--cap-drop=CAP_CHOWN"];
    shell(&narrow, "grep CapEff: /proc/self/status")
        .succeeds()
        .prints("CapEff:\t00000000aa0425fa\n");
    let fields = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | cut -f 2";
    shell(&["--seccomp"], fields).succeeds().prints("1\n2\n");
    shell(&["--allow-new-privs"], fields)
        .succeeds()
        .prints("0\n0\n");
    shell(
        &["--env=A=b", "--cwd=/data"],
        "echo $A; pwd; echo $FROM_IMAGE",
    )
    .succeeds()
    .prints("b\n/data\nyes\n");
    shell(&["--device=/dev/full"], "head -c 1 /dev/full | wc -c")
        .succeeds()
        .prints("1\n");
    shell(&["--net-host"], "readlink /proc/self/ns/net")
        .succeeds()
        .prints(
            &containerd
                .sandbox()
                .shell("readlink /proc/self/ns/net")
                .stdout(),
        );
    shell(&["--no-pivot"], "echo moved")
        .succeeds()
        .prints("moved\n");
}

fn mounts(containerd: &Containerd) {
    let directory = containerd.sandbox().path("bound");
    containerd
        .sandbox()
        .write(&format!("{directory}/note"), "from the host\n");
    let mount = format!("--mount=type=bind,src={directory},dst=/mnt,options=rbind:ro");
    containerd
        .run(&[&mount], &["cat", "/mnt/note"])
        .succeeds()
        .prints("from the host\n");
    containerd.run(&[&mount], &["touch", "/mnt/x"]).fails();
    let mount = "--mount=type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m:mode=700";
    containerd
        .run(&[mount], &["stat", "-c", "%a", "/scratch"])
        .succeeds()
        .prints("700\n");
}

fn user_namespace(containerd: &Containerd) {
    let maps = ["--uidmap=0:1000000:65536", "--gidmap=0:1000000:65536"];
    let script = "id -u; tr -s ' ' </proc/self/uid_map";
    containerd
        .run(&maps, &["sh", "-c", script])
        .succeeds()
        .prints("0\n 0 1000000 65536\n");
}

fn joined_namespaces(containerd: &Containerd) {
    let id = containerd.start_container(&[], "while :; do sleep 1; done");
    let pid = pid(containerd, &id);
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        let option = format!("--with-ns={kind}:/proc/{pid}/ns/{file}");
        let own = containerd
            .sandbox()
            .shell(&format!("readlink /proc/{pid}/ns/{file}"))
            .succeeds();
        containerd
            .run(&[&option], &["readlink", &format!("/proc/self/ns/{file}")])
            .succeeds()
            .prints(&own.stdout());
    }
    remove(containerd, &id);
}

fn twenty_in_parallel(containerd: &Containerd) {
    std::thread::scope(|scope| {
        for i in 0..20 {
            scope.spawn(move || {
                containerd
                    .run(&[], &["echo", &i.to_string()])
                    .succeeds()
                    .prints(&format!("{i}\n"));
            });
        }
    });
}

fn nothing_of(containerd: &Containerd, id: &str) {
    let sandbox = containerd.sandbox();
    let mut left = String::new();
    for _ in 0..100 {
        let script = format!(
            "grep -o '[^ ]*{id}[^ ]*' /proc/mounts || true; find /sys/fs/cgroup /run -name '*{id}*' 2>/dev/null || true"
        );
        left = sandbox.shell(&script).succeeds().stdout();
        left.push_str(&sandbox.processes_with(id).join("\n"));
        if left.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("left of {id}:\n{left}");
}

/// After everything: no container has left a process, group or state.
fn nothing_is_left(containerd: &Containerd) {
    containerd
        .call(&["container", "list", "--quiet"])
        .succeeds()
        .prints("");
    nothing_of(containerd, "floe-test-0");
    let group = containerd.sandbox().group();
    wait_until("all groups are gone", || {
        let script = format!(
            "find /sys/fs/cgroup -mindepth 3 -type d -path '*{group}/*' 2>/dev/null || true"
        );
        containerd.sandbox().shell(&script).stdout().is_empty()
    });
}
