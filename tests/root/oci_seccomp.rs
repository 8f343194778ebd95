//! `linux.seccomp` through a container.

use serde_json::{Value, json};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use tests::{Bundle, Container};

fn allow_but(rules: &Value) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn filtered(bundle: Bundle, seccomp: Value) -> Container {
    Container::new(bundle.set("/linux/seccomp", seccomp))
}

#[test]
fn a_call_fails_with_the_number_asked_for() {
    for (errno, printed) in [(Some(13), "EACCES\n"), (Some(38), "ENOSYS\n"), (None, "EPERM\n")] {
        let mut rule = json!({"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO"});
        if let Some(errno) = errno {
            rule["errnoRet"] = json!(errno);
        }
        let bundle = Bundle::new().args(["try", "mkdir", "/tmp/x"]);
        filtered(bundle, allow_but(&json!([rule]))).run().succeeds().prints(printed);
    }
}

/// With and without no_new_privs, which decides when the filter is loaded.
#[test]
fn the_filter_holds_with_and_without_no_new_privileges() {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    for no_new_privileges in [true, false] {
        let bundle = Bundle::new()
            .args(["status", "Seccomp", "--", "try", "mkdir", "/tmp/x"])
            .set("/process/noNewPrivileges", no_new_privileges);
        filtered(bundle, allow_but(&rule)).run().succeeds().prints("Seccomp=2\nEPERM\n");
    }
}

/// Loaded last: even a filter that forbids what the runtime does before exec lets the program run.
#[test]
fn the_filter_does_not_hinder_the_runtime() {
    tests::differs!("runc opens its fifo under the filter");
    let rule = json!([{
        "names": ["getcwd", "chdir", "close_range", "fchdir", "rt_sigprocmask", "capset", "setresuid",
                  "setresgid", "setgroups", "prctl", "sendmsg", "umask", "openat", "fcntl"],
        "action": "SCMP_ACT_ERRNO"
    }]);
    let bundle = Bundle::new().args(["echo", "here"]);
    filtered(bundle, allow_but(&rule)).run().succeeds().prints("here\n");
}

#[test]
fn a_killing_call_ends_the_process() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let rule = json!([{"names": ["mkdir", "mkdirat"], "action": action}]);
        let bundle = Bundle::new().args(["echo", "before", "--", "mkdir", "/tmp/x"]);
        // 128 + SIGSYS
        filtered(bundle, allow_but(&rule)).run().exits(159).prints("before\n");
    }
}

#[test]
fn a_logged_call_goes_through() {
    tests::differs!("runc 1.1 has no flags");
    let mut seccomp = allow_but(&json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_LOG"}]));
    for flags in [&[][..], &["SECCOMP_FILTER_FLAG_LOG"], &["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]] {
        seccomp["flags"] = json!(flags);
        let bundle = Bundle::new().args(["try", "mkdir", "/tmp/x"]);
        filtered(bundle, seccomp.clone()).run().succeeds().prints("ok\n");
    }
}

#[test]
fn the_default_action_holds_for_the_rest() {
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_LOG",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
    });
    let bundle = Bundle::new().args(["try", "mkdir", "/tmp/x", "--", "try", "touch", "/tmp/y"]);
    filtered(bundle, seccomp).run().succeeds().prints("ENOSPC\nok\n");
}

/// Conditions on arguments: a mask, and a comparison; all of one rule must hold.
#[test]
fn arguments_are_compared() {
    let set_user_id = json!({"index": 1, "value": 0o4000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ"});
    let in_fchmodat = json!({"index": 2, "value": 0o4000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ"});
    let rules = json!([
        {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [set_user_id]},
        {"names": ["fchmodat"], "action": "SCMP_ACT_ERRNO", "args": [in_fchmodat]},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11, "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": 10, "op": "SCMP_CMP_GE"}]},
    ]);
    let bundle = Bundle::new().args([
        "touch", "/tmp/x", "--", "try", "chmod", "/tmp/x", "0755", "--", "try", "chmod", "/tmp/x",
        "04755", "--", "try", "chmod", "/tmp/x", "06711", "--", "try", "kill", "1", "12", "--",
        "try", "kill", "1", "1",
    ]);
    filtered(bundle, allow_but(&rules))
        .run()
        .succeeds()
        .prints("ok\nEPERM\nEPERM\nEAGAIN\nok\n");
}

#[test]
fn an_unknown_action_or_operator_is_refused() {
    for rule in [
        json!({"names": ["mkdir"], "action": "SCMP_ACT_MOON"}),
        json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_MOON"}]}),
        json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}),
    ] {
        let container = filtered(Bundle::new(), allow_but(&json!([rule])));
        let outcome = container.run().exits(1);
        if container.runtime().is_floe() {
            outcome.says("seccomp.syscalls[0]");
        }
    }
}

/// What an agent does with one call: the document that came with the listener, and the call's answer.
fn agent(listener: &UnixListener, answer: sys::seccomp::Answer) -> Value {
    let (stream, _) = listener.accept().expect("the runtime");
    let mut buffer = vec![0; 64 * 1024];
    let (length, fds) = sys::message::receive(&stream, &mut buffer).expect("a message");
    let document = serde_json::from_slice(&buffer[..length]).expect("JSON");
    assert_eq!(fds.len(), 1, "one listener");
    let call = sys::seccomp::receive(fds[0].as_fd()).expect("a call");
    sys::seccomp::answer(fds[0].as_fd(), call.id, answer).expect("answer");
    document
}

fn notifying(bundle: Bundle) -> (Bundle, UnixListener) {
    let path = bundle.directory().join("agent.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut seccomp = allow_but(&json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]));
    seccomp["listenerPath"] = json!(path);
    seccomp["listenerMetadata"] = json!("for the agent");
    (bundle.set("/linux/seccomp", seccomp), listener)
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the agent answers while the container runs"
)]
fn an_agent_answers_calls() {
    for no_new_privileges in [true, false] {
        for (answer, printed) in [
            (sys::seccomp::Answer::Error(sys::Errno::NOSPC), "ENOSPC\n"),
            (sys::seccomp::Answer::Value(0), "ok\n"),
            (sys::seccomp::Answer::Continue, "ok\n"),
        ] {
            let bundle = Bundle::new()
                .args(["try", "mkdir", "/tmp/x"])
                .set("/annotations", json!({"who": "test"}))
                .set("/process/noNewPrivileges", no_new_privileges);
            let made = bundle.rootfs().join("tmp/x");
            let (bundle, listener) = notifying(bundle);
            let container = Container::new(bundle);
            let answering = std::thread::spawn(move || agent(&listener, answer));
            container.run().succeeds().prints(printed);
            assert_eq!(made.exists(), answer == sys::seccomp::Answer::Continue);
            let document = answering.join().expect("the agent");
            assert_eq!(document["fds"], json!(["seccompFd"]));
            assert_eq!(document["metadata"], "for the agent");
            assert_eq!(document["state"]["id"], container.id());
            assert_eq!(document["state"]["annotations"]["who"], "test");
            assert_eq!(document["pid"], document["state"]["pid"]);
            assert!(document["pid"].as_i64().is_some_and(|pid| pid > 1), "{document}");
        }
    }
}

/// A process that joins later has a listener of its own.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the agent answers while the container runs"
)]
fn an_agent_answers_calls_of_exec() {
    let (bundle, listener) = notifying(Bundle::new().args(["signal-wait"]));
    let container = Container::new(bundle);
    let first = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the runtime");
        let mut buffer = vec![0; 64 * 1024];
        let held = sys::message::receive(&stream, &mut buffer).expect("a message");
        let document = agent(&listener, sys::seccomp::Answer::Error(sys::Errno::NOSPC));
        drop(held);
        document
    });
    container.create().succeeds();
    container.start().succeeds();
    let outcome = container.exec(["/payload", "try", "mkdir", "/tmp/x"]);
    outcome.succeeds().prints("ENOSPC\n");
    let document = first.join().expect("the agent");
    assert_eq!(document["state"]["status"], "running");
    assert_eq!(document["state"]["pid"], container.pid());
    assert_ne!(document["pid"], document["state"]["pid"]);
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let (bundle, listener) = notifying(Bundle::new());
    let path = bundle.directory().join("agent.sock");
    drop(listener);
    std::fs::remove_file(&path).expect("the socket");
    let container = Container::new(bundle);
    let outcome = container.run().exits(1).says("no such file or directory");
    if container.runtime().is_floe() {
        outcome.says("linux.seccomp.listenerPath");
    }
}
