//! `floe-oci checkpoint` and `restore`: what ran goes on, elsewhere or later.

use serde_json::json;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use tests::{Bundle, Container, Outcome, host, need, wait_until};

/// A shell, a process behind it, a pipe between them, and how far they are in a file on a tmpfs.
const COUNTER: &str = "(while :; do echo tick; sleep 0.02; done) | \
    while read tick; do count=$((count+1)); echo $count >/dev/shm/next; mv /dev/shm/next /dev/shm/count; done";

/// A bundle with busybox, which runs this script.
fn script(text: &str) -> Option<Bundle> {
    let busybox = host::program("busybox")?;
    let bundle = Bundle::new()
        .set("/process/args", json!(["/bin/sh", "-c", text]))
        .set("/process/env", json!(["PATH=/bin", format!("{}=x", "FLOE")]))
        .file("/bin/.keep", "");
    let id = bundle.id().to_owned();
    let directory = bundle.rootfs().join("bin");
    fs::copy(busybox, directory.join("busybox")).expect("busybox");
    for name in ["sh", "sleep", "mv", "cat", "echo", "nc", "touch"] {
        std::os::unix::fs::symlink("busybox", directory.join(name)).expect("a link");
    }
    Some(bundle.push("/process/env", format!("{}={id}", tests::leftovers::MARK)))
}

fn images(container: &Container) -> PathBuf {
    container.bundle().directory().join("images")
}

fn started(bundle: Bundle) -> Container {
    let container = Container::new(bundle);
    container.create().succeeds();
    container.start().succeeds();
    container
}

fn checkpoint(container: &Container, more: &[&str]) -> Outcome {
    let mut command = container.command(["checkpoint", "--image-path"]);
    command.arg(images(container)).args(more).arg(container.id());
    container.outcome(&mut command)
}

fn restore(container: &Container, more: &[&str]) -> Outcome {
    let mut command = container.command(["restore", "--detach", "--image-path"]);
    command.arg(images(container)).arg("--bundle").arg(container.bundle().path());
    container.outcome(command.args(more).arg(container.id()))
}

/// A file of the container as its first process sees it.
fn inside(container: &Container, path: &str) -> String {
    fs::read_to_string(format!("/proc/{}/root{path}", container.pid())).unwrap_or_default()
}

fn count(container: &Container) -> u64 {
    inside(container, "/dev/shm/count").trim().parse().unwrap_or(0)
}

#[track_caller]
fn counts_beyond(container: &Container, last: u64) {
    wait_until(&format!("it counts beyond {last}"), || count(container) > last);
}

fn is_gone(container: &Container) -> bool {
    container.cgroups().is_empty() && !container.state_root().join(container.id()).exists()
}

#[test]
fn what_was_checkpointed_goes_on() {
    let container = started(need!(script(COUNTER), "needs busybox-static"));
    counts_beyond(&container, 10);
    let before = count(&container);
    checkpoint(&container, &[]).succeeds();
    container.call(["state", container.id()]).fails().says("does not exist");
    assert!(is_gone(&container), "groups or state are left");
    restore(&container, &[]).succeeds();
    assert_eq!(container.status(), "running");
    let after = count(&container);
    assert!(after >= before, "{after} after {before}");
    counts_beyond(&container, after + 10);
    container.exec(["/bin/echo", "hello"]).succeeds().prints("hello\n");
    assert_eq!(container.cgroups().len(), host::cgroup_mounts().len());
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    container.delete().succeeds();
    assert!(is_gone(&container));
}

#[test]
fn twice_in_a_row() {
    let container = started(need!(script(COUNTER), "needs busybox-static"));
    for round in 0..3 {
        let last = count(&container);
        counts_beyond(&container, last + 5);
        let images = images(&container);
        if round > 0 {
            fs::remove_dir_all(&images).expect("the old images");
        }
        checkpoint(&container, &[]).succeeds();
        restore(&container, &[]).succeeds();
        assert!(count(&container) >= last);
    }
}

#[test]
fn leave_running_leaves_it_running() {
    let container = started(need!(script(COUNTER), "needs busybox-static"));
    counts_beyond(&container, 3);
    let pid = container.pid();
    checkpoint(&container, &["--leave-running"]).succeeds();
    assert_eq!((container.status().as_str(), container.pid()), ("running", pid));
    let now = count(&container);
    counts_beyond(&container, now + 5);
}

/// containerd pauses a container before it has it checkpointed.
#[test]
fn a_paused_container_is_checkpointed_as_it_stands() {
    let container = started(need!(script(COUNTER), "needs busybox-static"));
    counts_beyond(&container, 5);
    container.call(["pause", container.id()]).succeeds();
    let stood = count(&container);
    checkpoint(&container, &["--leave-running"]).succeeds();
    assert_eq!((container.status().as_str(), count(&container)), ("paused", stood));
    checkpoint(&container, &[]).succeeds();
    restore(&container, &[]).succeeds();
    counts_beyond(&container, stood);
}

/// Connections of the container's own network with both ends open.
fn connections(container: &Container) -> usize {
    let established = |line: &&str| line.split_whitespace().nth(3) == Some("01");
    let count = |name: &str| {
        let table = fs::read_to_string(format!("/proc/{}/net/{name}", container.pid()));
        table.unwrap_or_default().lines().filter(established).count()
    };
    count("tcp") + count("tcp6")
}

#[test]
fn a_checkpoint_that_fails_leaves_the_container_running() {
    let pair = "(sleep 1000 | nc -l -p 7) & sleep 0.3; (sleep 1000 | nc 127.0.0.1 7) &";
    let container = started(need!(script(&format!("{pair} {COUNTER}")), "needs busybox-static"));
    counts_beyond(&container, 3);
    wait_until("they are connected", || connections(&container) == 2);
    let pid = container.pid();
    checkpoint(&container, &[]).fails().says("--tcp-established");
    assert_eq!((container.status().as_str(), container.pid()), ("running", pid));
    let now = count(&container);
    counts_beyond(&container, now + 5);
    checkpoint(&container, &["--tcp-established"]).succeeds();
    restore(&container, &["--tcp-established"]).succeeds();
    let now = count(&container);
    counts_beyond(&container, now + 5);
    assert_eq!(connections(&container), 2);
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let container = started(need!(script(COUNTER), "needs busybox-static"));
    counts_beyond(&container, 3);
    checkpoint(&container, &[]).succeeds();
    let (pstree, kept) = (images(&container).join("pstree.img"), images(&container).join("kept"));
    fs::rename(&pstree, &kept).expect("an image");
    restore(&container, &[]).fails().says("pstree.img");
    assert!(is_gone(&container), "groups or state are left");
    fs::rename(&kept, &pstree).expect("an image");
    restore(&container, &[]).succeeds();
    counts_beyond(&container, 3);
}

#[test]
fn only_what_runs_is_checkpointed() {
    let container = Container::new(need!(script(COUNTER), "needs busybox-static"));
    checkpoint(&container, &[]).exits(1).says("does not exist");
    container.create().succeeds();
    checkpoint(&container, &[]).exits(1).says("cannot checkpoint a container that is created");
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    checkpoint(&container, &[]).exits(1).says("container not running");
    assert!(!images(&container).exists());
    restore(&container, &[]).exits(1).says("already exists");
}

#[test]
fn incremental_and_lazy_modes_say_that_they_are_not_there() {
    let container = started(need!(script(COUNTER), "needs busybox-static"));
    let modes: [&[&str]; 4] =
        [&["--pre-dump"], &["--parent-path", "../x"], &["--page-server", "x:1"], &["--lazy-pages"]];
    for mode in modes {
        let said = checkpoint(&container, mode).exits(1).stderr();
        assert!(said.contains(mode[0]) && said.contains("yet") && said.lines().count() == 1, "{said}");
    }
    assert_eq!(container.status(), "running");
}

/// A volume of the host, a file of it, and an environment in which neither is made for the first time.
#[test]
fn volumes_are_the_hosts_again() {
    let bundle = need!(script(COUNTER), "needs busybox-static");
    let volume = bundle.directory().join("volume");
    fs::create_dir(&volume).expect("a directory");
    let file = bundle.directory().join("hosts");
    fs::write(&file, "127.0.0.1 localhost\n").expect("a file");
    let bundle = bundle
        .mount("bind", volume.to_str().expect("UTF-8"), "/srv/data", &["rbind", "nosuid"])
        .mount("bind", file.to_str().expect("UTF-8"), "/etc/hosts", &["bind", "ro"]);
    let container = started(bundle);
    counts_beyond(&container, 3);
    checkpoint(&container, &[]).succeeds();
    fs::remove_dir_all(container.bundle().rootfs().join("srv")).expect("the mount point");
    fs::write(volume.join("new"), "later").expect("a file");
    restore(&container, &[]).succeeds();
    assert_eq!(inside(&container, "/srv/data/new"), "later");
    assert!(inside(&container, "/etc/hosts").contains("localhost"));
    container.exec(["/bin/touch", "/etc/hosts"]).fails().says("Read-only");
    let now = count(&container);
    counts_beyond(&container, now);
}

#[test]
fn hooks_run_as_in_create() {
    let bundle = need!(script(COUNTER), "needs busybox-static");
    let said = bundle.directory().join("hooks");
    let hook = |word: &str| {
        let line = format!("cat >>{0}; echo ' {word}' >>{0}", said.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", line]}])
    };
    let bundle = bundle
        .set("/hooks/prestart", hook("prestart"))
        .set("/hooks/createRuntime", hook("createRuntime"))
        .set("/hooks/poststart", hook("poststart"));
    let container = started(bundle);
    counts_beyond(&container, 3);
    checkpoint(&container, &[]).succeeds();
    fs::remove_file(&said).expect("what the hooks of `create` said");
    restore(&container, &[]).succeeds();
    let said = fs::read_to_string(&said).expect("what the hooks said");
    let words: Vec<&str> = said.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(words, ["prestart", "createRuntime", "poststart"], "{said}");
    let pid = format!("\"pid\":{}", container.pid());
    assert!(said.lines().all(|line| line.contains(&pid)), "{said}");
}

#[test]
fn a_failing_hook_ends_the_restore() {
    let bundle = need!(script(COUNTER), "needs busybox-static");
    let container = started(bundle);
    counts_beyond(&container, 3);
    checkpoint(&container, &[]).succeeds();
    let config = container.bundle().path().join("config.json");
    let mut changed = container.bundle().config().clone();
    changed["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
    fs::write(config, changed.to_string()).expect("config.json");
    restore(&container, &[]).fails().says("createRuntime[0]");
    assert!(is_gone(&container), "groups or state are left");
}

/// A socket that takes a terminal, as an engine's shim has one.
struct Console(PathBuf, UnixListener);

impl Console {
    fn new(path: PathBuf) -> Console {
        let listener = UnixListener::bind(&path).expect("a socket");
        Console(path, listener)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }

    fn take(&self) -> fs::File {
        let (stream, _) = self.1.accept().expect("the runtime");
        let (_, fds) = sys::message::receive(&stream, &mut [0; 64]).expect("a message");
        let master: OwnedFd = fds.into_iter().next().expect("one descriptor");
        fs::File::from(master)
    }
}

/// Reads the terminal until it has shown this.
fn shows(master: &mut fs::File, wanted: &str) {
    let mut shown = String::new();
    let mut buffer = [0; 256];
    while !shown.contains(wanted) {
        let length = master.read(&mut buffer).expect("the terminal");
        assert!(length > 0, "the terminal is closed after {shown:?}");
        shown += &String::from_utf8_lossy(&buffer[..length]);
    }
}

#[test]
fn a_terminal_comes_back_with_its_session() {
    let bundle = need!(script("while read line; do echo \"<$line>\"; done"), "needs busybox-static");
    let container = Container::new(bundle.set("/process/terminal", true));
    let directory = container.bundle().directory().to_owned();
    let console = Console::new(directory.join("first.sock"));
    let bundle = container.bundle().path();
    let mut command = container.command(["run", "--detach", "--bundle"]);
    command.arg(bundle).args(["--console-socket", console.path()]).arg(container.id());
    container.outcome(&mut command).succeeds();
    let mut master = console.take();
    master.write_all(b"one\n").expect("write");
    shows(&mut master, "<one>");
    checkpoint(&container, &[]).succeeds();
    drop(master);
    let console = Console::new(directory.join("second.sock"));
    restore(&container, &["--console-socket", console.path()]).succeeds();
    let mut master = console.take();
    master.write_all(b"two\n").expect("write");
    shows(&mut master, "<two>");
    // The line discipline turns it into a signal for the foreground group of the session.
    master.write_all(b"\x03").expect("write");
    container.wait_for_status("stopped");
}

#[test]
fn the_callers_pipes_take_the_place_of_the_old_ones() {
    let bundle = need!(script("while :; do echo still here; sleep 0.05; done"), "needs busybox-static");
    let container = Container::new(bundle);
    let path = container.bundle().path();
    let (mut old, ours) = std::io::pipe().expect("a pipe");
    let mut command = container.command(["run", "--detach", "--bundle"]);
    command.arg(&path).arg(container.id()).stdout(ours.try_clone().expect("duplicate")).stderr(ours);
    assert!(command.status().expect("the runtime").success());
    drop(command);
    old.read_exact(&mut [0; 20]).expect("what it says");
    checkpoint(&container, &[]).succeeds();
    let (mut new, ours) = std::io::pipe().expect("a pipe");
    let mut command = container.command(["restore", "--detach", "--image-path"]);
    command.arg(images(&container)).arg("--bundle").arg(&path).arg(container.id());
    command.stdout(ours.try_clone().expect("duplicate")).stderr(ours);
    assert!(command.status().expect("the runtime").success());
    drop(command);
    let mut text = [0; 200];
    new.read_exact(&mut text).expect("what it says");
    assert!(String::from_utf8_lossy(&text).contains("still here\nstill here\n"));
    assert!(Path::new(&images(&container).join("descriptors.json")).exists());
}

#[test]
fn a_joined_network_is_joined_again() {
    let bundle = need!(script(COUNTER), "needs busybox-static");
    let holder = std::process::Command::new("unshare")
        .args(["-n", "sleep", "1000"])
        .env(tests::leftovers::MARK, bundle.id())
        .spawn();
    let mut holder = holder.expect("unshare");
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = fs::read_link("/proc/self/ns/net").expect("a link");
    wait_until("the namespace is there", || fs::read_link(&path).is_ok_and(|link| link != own));
    let namespaces = json!([{"type": "pid"}, {"type": "network", "path": path}, {"type": "ipc"},
        {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}]);
    let container = started(bundle.set("/linux/namespaces", namespaces));
    counts_beyond(&container, 3);
    let network = |container: &Container| {
        fs::read_link(format!("/proc/{}/ns/net", container.pid())).expect("a link")
    };
    assert_eq!(network(&container), fs::read_link(&path).expect("a link"));
    checkpoint(&container, &[]).succeeds();
    restore(&container, &[]).succeeds();
    assert_eq!(network(&container), fs::read_link(&path).expect("a link"));
    container.call(["delete", "--force", container.id()]).succeeds();
    holder.kill().expect("kill");
    holder.wait().expect("wait");
}

#[test]
fn restore_in_the_foreground_returns_the_status() {
    let wait = "while ! [ -e /tmp/go ]; do sleep 0.02; done; exit 7";
    let container = started(need!(script(wait), "needs busybox-static"));
    wait_until("it sleeps", || container.status() == "running");
    checkpoint(&container, &[]).succeeds();
    let rootfs = container.bundle().rootfs();
    fs::write(rootfs.join("tmp/go"), "").expect("a file");
    let mut command = container.command(["restore", "--image-path"]);
    command.arg(images(&container)).arg("--bundle").arg(container.bundle().path());
    container.outcome(command.arg(container.id())).exits(7);
    assert!(is_gone(&container));
}
