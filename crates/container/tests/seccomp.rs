//! Compiled filters in the real kernel. no_new_privs stands in for privilege: these need no root.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use container::seccomp::{Filter, compile, native};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::set_no_new_privs;
use serde_json::{Value, json};
use sys::clone::{Clone, Side, clone};
use sys::seccomp::{Answer, Load, answer, knows_action, knows_flags, load, receive};

/// A filter that lets all pass but for one rule.
fn filter(rule: &Value) -> Filter {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    compile(&serde_json::from_value(profile).unwrap(), native().unwrap()).unwrap()
}

fn rule(name: &str, action: &str, more: &Value) -> Value {
    let mut rule = json!({"names": [name], "action": format!("SCMP_ACT_{action}")});
    rule.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    rule
}

/// Runs `body` under the filter, in a thread of its own: filters of a thread end with it.
fn under<T: Send>(filter: &Filter, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            set_no_new_privs(true).unwrap();
            load(&filter.program, filter.load).unwrap();
            body()
        });
        thread.join().unwrap()
    })
}

/// How a child ends that loads the filter and then asks for its parent.
fn fate(filter: &Filter) -> WaitStatus {
    match clone(&Clone::default()).unwrap() {
        Side::Child => {
            // Nothing here allocates: other threads of the test may hold the allocator's lock.
            let loaded = set_no_new_privs(true).and_then(|()| load(&filter.program, filter.load));
            if loaded.is_ok() {
                let _ = rustix::process::getppid();
            }
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
            unreachable!("SIGKILL cannot be ignored");
        }
        Side::Parent { pid, .. } => wait(pid),
    }
}

fn wait(pid: Pid) -> WaitStatus {
    rustix::process::waitpid(Some(pid), WaitOptions::empty())
        .unwrap()
        .unwrap()
        .1
}

#[test]
fn an_errno_rule_answers_its_error_where_its_condition_holds() {
    let args = json!({"errnoRet": 95, "args": [{"index": 0, "value": 77, "op": "SCMP_CMP_EQ"}]});
    let filter = filter(&rule("getpgid", "ERRNO", &args));
    let (other, refused) = under(&filter, || {
        (
            rustix::process::getpgid(None),
            rustix::process::getpgid(Pid::from_raw(77)),
        )
    });
    assert!(other.is_ok());
    assert_eq!(refused, Err(sys::Errno::OPNOTSUPP));
}

#[test]
fn a_killing_rule_ends_the_process_by_sigsys() {
    for action in ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"] {
        let status = fate(&filter(&rule("getppid", action, &json!({}))));
        assert_eq!(
            status.terminating_signal(),
            Some(Signal::SYS.as_raw()),
            "{action}"
        );
    }
}

#[test]
fn a_rule_on_another_call_changes_nothing() {
    let status = fate(&filter(&rule("getpgid", "KILL", &json!({}))));
    assert_eq!(status.terminating_signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn a_notified_call_waits_and_returns_the_listeners_answer() {
    let filter = filter(&rule("getppid", "NOTIFY", &json!({})));
    assert!(filter.load.listener);
    let (sender, listeners) = mpsc::channel();
    std::thread::scope(|scope| {
        let caller = scope.spawn(move || {
            set_no_new_privs(true).unwrap();
            sender
                .send(load(&filter.program, filter.load).unwrap().unwrap())
                .unwrap();
            rustix::process::getppid()
                .map(Pid::as_raw_nonzero)
                .map(i32::from)
        });
        let listener = listeners.recv_timeout(Duration::from_secs(10)).unwrap();
        let notification = receive(listener.as_fd()).unwrap();
        assert_eq!(notification.number, GETPPID);
        answer(listener.as_fd(), notification.id, Answer::Value(4242)).unwrap();
        assert_eq!(caller.join().unwrap(), Some(4242));
    });
}

/// Its number on x86_64, and where calls have the generic numbers.
const GETPPID: i32 = if cfg!(target_arch = "x86_64") {
    110
} else {
    173
};

#[test]
fn a_profile_of_every_feature_is_taken_by_the_kernel() {
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let args = |op| json!([{"index": 5, "value": 1u64 << 40, "valueTwo": 3, "op": format!("SCMP_CMP_{op}")}]);
    let rules: Vec<Value> = operators
        .iter()
        .map(
            |op| json!({"names": ["mount", "clone"], "action": "SCMP_ACT_ERRNO", "args": args(op)}),
        )
        .collect();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_S390X"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "syscalls": rules,
    });
    let filter = compile(&serde_json::from_value(profile).unwrap(), native().unwrap()).unwrap();
    assert!(filter.load.log && filter.load.spec_allow);
    assert!(under(&filter, rustix::process::getppid).is_some());
}

#[test]
fn the_kernel_tells_what_it_knows() {
    assert_eq!(knows_action(0x7fff_0000), Ok(true));
    assert_eq!(knows_action(0x1234_0000), Ok(false));
    assert!(knows_flags(Load::default()));
    assert!(knows_flags(Load {
        log: true,
        ..Load::default()
    }));
    // WAIT_KILLABLE_RECV without a listener is refused by every kernel.
    assert!(!knows_flags(Load {
        wait_killable: true,
        ..Load::default()
    }));
}
