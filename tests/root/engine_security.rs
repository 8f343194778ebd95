//! Cases for Docker and Podman: what keeps a container in.

use tests::engine::{Case, Engine, Kind};
use tests::{Runtime, host};

pub(crate) const CASES: &[Case<Engine>] = &[
    ("capabilities", capabilities),
    ("seccomp_default_profile", seccomp),
    ("seccomp_profile_of_the_user", seccomp_profile),
    ("no_new_privileges", no_new_privileges),
    ("read_only_root", read_only),
    ("masked_and_read_only_paths", masked),
    ("privileged", privileged),
];

fn status_line(engine: &Engine, options: &[&str], field: &str) -> String {
    let script = format!("grep {field}: /proc/self/status | cut -f 2");
    engine
        .shell(options, &script)
        .succeeds()
        .stdout()
        .trim()
        .to_owned()
}

fn capabilities(engine: &Engine) {
    let set = |options: &[&str], field: &str| status_line(engine, options, field);
    // Debian's podman grants the fourteen that docker does, the project's own eleven.
    let defaults = ["00000000a80425fb", "00000000800405fb"];
    assert!(
        defaults.contains(&set(&[], "CapEff").as_str()),
        "{}",
        set(&[], "CapEff")
    );
    assert_eq!(set(&[], "CapEff"), set(&[], "CapBnd"));
    let narrow = [
        "--cap-drop=ALL",
        "--cap-add=NET_BIND_SERVICE",
        "--cap-add=SYS_PTRACE",
    ];
    assert_eq!(set(&narrow, "CapEff"), "0000000000080400");
    assert_eq!(set(&narrow, "CapBnd"), "0000000000080400");
    assert_eq!(set(&["--cap-drop=ALL"], "CapPrm"), "0000000000000000");
    assert_eq!(set(&["--user=guest"], "CapEff"), "0000000000000000");
    let outcome = engine
        .shell(&["--cap-drop=CHOWN"], "chown guest /tmp")
        .fails();
    assert!(
        outcome.stderr().contains("not permitted"),
        "{}",
        outcome.stderr()
    );
    let running = engine.sleeper(&["--cap-drop=ALL"]);
    let script = "grep CapEff: /proc/self/status | cut -f 2";
    running
        .shell(&[], script)
        .succeeds()
        .prints("0000000000000000\n");
}

fn seccomp(engine: &Engine) {
    assert_eq!(status_line(engine, &[], "Seccomp"), "2");
    let unconfined = ["--security-opt=seccomp=unconfined"];
    assert_eq!(status_line(engine, &unconfined, "Seccomp"), "0");
    if engine.kind() == Kind::Docker {
        // Its profile lets nobody make a user namespace without CAP_SYS_ADMIN; the kernel would.
        engine.shell(&["--user=guest"], "unshare -r true").fails();
    }
    engine
        .shell(&["--user=guest", unconfined[0]], "unshare -r true")
        .succeeds();
    let running = engine.sleeper(&[]);
    running
        .shell(&[], "grep Seccomp: /proc/self/status")
        .succeeds()
        .prints("Seccomp:\t2\n");
}

fn seccomp_profile(engine: &Engine) {
    let profile = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 36},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
             "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}
        ]
    }"#;
    // The client reads Docker's, the engine itself Podman's: both do so inside the sandbox.
    let path = engine.sandbox().path("profile.json");
    engine.sandbox().write(&path, profile);
    let option = format!("--security-opt=seccomp={path}");
    let script = "mkdir /tmp/x; kill -10 $$; kill -0 $$ && echo other signals pass";
    let outcome = engine
        .shell(&[&option], script)
        .succeeds()
        .prints("other signals pass\n");
    assert!(
        outcome.stderr().contains("too long"),
        "{}",
        outcome.stderr()
    );
    assert!(
        outcome.stderr().contains("not permitted"),
        "{}",
        outcome.stderr()
    );
}

fn no_new_privileges(engine: &Engine) {
    assert_eq!(status_line(engine, &[], "NoNewPrivs"), "0");
    let option = ["--security-opt=no-new-privileges"];
    assert_eq!(status_line(engine, &option, "NoNewPrivs"), "1");
    let running = engine.sleeper(&option);
    running
        .shell(&[], "grep NoNewPrivs: /proc/self/status")
        .succeeds()
        .prints("NoNewPrivs:\t1\n");
}

fn read_only(engine: &Engine) {
    let outcome = engine.shell(&["--read-only"], "touch /x").fails();
    assert!(
        outcome.stderr().contains("Read-only file system"),
        "{}",
        outcome.stderr()
    );
    engine
        .shell(
            &["--read-only", "--tmpfs=/scratch:size=1m,mode=1777"],
            "touch /scratch/x && df -k /scratch | tail -n 1 | awk '{print $2}'",
        )
        .succeeds()
        .prints("1024\n");
    engine
        .shell(
            &["--read-only", "--volume=writable:/data"],
            "touch /data/x && ls /data",
        )
        .succeeds()
        .prints("seed\nx\n");
}

fn masked(engine: &Engine) {
    // A masked file reads as empty, a masked directory has no entries.
    let script = "cat /proc/timer_list /proc/keys; ls /sys/firmware; echo 1 >/proc/sys/kernel/panic || mount -o remount,rw /proc/sys";
    let outcome = engine.shell(&[], script).fails().prints("");
    assert!(
        outcome
            .stderr()
            .contains("/proc/sys/kernel/panic: Read-only file system"),
        "{}",
        outcome.stderr()
    );
}

fn privileged(engine: &Engine) {
    if !host::may(host::CAP_SYS_RESOURCE) && !Runtime::default().is_floe() {
        // All capabilities means this one too, and the caller does not have it: peers refuse.
        return;
    }
    let script = "mount -t tmpfs tmpfs /tmp && grep Seccomp: /proc/self/status";
    engine
        .shell(&["--privileged"], script)
        .succeeds()
        .prints("Seccomp:\t0\n");
}
