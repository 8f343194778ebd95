//! Attacks on the runtime itself from a container: its program, and its process while it joins.

use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use tests::{Bundle, Container, Runtime, wait_until};

/// A copy of the runtime, which the test may lose.
fn copied_runtime(bundle: &Bundle) -> (Runtime, PathBuf) {
    let original = Runtime::default();
    let name = original.program().file_name().expect("a name");
    let directory = bundle.directory().join("bin");
    fs::create_dir(&directory).expect("directory for the copy");
    let copy = directory.join(name);
    fs::copy(original.program(), &copy).expect("copy of the runtime");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod");
    (Runtime::at(&copy), copy)
}

fn capabilities(names: &[&str]) -> serde_json::Value {
    json!({"bounding": names, "effective": names, "permitted": names})
}

/// CVE-2019-5736 by the entry point: the image makes the runtime execute itself, which hangs at a
/// log file that is a fifo, and a second process takes a handle on it.
/// Fails without `seal::before_entering` in floe-oci.
#[test]
fn the_runtime_as_entry_point_cannot_be_overwritten() {
    let bundle = Bundle::new().without_namespace("pid").set(
        "/process/args",
        json!(["/proc/self/exe", "--log", "/fifo", "state", "nothing"]),
    );
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bundle.rootfs().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .expect("a fifo");
    let (runtime, copy) = copied_runtime(&bundle);
    if !runtime.is_floe() {
        tests::skip!("only floe-oci's log is known to wait at a fifo");
    }
    let before = fs::read(&copy).expect("the runtime");
    let container = Container::with_runtime(bundle, runtime);
    container.create().succeeds();
    let program = format!("/proc/{}/exe", container.pid());
    container.start().succeeds();
    let outcome = container.exec(["/payload", "overwrite", &program, "/fifo"]);
    assert_eq!(before, fs::read(&copy).expect("the runtime"), "{outcome:?}");
    outcome.prints("opened\nnot overwritten: EROFS\n");
}

/// CVE-2019-5736 by `exec`: a process of the container waits for the runtime to join it. The right
/// to trace makes the attacker's chances certain.
/// Fails without `seal::before_entering` in floe-oci.
#[test]
fn the_runtime_that_joins_cannot_be_overwritten() {
    let bundle = Bundle::new()
        .args(["overwrite-joiner", "20"])
        .set("/process/capabilities", capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]));
    let (runtime, copy) = copied_runtime(&bundle);
    let before = fs::read(&copy).expect("the runtime");
    let container = Container::with_runtime(bundle, runtime);
    container.create().succeeds();
    container.start().succeeds();
    wait_until("the attacker is ready", || container.log().contains("ready"));
    for _ in 0..50 {
        let _attacked = container.exec(["/payload", "true"]);
        if container.log().contains("opened") {
            break;
        }
    }
    wait_until("the attacker has tried", || container.log().contains("overwritten"));
    let log = container.log();
    assert_eq!(before, fs::read(&copy).expect("the runtime"), "{log}");
    assert!(log.contains("not overwritten: "), "{log}");
}

/// CVE-2016-9962: root of a user namespace may trace there whatever it can see. Until its exec, a
/// joining process is the runtime, with descriptors and memory of the host.
/// Fails without `set_dumpable` in launch.rs.
#[test]
fn a_process_that_joins_cannot_be_traced() {
    let all = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_KILL"];
    let bundle = Bundle::new()
        .args(["trace-joiners", "2"])
        .user_namespace(300_000)
        .set("/process/capabilities", capabilities(&all));
    let container = Container::new(bundle);
    container.create().succeeds();
    container.start().succeeds();
    wait_until("the attacker is ready", || container.log().contains("ready"));
    while container.status() == "running" {
        // The last one may find it gone.
        let _attacked = container.exec(["/payload", "true"]);
    }
    let log = container.log();
    assert!(log.contains("seen=true"), "the attacker saw no runtime: {log}");
    assert!(log.contains("reached=0"), "{log}");
}
