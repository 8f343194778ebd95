//! Cases for Docker and Podman: processes of a container, their status, streams, terminal and identity.

use tests::engine::{Case, Engine, IMAGE, Kind};
use tests::host;

pub(crate) const CASES: &[Case<Engine>] = &[
    ("run_returns_the_status", run_returns_the_status),
    (
        "a_program_that_cannot_be_executed_is_126_or_127",
        unexecutable,
    ),
    ("exec_returns_the_status", exec_returns_the_status),
    (
        "exec_of_a_program_that_cannot_be_executed",
        unexecutable_exec,
    ),
    ("exec_takes_user_directory_and_environment", exec_options),
    ("streams", streams),
    ("terminal", terminal),
    ("identity_of_the_process", identity),
    ("init_reaps", init_reaps),
    ("namespaces_are_shared_on_request", shared_namespaces),
    ("hostname_and_friends", hostname),
];

fn run_returns_the_status(engine: &Engine) {
    engine.run(&[], &["echo", "hi"]).succeeds().prints("hi\n");
    engine.shell(&[], "exit 42").exits(42);
    // The first process of a pid namespace does not get its own signals without a handler.
    engine.shell(&[], "kill -TERM $$; exit 2").exits(2);
    engine
        .shell(&[], "exec sh -c 'sleep 0.01; exit 255'")
        .exits(255);
}

fn unexecutable(engine: &Engine) {
    let rows = [
        ("nosuchcmd", 127, "executable file not found in $PATH"),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "permission denied"),
    ];
    for (program, code, text) in rows {
        let outcome = engine.run(&[], &[program]);
        match engine.kind() {
            Kind::Docker => outcome.exits(code).says(text).says(program),
            Kind::Podman => outcome.exits(code).says(program),
        };
    }
}

fn exec_returns_the_status(engine: &Engine) {
    let running = engine.sleeper(&[]);
    running.shell(&[], "exit 7").exits(7);
    running.shell(&[], "kill -KILL $$").exits(137);
    running.exec(&[], &["true"]).succeeds().prints("");
    running
        .exec(&["--detach"], &["sh", "-c", "echo left >/tmp/left"])
        .succeeds();
    running
        .shell(&[], "until cat /tmp/left; do :; done 2>/dev/null")
        .succeeds()
        .prints("left\n");
}

fn unexecutable_exec(engine: &Engine) {
    let running = engine.sleeper(&[]);
    let rows = [
        ("nosuchcmd", 127, "executable file not found in $PATH"),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
    ];
    for (program, code, text) in rows {
        let outcome = running.exec(&[], &[program]);
        match engine.kind() {
            Kind::Docker => {
                let said = format!("{}{}", outcome.stdout(), outcome.stderr());
                assert!(said.contains(text), "{text:?} is not in {said:?}");
                assert!(
                    [code, 126].contains(&outcome.code()),
                    "{program}: {}",
                    outcome.code()
                );
            }
            Kind::Podman => {
                outcome.exits(code);
            }
        }
    }
    running.exec(&[], &["true"]).succeeds();
}

fn exec_options(engine: &Engine) {
    let running = engine.sleeper(&["--env=OUTER=1"]);
    let options = ["--user=guest", "--workdir=/www", "--env=INNER=2"];
    running
        .shell(
            &options,
            "id -u; id -g; pwd; echo $OUTER $INNER $FROM_IMAGE",
        )
        .succeeds()
        .prints("1000\n1000\n/www\n1 2 yes\n");
    running
        .exec(&["--user=7:8"], &["id", "-G"])
        .succeeds()
        .prints("8\n");
}

fn streams(engine: &Engine) {
    engine
        .shell(&[], "echo out; echo err >&2")
        .succeeds()
        .prints("out\n")
        .says("err");
    let file = engine.sandbox().directory().join("input");
    std::fs::write(&file, "ice\n".repeat(250_000)).unwrap();
    let mut client = engine.client();
    client
        .args(["run", "--rm", "--interactive"])
        .args(engine.options(&[]))
        .args([IMAGE, "wc", "-c"]);
    client.stdin(std::fs::File::open(&file).unwrap());
    engine
        .sandbox()
        .outcome(&mut client)
        .succeeds()
        .prints("1000000\n");

    let running = engine.start(
        &[],
        "echo two >&2; sleep 0.5; echo one; echo three; sleep 1000",
    );
    running.logs("three");
    running
        .call(&["logs"])
        .succeeds()
        .prints("one\nthree\n")
        .says("two");
    running
        .call(&["logs", "--tail=1"])
        .succeeds()
        .prints("three\n");
}

fn terminal(engine: &Engine) {
    engine
        .shell(
            &["--tty"],
            "tty; test -t 0 && test -t 1 && test -t 2 && echo all; ls -l /dev/console",
        )
        .succeeds()
        .prints_line("/dev/pts/0")
        .prints_line("all");
    engine.shell(&["--tty"], "exit 9").exits(9);
    let running = engine.sleeper(&[]);
    running
        .shell(&["--tty"], "tty; exit 4")
        .exits(4)
        .prints_line("/dev/pts/0");
    let running = engine.start(&["--tty"], "stty size; echo ready; sleep 1000");
    running.logs("ready");
    running
        .exec(&["--tty"], &["tty"])
        .succeeds()
        .prints_line("/dev/pts/1");
}

fn identity(engine: &Engine) {
    let script = "id -u; id -g; id -G; pwd; echo $HOME";
    let guest = ["--user=guest", "--group-add=10", "--workdir=/data"];
    engine
        .shell(&guest, script)
        .succeeds()
        .prints("1000\n1000\n1000 10\n/data\n/home/guest\n");
    engine
        .run(&["--user=12345:54321"], &["id", "-u"])
        .succeeds()
        .prints("12345\n");
    engine
        .run(&["--entrypoint=/bin/echo"], &["a b", "c"])
        .succeeds()
        .prints("a b c\n");
    if engine.kind() == Kind::Docker {
        engine
            .run(&["--workdir=/made/for/it"], &["pwd"])
            .succeeds()
            .prints("/made/for/it\n");
    }
    engine
        .shell(&["--oom-score-adj=555"], "cat /proc/1/oom_score_adj")
        .succeeds()
        .prints("555\n");
}

fn init_reaps(engine: &Engine) {
    let script = "sh -c 'sleep 0.1 & exec true'; sleep 0.5; cat /proc/1/comm; grep -l zombie /proc/*/status || echo none";
    let tini = host::program("tini-static").expect("tini-static, which docker.io depends on");
    let path = format!("--init-path={}", tini.display());
    let options = match engine.kind() {
        Kind::Docker => vec!["--init"],
        // Its own, catatonit, is a package that it only recommends.
        Kind::Podman => vec!["--init", &path],
    };
    let outcome = engine
        .shell(&options, script)
        .succeeds()
        .prints_line("none");
    assert!(
        outcome.stdout().contains("init") || outcome.stdout().contains("tini"),
        "{}",
        outcome.stdout()
    );
}

fn shared_namespaces(engine: &Engine) {
    let first = engine.sleeper(&["--ipc=shareable", "--hostname=first"]);
    first.shell(&[], "echo seen >/dev/shm/note").succeeds();
    let of = |kind: &str| format!("--{kind}=container:{}", first.name());
    engine
        .run(&[&of("ipc")], &["cat", "/dev/shm/note"])
        .succeeds()
        .prints("seen\n");
    engine
        .shell(&[&of("pid")], "tr '\\0' ' ' </proc/1/cmdline")
        .succeeds()
        .prints_line("sh -c trap 'exit 15' TERM; while :; do sleep 1000 & wait; done ");
    let same = engine
        .run(&[&of("network")], &["readlink", "/proc/self/ns/net"])
        .succeeds();
    first
        .exec(&[], &["readlink", "/proc/self/ns/net"])
        .succeeds()
        .prints(&same.stdout());
    for kind in ["pid", "uts", "ipc"] {
        let option = format!("--{kind}=host");
        let link = format!("/proc/self/ns/{kind}");
        let own = engine
            .sandbox()
            .shell(&format!("readlink {link}"))
            .succeeds();
        engine
            .run(&[&option], &["readlink", &link])
            .succeeds()
            .prints(&own.stdout());
    }
}

fn hostname(engine: &Engine) {
    let options = [
        "--hostname=berg",
        "--add-host=other:10.1.2.3",
        "--shm-size=3m",
        "--network=bridge",
    ];
    let script = "hostname; grep -c other /etc/hosts; df -k /dev/shm | tail -n 1 | awk '{print $2}'; wc -l </etc/resolv.conf | tr -d ' ' | grep -c .";
    engine
        .shell(&options, script)
        .succeeds()
        .prints("berg\n1\n3072\n1\n");
}
