//! `process`: who runs, with what rights, limits and priorities, and how it ends.

use serde_json::{Value, json};
use tests::{Bundle, Container};

fn run(bundle: Bundle) -> String {
    Container::new(bundle).run().succeeds().stdout()
}

#[test]
fn the_user_is_as_asked() {
    let bundle = Bundle::new()
        .args(["id", "--", "umask", "--", "pwd", "--", "status", "Groups"])
        .set("/process/user", json!({"uid": 12, "gid": 34, "additionalGids": [56, 78], "umask": 0o27}))
        .set("/process/cwd", "/tmp");
    let printed = run(bundle);
    assert!(printed.starts_with("uid=12 gid=34 groups="), "{printed}");
    assert!(printed.contains("Umask=0027\n/tmp\n"), "{printed}");
    assert!(printed.trim_end().ends_with("Groups=56 78"), "{printed}");
}

#[test]
fn a_missing_directory_is_made() {
    let bundle = Bundle::new().args(["pwd"]).set("/process/cwd", "/made/for/it");
    assert_eq!(run(bundle), "/made/for/it\n");
}

/// A directory that root may not enter for want of a capability, but the user may.
#[test]
fn a_private_directory_of_the_user_can_be_the_cwd() {
    use std::os::unix::fs::PermissionsExt as _;
    let bundle = Bundle::new()
        .args(["pwd"])
        .set("/process/user", json!({"uid": 12, "gid": 34}))
        .set("/process/cwd", "/private");
    let path = bundle.rootfs().join("private");
    std::fs::create_dir(&path).expect("a directory");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    std::os::unix::fs::chown(&path, Some(12), Some(34)).expect("chown");
    assert_eq!(run(bundle), "/private\n");
}

/// A directory that no capability opens, for its owner is not mapped: its group may enter.
#[test]
fn a_directory_that_root_may_not_enter_can_be_the_cwd() {
    use std::os::unix::fs::PermissionsExt as _;
    let within = |gid: u32| {
        let bundle = Bundle::new()
            .args(["pwd"])
            .user_namespace(300_000)
            .set("/process/user", json!({"uid": 12, "gid": gid}))
            .set("/process/cwd", "/groups");
        let path = bundle.rootfs().join("groups");
        std::fs::create_dir(&path).expect("a directory");
        std::os::unix::fs::chown(&path, Some(0), Some(300_034)).expect("chown");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o070)).expect("chmod");
        Container::new(bundle).run()
    };
    within(34).succeeds().prints("/groups\n");
    within(35).fails().says("/groups").says("permission denied");
}

#[test]
fn the_environment_is_as_asked_and_has_a_home() {
    let bundle = Bundle::new()
        .args(["env"])
        .file("/etc/passwd", "root:x:0:0:root:/the/home:/bin/sh\n")
        .env("A=1")
        .env("B=x=y");
    let container = Container::new(bundle);
    let mut command = container.command(["run", "--bundle"]);
    command.arg(container.bundle().path()).arg(container.id()).env("LEAK", "1");
    let outcome = container.outcome(&mut command).succeeds();
    let outcome = outcome.prints_line("A=1").prints_line("B=x=y").prints_line("HOME=/the/home");
    assert!(!outcome.stdout().contains("LEAK"));
}

/// The child's own status, and 128 + N for a signal.
#[test]
fn run_returns_how_the_process_ended() {
    for (args, code) in [(["exit", "0", "--"], 0), (["exit", "42", "--"], 42), (["kill", "1", "15"], 0)] {
        let outcome = Container::new(Bundle::new().args(args)).run();
        // Process 1 of a pid namespace ignores signals that it has no handler for.
        outcome.exits(code);
    }
    let shared = Bundle::new().args(["kill", "0", "9"]);
    drop(shared);
    let container = Container::new(Bundle::new().args(["sleep", "1000"]));
    let mut child = container
        .command(["run", "--bundle"])
        .arg(container.bundle().path())
        .arg(container.id())
        .spawn()
        .expect("the runtime");
    tests::wait_until("it runs", || {
        container.call(["state", container.id()]).stdout().contains("running")
    });
    container.kill("KILL").succeeds();
    assert_eq!(child.wait().expect("wait").code(), Some(137));
}

/// Engines tell 127 from 126 by these texts.
#[test]
fn a_program_that_cannot_run_is_told_in_the_words_that_engines_match() {
    tests::differs!("runc says \"permission denied\" of a directory");
    let not_executable = Bundle::new().file("/etc/text", "x");
    for (bundle, program, text) in [
        (Bundle::new(), "nosuchcmd", "executable file not found in $PATH"),
        (Bundle::new(), "/nosuch/cmd", "no such file or directory"),
        (not_executable, "/etc/text", "permission denied"),
        (Bundle::new(), "/tmp", "directory"),
    ] {
        let bundle = bundle.set("/process/args", json!([program]));
        let container = Container::new(bundle);
        container.run().exits(1).says(text).says(program);
        container.call(["state", container.id()]).fails().says("does not exist");
    }
}

#[test]
fn limits_are_set_exactly() {
    let bundle = Bundle::new().args(["limits"]).set(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_STACK", "soft": 65536, "hard": 131_072},
        ]),
    );
    let printed = run(bundle);
    for (name, soft, hard) in [
        ("Max open files", "100", "200"),
        ("Max core file size", "0", "0"),
        ("Max stack size", "65536", "131072"),
    ] {
        let line = printed.lines().find_map(|line| line.strip_prefix(name));
        let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        assert_eq!(words[..2], [soft, hard], "{name}");
    }
}

/// Raising a limit takes CAP_SYS_RESOURCE; the error names the field.
#[test]
fn a_limit_that_cannot_be_raised_is_named() {
    let hard = sys::process::limit(None, 7, None).expect("RLIMIT_NOFILE").hard;
    let wanted = json!([{"type": "RLIMIT_NOFILE", "soft": hard + 1, "hard": hard + 1}]);
    let bundle = Bundle::new().set("/process/rlimits", wanted);
    let container = Container::new(bundle);
    if tests::host::may(tests::host::CAP_SYS_RESOURCE) {
        container.run().succeeds();
        return;
    }
    let outcome = container.run().exits(1).says("operation not permitted");
    if container.runtime().is_floe() {
        outcome.says("process.rlimits: raise `RLIMIT_NOFILE`");
    }
}

fn sets(bundle: Bundle, sets: &[(&str, &[&str])]) -> Bundle {
    let capabilities: serde_json::Map<String, Value> = sets
        .iter()
        .map(|(set, names)| ((*set).to_owned(), json!(names)))
        .collect();
    bundle.set("/process/capabilities", capabilities)
}

#[test]
fn capabilities_are_those_asked_for() {
    let kill_and_chown: &[&str] = &["CAP_KILL", "CAP_CHOWN"];
    let bundle = sets(
        Bundle::new().args(["caps"]),
        &[
            ("bounding", kill_and_chown),
            ("permitted", kill_and_chown),
            ("effective", &["CAP_KILL"]),
        ],
    );
    let printed = run(bundle);
    // An exec by root raises what the bounding set allows.
    let wanted = "CapInh=0000000000000000\nCapPrm=0000000000000021\nCapEff=0000000000000021\n\
                  CapBnd=0000000000000021\nCapAmb=0000000000000000\n";
    assert_eq!(printed, wanted);
    assert!(run(sets(Bundle::new().args(["caps"]), &[])).contains("CapBnd=0000000000000000"));
}

#[test]
fn ambient_capabilities_reach_an_ordinary_user() {
    let bind: &[&str] = &["CAP_NET_BIND_SERVICE"];
    for (ambient, effective) in [(bind, "400"), (&[], "000")] {
        let bundle = sets(
            Bundle::new()
                .args(["caps"])
                .set("/process/user", json!({"uid": 5, "gid": 5})),
            &[
                ("bounding", bind),
                ("permitted", bind),
                ("effective", bind),
                ("inheritable", bind),
                ("ambient", ambient),
            ],
        );
        let printed = run(bundle);
        let line = printed.lines().find(|line| line.starts_with("CapEff")).expect("CapEff");
        assert!(line.ends_with(effective), "{printed}");
    }
}

#[test]
fn what_the_runtime_lacks_is_left_out_with_a_warning() {
    if tests::host::may(tests::host::CAP_SYS_RESOURCE) {
        tests::elsewhere!("the runtime holds every capability");
    }
    let names: &[&str] = &["CAP_KILL", "CAP_SYS_RESOURCE"];
    let bundle = sets(
        Bundle::new().args(["status", "CapEff"]),
        &[("bounding", names), ("permitted", names), ("effective", names)],
    );
    let container = Container::new(bundle);
    if !container.runtime().is_floe() {
        tests::elsewhere!("runc refuses capabilities that it lacks");
    }
    let log = container.bundle().directory().join("log");
    let mut command = container.command(["--log-format=json", "--log"]);
    command.arg(&log).args(["run", "--bundle"]);
    command.arg(container.bundle().path()).arg(container.id());
    container.outcome(&mut command).succeeds().prints("CapEff=0000000000000020\n");
    let log = std::fs::read_to_string(log).expect("the log");
    assert!(log.contains("CAP_SYS_RESOURCE") && log.contains("warning"), "{log}");
}

#[test]
fn an_unknown_capability_is_no_error() {
    let bundle = Bundle::new().push("/process/capabilities/bounding", "CAP_OF_THE_FUTURE");
    Container::new(bundle).run().succeeds();
}

#[test]
fn no_new_privileges_is_as_asked() {
    for (wanted, line) in [(true, "NoNewPrivs=1\n"), (false, "NoNewPrivs=0\n")] {
        let bundle = Bundle::new()
            .args(["status", "NoNewPrivs"])
            .set("/process/noNewPrivileges", wanted);
        assert_eq!(run(bundle), line);
    }
}

#[test]
fn the_oom_score_is_as_asked() {
    let bundle = Bundle::new()
        .args(["cat", "/proc/self/oom_score_adj"])
        .set("/process/oomScoreAdj", 321);
    assert_eq!(run(bundle), "321\n");
}

#[test]
fn the_scheduler_is_as_asked() {
    tests::differs!("runc 1.1 has no scheduler");
    for (scheduler, printed) in [
        (json!({"policy": "SCHED_BATCH", "nice": 7}), "policy=3 nice=7 priority=0\n"),
        (json!({"policy": "SCHED_IDLE"}), "policy=5 nice=0 priority=0\n"),
        (json!({"policy": "SCHED_OTHER", "nice": -5}), "policy=0 nice=-5 priority=0\n"),
        (json!({"policy": "SCHED_RR", "priority": 4}), "policy=2 nice=0 priority=4\n"),
    ] {
        let real_time = scheduler["policy"] == "SCHED_RR";
        let bundle = Bundle::new()
            .args(["scheduling"])
            .set("/process/scheduler", scheduler);
        let container = Container::new(bundle);
        let outcome = container.run();
        // Groups without a share of real time refuse it, and some kernels divide it (v1).
        if real_time && outcome.code() != 0 {
            outcome.says("operation not permitted");
            continue;
        }
        outcome.succeeds().prints(printed);
    }
    let bundle = Bundle::new().set("/process/scheduler", json!({"policy": "SCHED_MOON"}));
    Container::new(bundle).run().fails();
}

#[test]
fn the_io_priority_is_as_asked() {
    tests::differs!("runc 1.1 has no I/O priority");
    let bundle = Bundle::new()
        .args(["sleep", "1000"])
        .set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
    let container = Container::new(bundle);
    container.create().succeeds();
    container.start().succeeds();
    let output = std::process::Command::new("ionice")
        .args(["-p", &container.pid().to_string()])
        .output()
        .expect("ionice");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "best-effort: prio 6");
}

#[test]
fn the_memory_policy_is_as_asked() {
    if !tests::host::has("/proc/self/numa_maps") {
        tests::elsewhere!("the kernel has no memory policies");
    }
    let bundle = Bundle::new()
        .args(["cat", "/proc/self/numa_maps"])
        .set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0"}));
    let container = Container::new(bundle);
    let printed = container.run().succeeds().stdout();
    let policies: Vec<&str> = printed.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    if !container.runtime().is_floe() && policies.contains(&"default") {
        tests::elsewhere!("this runc knows no memory policy");
    }
    assert!(!policies.is_empty() && policies.iter().all(|policy| *policy == "bind:0"), "{printed}");
}

#[test]
fn a_32_bit_personality_shows_another_machine() {
    let bundle = Bundle::new()
        .args(["machine"])
        .set("/linux/personality", json!({"domain": "LINUX32"}));
    if !cfg!(target_arch = "x86_64") {
        tests::elsewhere!("only x86_64 has an older self");
    }
    let container = Container::new(bundle);
    let outcome = container.run().succeeds();
    if !container.runtime().is_floe() && outcome.stdout() == "x86_64\n" {
        tests::elsewhere!("this runc knows no personality");
    }
    outcome.prints("i686\n");
}

#[test]
fn resctrl_is_refused_in_one_line() {
    let bundle = Bundle::new().set("/linux/intelRdt", json!({"l3CacheSchema": "L3:0=f"}));
    let container = Container::new(bundle);
    let outcome = container.run().fails();
    if container.runtime().is_floe() {
        let outcome = outcome.says("linux.intelRdt");
        assert_eq!(outcome.stderr().lines().count(), 1);
    }
}

#[test]
fn sysctls_are_set() {
    let bundle = Bundle::new()
        .args(["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "--", "cat", "/proc/sys/kernel/msgmax"])
        .set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "99", "kernel.msgmax": "16384"}));
    assert_eq!(run(bundle), "99\n16384\n");
    for name in ["kernel.panic", "vm.swappiness"] {
        let bundle = Bundle::new().set("/linux/sysctl", json!({name: "1"}));
        Container::new(bundle).run().fails().says(name);
    }
}

#[test]
fn masked_paths_cannot_be_read_and_others_not_written() {
    let bundle = Bundle::new()
        .args([
            "cat", "/secret/file", "--", "list", "/hidden", "--", "try", "touch", "/hidden/x",
            "--", "cat", "/fixed/file", "--", "try", "write", "/fixed/file", "y", "--", "try",
            "write", "/proc/sys/kernel/domainname", "x", "--", "stat", "/secret/file",
        ])
        .file("/secret/file", "secret\n")
        .file("/hidden/file", "secret\n")
        .file("/fixed/file", "fixed\n")
        .set("/linux/maskedPaths", json!(["/secret/file", "/hidden", "/not/there"]))
        .set("/linux/readonlyPaths", json!(["/fixed", "/proc/sys", "/not/there/either"]));
    let printed = run(bundle);
    assert!(printed.starts_with("EROFS\nfixed\nEROFS\nEROFS\nchar 666 "), "{printed}");
    assert!(printed.ends_with(" 1:3\n"), "no null device: {printed}");
}

/// Labels for a security module that the kernel does not run are let pass, as engines give them to
/// every host.
#[test]
fn labels_without_their_module_are_ignored() {
    let apparmor = tests::host::has("/sys/kernel/security/apparmor");
    let bundle = Bundle::new().set("/process/selinuxLabel", "system_u:system_r:container_t:s0");
    let bundle = if apparmor {
        bundle
    } else {
        bundle.set("/process/apparmorProfile", "no-such-profile")
    };
    let container = Container::new(bundle);
    if !container.runtime().is_floe() {
        tests::elsewhere!("runc refuses labels of a module that is off");
    }
    container.run().succeeds();
}

#[test]
fn an_apparmor_profile_is_applied() {
    if std::fs::read("/sys/module/apparmor/parameters/enabled").ok().as_deref() != Some(b"Y\n") {
        tests::elsewhere!("the kernel runs no AppArmor");
    }
    // A profile in complain mode needs no rules; without its module's tools none can be loaded.
    let bundle = Bundle::new().set("/process/apparmorProfile", "no-such-profile");
    let outcome = Container::new(bundle).run().exits(1);
    outcome.says("apparmor").says("no-such-profile");
    let bundle = Bundle::new()
        .args(["cat", "/proc/self/attr/current"])
        .set("/process/apparmorProfile", "unconfined");
    Container::new(bundle).run().succeeds().prints("unconfined\n");
}

/// CVE-2025-52881: a container puts a file where the profile is to be written. The kernel must get
/// it all the same, and refuses this one. Fails where the label is written through the container's
/// `/proc`.
#[test]
fn a_profile_goes_to_the_kernel_whatever_lies_on_proc() {
    if std::fs::read("/sys/module/apparmor/parameters/enabled").ok().as_deref() != Some(b"Y\n") {
        tests::elsewhere!("the kernel runs no AppArmor");
    }
    let fake = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec", "/proc/thread-self/attr/exec"];
    let bundle = Bundle::new()
        .args([
            "mount", "tmpfs", "tmpfs", "/proc", "--", "mkdir", "/proc/self", "--", "mkdir", "/proc/self/attr",
            "--", "mkdir", "/proc/self/attr/apparmor", "--", "symlink", "self", "/proc/thread-self",
            "--", "write", fake[0], "kept", "--", "write", fake[1], "kept", "--", "touch", "/tmp/ready",
            "--", "sleep", "1000",
        ])
        .push("/process/capabilities/bounding", "CAP_SYS_ADMIN")
        .push("/process/capabilities/effective", "CAP_SYS_ADMIN")
        .push("/process/capabilities/permitted", "CAP_SYS_ADMIN");
    let container = Container::new(bundle);
    container.create().succeeds();
    container.start().succeeds();
    let ready = container.bundle().rootfs().join("tmp/ready");
    tests::wait_until("the trap is set", || ready.exists());
    let exec = |profile: &str, words: &[&str]| {
        let mut args = vec!["exec", "--apparmor", profile, container.id(), "/payload"];
        args.extend(words);
        container.call(args)
    };
    exec("no-such-profile", &["true"]).fails().says("apparmor");
    for path in fake {
        exec("unconfined", &["cat", path]).succeeds().prints("kept");
    }
}
