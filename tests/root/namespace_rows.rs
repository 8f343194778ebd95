//! Rows of the roadmap about isolation that need a test of their own.

use serde_json::json;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use tests::{Bundle, Container, wait_until};

fn running(bundle: Bundle) -> Container {
    let container = Container::new(bundle);
    container.create().succeeds();
    container.start().succeeds();
    container
}

/// Gives the process one more capability than the short list of the default bundle.
fn with_capability(bundle: Bundle, name: &str) -> Bundle {
    ["bounding", "effective", "permitted"]
        .iter()
        .fold(bundle, |bundle, set| {
            bundle.push(&format!("/process/capabilities/{set}"), name)
        })
}

/// The numbers of a process in all pid namespaces, outermost first.
fn numbers(pid: i32) -> Vec<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.expect("NSpid")
        .split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect()
}

/// How many pid namespaces the tests themselves are in.
fn depth() -> usize {
    numbers(std::process::id().try_into().expect("a pid")).len()
}

/// N1: the first process is 1 inside and has the number outside that `state` tells.
#[test]
fn the_first_process_has_both_numbers() {
    let container = running(Bundle::new().args(["pid", "--", "sleep", "1000"]));
    wait_until("the container printed", || container.log().contains('\n'));
    assert_eq!(container.log().trim(), "1");
    let found = numbers(container.pid());
    assert_eq!(found[depth() - 1..], [container.pid(), 1]);
}

/// N1: namespaces nest, and every level has a number of its own.
#[test]
fn pid_namespaces_nest() {
    let bundle = Bundle::new().args([
        "in-new-pid-namespace", "in-new-pid-namespace", "sleep", "1000",
    ]);
    let container = running(with_capability(bundle, "CAP_SYS_ADMIN"));
    let mut innermost = Vec::new();
    wait_until("there are three levels", || {
        let all = tests::host::processes().into_iter();
        let of_ours = all.filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(container.id())
        });
        innermost = of_ours
            .filter(|pid| std::path::Path::new(&format!("/proc/{pid}/status")).exists())
            .map(numbers)
            .filter(|numbers| numbers.len() == depth() + 3)
            .collect();
        !innermost.is_empty()
    });
    // Outside, in the container, in the second namespace, in the third.
    assert_eq!(innermost[0][depth() + 1..], [2, 1]);
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
}

/// N1: `run` hands signals on to the container's first process, and reports how it ended.
#[test]
fn run_forwards_signals() {
    let container = Container::new(Bundle::new().args(["signal-wait", "--", "exit", "5"]));
    let out = container.bundle().directory().join("out");
    let file = std::fs::File::create(&out).expect("a file");
    let bundle = container.bundle().path();
    let mut child = container
        .command(["run", "--bundle"])
        .arg(bundle)
        .arg(container.id())
        .stdout(file)
        .spawn()
        .expect("the runtime");
    let printed = || std::fs::read_to_string(&out).unwrap_or_default();
    wait_until("the container is ready", || printed().contains("ready"));
    let pid = rustix::process::Pid::from_raw(child.id().try_into().expect("a pid"));
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::USR1)
        .expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(5));
    assert_eq!(printed(), "ready\nsignal 10\n");
}

/// N1: orphans belong to the container's first process, and end with it.
#[test]
fn processes_end_with_the_first_one() {
    let container = running(Bundle::new().args(["fork", "3", "--", "sleep", "1000"]));
    wait_until("it forked", || container.log().contains("forked 3"));
    let before = container.call(["ps", "--format", "json", container.id()]);
    let pids: Vec<i32> = serde_json::from_str(&before.succeeds().stdout()).expect("pids");
    assert_eq!(pids.len(), 4);
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    wait_until("its processes are gone", || {
        pids.iter().all(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
    });
}

/// N2: clone3's `set_tid` gives a process the number asked for, at every level.
#[test]
fn pids_can_be_chosen() {
    let bundle = Bundle::new().args([
        "with-pid", "4242", "pid", "--", "in-new-pid-namespace-with-pid", "777", "status", "NSpid",
    ]);
    let container = Container::new(with_capability(bundle, "CAP_SYS_ADMIN"));
    let printed = container.run().succeeds().stdout();
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.contains(&"child 4242") && lines.contains(&"4242"), "{printed}");
    // `/proc` is the container's, so its number comes first there.
    assert!(lines.contains(&"child 777") && lines.contains(&"NSpid=777\t1"), "{printed}");
}

/// N3: no thread of the kernel is visible in a container or counted to it.
#[test]
fn kernel_threads_stay_outside() {
    let container = running(Bundle::new().args(["pids", "--", "fork", "1", "--", "sleep", "1000"]));
    wait_until("it forked", || container.log().contains("forked"));
    assert_eq!(container.log(), "1\nforked 1\n");
    for group in container.cgroups() {
        let pids = std::fs::read_to_string(group.join("cgroup.procs")).expect("cgroup.procs");
        assert_eq!(pids.lines().count(), 2, "{}: {pids}", group.display());
        for pid in pids.lines() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
            let flags: u64 = stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.split_whitespace().nth(6)?.parse().ok())
                .expect("flags");
            assert_eq!(flags & 0x0020_0000, 0, "PF_KTHREAD: {stat}");
        }
    }
}

/// A container with a directory of the host at `/share`, in a user namespace.
fn sharing(verb: [&str; 2]) -> Bundle {
    let bundle = Bundle::new().user_namespace(200_000).args(verb);
    let share = bundle.directory().join("share");
    std::fs::create_dir(&share).expect("a directory");
    std::os::unix::fs::chown(&share, Some(200_000), Some(200_000)).expect("chown");
    let source = share.to_string_lossy().into_owned();
    bundle.mount("bind", &source, "/share", &["bind"])
}

fn exchange(mut stream: &UnixStream) -> (sys::credentials::Credentials, sys::credentials::Credentials) {
    rustix::net::sockopt::set_socket_passcred(stream, true).expect("SO_PASSCRED");
    let peer = sys::credentials::peer(stream).expect("SO_PEERCRED");
    stream.write_all(b"x").expect("write");
    let sender = sys::credentials::receive(stream).expect("receive");
    (peer, sender.expect("a message"))
}

/// N5: a socket tells each end the other's pid and ids in the reader's numbering.
#[test]
fn credentials_are_translated_to_the_reader() {
    let bundle = sharing(["connect", "/share/socket"]);
    let path = bundle.directory().join("share/socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    std::os::unix::fs::chown(&path, Some(200_000), Some(200_000)).expect("chown");
    let container = running(bundle);
    let pid = container.pid();
    let (stream, _) = listener.accept().expect("a connection");
    let (peer, sender) = exchange(&stream);
    let seen = sys::credentials::Credentials { pid, uid: 200_000, gid: 200_000 };
    assert_eq!((peer, sender), (seen, seen));
    container.wait_for_status("stopped");
    // The host is nobody in there: no pid, and the id that stands for all that are not mapped.
    let seen = "peer 0 65534 65534\nsender 0 65534 65534\n";
    assert!(container.log().contains(seen), "{}", container.log());
}

/// N5: the same where the container listens.
#[test]
fn credentials_are_translated_for_a_listener() {
    let container = running(sharing(["listen", "/share/socket"]));
    wait_until("it listens", || container.log().contains("listening"));
    let pid = container.pid();
    let path = container.bundle().directory().join("share/socket");
    let stream = UnixStream::connect(path).expect("connect");
    let (peer, sender) = exchange(&stream);
    let seen = sys::credentials::Credentials { pid, uid: 200_000, gid: 200_000 };
    assert_eq!((peer, sender), (seen, seen));
    container.wait_for_status("stopped");
    assert!(container.log().contains("peer 0 65534 65534\nsender 0 65534 65534\n"));
}

/// N8: who joins an ipc namespace finds its shared memory; another container does not.
#[test]
fn shared_memory_belongs_to_the_ipc_namespace() {
    let first = running(Bundle::new().args(["shm-write", "4711", "ice", "--", "echo", "done", "--", "sleep", "1000"]));
    wait_until("it wrote", || first.log().contains("done"));
    let path = format!("/proc/{}/ns/ipc", first.pid());
    let read = || Bundle::new().args(["try", "shm-read", "4711", "3"]);
    let joined = read()
        .without_namespace("ipc")
        .push("/linux/namespaces", json!({"type": "ipc", "path": path}));
    Container::new(joined).run().succeeds().prints("ice\nok\n");
    Container::new(read()).run().succeeds().prints("ENOENT\n");
    first.exec(["/payload", "shm-read", "4711", "3"]).succeeds().prints("ice\n");
}

/// N16: a container's keys are reachable from it and from nowhere else.
#[test]
fn keys_stay_in_their_container() {
    if let Err(sys::Errno::NOSYS) = sys::keyring::search(c"floe") {
        tests::elsewhere!("the kernel has no keyrings");
    }
    let first = running(Bundle::new().args(["key-add", "floe-test", "secret", "--", "sleep", "1000"]));
    wait_until("it has a key", || first.log().contains('\n'));
    let serial = first.log().trim().to_owned();
    // Its own later processes find it.
    first.exec(["/payload", "key-search", "floe-test"]).succeeds().prints(&format!("{serial}\n"));
    let other = Bundle::new().edit(|config| {
        config["process"]["args"] = json!([
            "/payload", "try", "key-search", "floe-test", "--", "try", "key-read", serial
        ]);
    });
    Container::new(other).run().succeeds().prints("ENOKEY\nEACCES\n");
    assert_eq!(sys::keyring::search(c"floe-test"), Err(sys::Errno::NOKEY));
}
