//! Cases for Docker and Podman: limits as the kernel has them, and what happens at them.

use tests::engine::{Case, Engine, Kind, Limit, unmounted_hierarchy};
use tests::host::{self, Layout};
use tests::skip;

pub(crate) const CASES: &[Case<Engine>] = &[
    ("limits_are_in_the_group", limits),
    ("update_changes_the_group", update),
    ("out_of_memory_is_137", out_of_memory),
    ("pids_limit_refuses_a_fork", pids_limit),
    ("ulimits", ulimits),
    ("sysctls", sysctls),
    ("devices", devices),
];

const fn memory(bytes: &'static str) -> Limit {
    Limit {
        controller: "memory",
        v1: ("memory.limit_in_bytes", bytes),
        v2: ("memory.max", bytes),
    }
}

const fn pids(number: &'static str) -> Limit {
    Limit {
        controller: "pids",
        v1: ("pids.max", number),
        v2: ("pids.max", number),
    }
}

const fn quota(microseconds: &'static str, v2: &'static str) -> Limit {
    Limit {
        controller: "cpu",
        v1: ("cpu.cfs_quota_us", microseconds),
        v2: ("cpu.max", v2),
    }
}

fn limits(engine: &Engine) {
    let container = engine.sleeper(&[
        "--memory=64m",
        "--memory-swap=96m",
        "--memory-reservation=32m",
        "--pids-limit=77",
        "--cpus=0.5",
        "--cpuset-cpus=0",
    ]);
    container.has(&[
        memory("67108864"),
        Limit {
            controller: "memory",
            v1: ("memory.memsw.limit_in_bytes", "100663296"),
            v2: ("memory.swap.max", "33554432"),
        },
        Limit {
            controller: "memory",
            v1: ("memory.soft_limit_in_bytes", "33554432"),
            v2: ("memory.low", "33554432"),
        },
        pids("77"),
        quota("50000", "50000 100000"),
        Limit {
            controller: "cpuset",
            v1: ("cpuset.cpus", "0"),
            v2: ("cpuset.cpus", "0"),
        },
    ]);
    container
        .shell(&[], "grep Cpus_allowed_list /proc/self/status")
        .succeeds()
        .prints("Cpus_allowed_list:\t0\n");
    if host::layout() != Layout::V2 {
        let shares = engine.sleeper(&["--cpu-shares=555"]);
        shares.has(&[Limit {
            controller: "cpu",
            v1: ("cpu.shares", "555"),
            v2: ("cpu.weight", ""),
        }]);
    }
}

fn update(engine: &Engine) {
    let container = engine.sleeper(&["--memory=64m", "--memory-swap=64m", "--cpus=0.5"]);
    let options: &[&str] = match engine.kind() {
        Kind::Docker => &[
            "update",
            "--memory=128m",
            "--memory-swap=128m",
            "--cpus=1.5",
            "--pids-limit=55",
            "--cpuset-cpus=0",
        ],
        // Podman 4.3 takes no `--pids-limit` here.
        Kind::Podman => &[
            "update",
            "--memory=128m",
            "--memory-swap=128m",
            "--cpus=1.5",
            "--cpuset-cpus=0",
        ],
    };
    container.call(options).succeeds();
    container.has(&[
        memory("134217728"),
        quota("150000", "150000 100000"),
        Limit {
            controller: "cpuset",
            v1: ("cpuset.cpus", "0"),
            v2: ("cpuset.cpus", "0"),
        },
    ]);
    if engine.kind() == Kind::Docker {
        container.has(&[pids("55")]);
    }
}

fn out_of_memory(engine: &Engine) {
    let container = engine.start(
        &["--memory=16m", "--memory-swap=16m"],
        "exec tail /dev/zero",
    );
    container.call(&["wait"]).succeeds().prints("137\n");
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "137");
    if engine.kind() == Kind::Docker {
        if let Some(name) = unmounted_hierarchy() {
            skip!("containerd reads no group while the hierarchy `{name}` is mounted nowhere");
        }
        assert_eq!(container.inspect("{{.State.OOMKilled}}"), "true");
    }
}

fn pids_limit(engine: &Engine) {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all of them";
    let outcome = engine.shell(&["--pids-limit=5"], script).fails();
    assert!(outcome.stderr().contains("fork"), "{}", outcome.stderr());
}

fn ulimits(engine: &Engine) {
    let options = [
        "--ulimit=nofile=100:200",
        "--ulimit=core=0:0",
        "--ulimit=nproc=500:600",
    ];
    let script =
        "ulimit -Sn; ulimit -Hn; ulimit -c; grep 'Max processes' /proc/self/limits | tr -s ' '";
    engine
        .shell(&options, script)
        .succeeds()
        .prints("100\n200\n0\nMax processes 500 600 processes \n");
}

fn sysctls(engine: &Engine) {
    let options = [
        "--sysctl=net.core.somaxconn=333",
        "--sysctl=kernel.shm_rmid_forced=1",
        "--network=bridge",
    ];
    let files = [
        "/proc/sys/net/core/somaxconn",
        "/proc/sys/kernel/shm_rmid_forced",
    ];
    engine
        .run(&options, &["cat", files[0], files[1]])
        .succeeds()
        .prints("333\n1\n");
}

fn devices(engine: &Engine) {
    let script = "echo >/dev/null && head -c 1 /dev/zero | wc -c && mknod /tmp/fuse c 10 229 && cat /tmp/fuse";
    let outcome = engine.shell(&["--cap-add=MKNOD"], script).fails();
    assert!(
        outcome.stderr().contains("not permitted"),
        "{}",
        outcome.stderr()
    );
    if !host::has("/dev/fuse") {
        return;
    }
    let option = "--device=/dev/fuse:/dev/other:r";
    engine
        .shell(
            &[option],
            "test -c /dev/other && : </dev/other && echo read",
        )
        .succeeds()
        .prints("read\n");
    let outcome = engine.shell(&[option], ": >/dev/other").fails();
    assert!(
        outcome.stderr().contains("not permitted"),
        "{}",
        outcome.stderr()
    );
}
