//! Containers of `floe-oci`, dumped and restored by `floe-criu`: what is inside stays as it was.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tests::{Bundle, Container, Outcome, bundle, wait_until};

/// A running container, with a directory for its images.
struct Frozen {
    container: Container,
    images: PathBuf,
}

impl Frozen {
    /// Starts a container whose payload says `ready`.
    fn start(bundle: Bundle) -> Self {
        let images = bundle.directory().join("images");
        std::fs::create_dir(&images).expect("a directory for the images");
        let container = Container::new(bundle);
        container.create().succeeds();
        container.start().succeeds();
        let frozen = Self { container, images };
        frozen.wait_for("ready");
        frozen
    }

    fn wait_for(&self, word: &str) {
        wait_until(&format!("the payload says {word}"), || {
            self.container.log().contains(word)
        });
    }

    fn criu(&self, action: &str) -> Command {
        let mut command = Command::new(bundle::built_program("floe-criu"));
        command.arg(action).arg("--images-dir").arg(&self.images);
        command
    }

    /// The keys of the files behind descriptors 1 and 2, which are the host's.
    fn output_keys(&self) -> [String; 2] {
        let pid = self.container.pid();
        [1, 2].map(|number| {
            let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
            let info = info.expect("the descriptor's facts");
            let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
            let mount: u32 = mount.and_then(|id| id.trim().parse().ok()).expect("a mount id");
            let file = std::fs::metadata(format!("/proc/{pid}/fd/{number}")).expect("the file");
            format!("file[{mount:x}:{:x}]", file.ino())
        })
    }

    fn dump(&self, keys: &[String], more: &[&str]) -> Outcome {
        let mut command = self.criu("dump");
        command.args(["--tree", &self.container.pid().to_string()]).args(more);
        for key in keys {
            command.args(["--external", key]);
        }
        self.container.outcome(&mut command)
    }

    /// Restores; returns the new root.
    fn restore(&self, keys: &[String], more: &[&str]) -> Restored {
        let result = self.try_restore(keys, more);
        let said = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success(), "{said}");
        let pid = std::fs::read_to_string(self.images.join("pid")).expect("the pid file");
        Restored(Pid::from_raw(pid.parse().expect("a number")).expect("a pid"))
    }

    fn try_restore(&self, keys: &[String], more: &[&str]) -> std::process::Output {
        let pid_file = self.images.join("pid");
        let output = File::create(self.output()).expect("a file for the output");
        let mut command = self.criu("restore");
        command.arg("--root").arg(self.container.bundle().rootfs());
        command.arg("--pidfile").arg(&pid_file).arg("--restore-detached").args(more);
        for key in keys {
            command.args(["--inherit-fd", &format!("fd[0]:{key}")]);
        }
        command.stdin(output);
        command.output().expect("run floe-criu")
    }

    fn output(&self) -> PathBuf {
        self.images.join("output")
    }

    /// What the restored payload printed, once it has said `end`.
    fn output_after(&self) -> String {
        let read = || std::fs::read_to_string(self.output()).unwrap_or_default();
        wait_until("the restored payload says end", || read().contains("end\n"));
        read()
    }
}

/// Ends the tree with the test.
struct Restored(Pid);

impl Restored {
    fn wake(&self) {
        kill_process(self.0, Signal::USR1).expect("wake the payload");
    }

    fn exists(&self) -> bool {
        Path::new(&format!("/proc/{}", self.0)).exists()
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Ids of mounts and devices differ from one kernel object to the next; the order may too.
fn mounts_of(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains(" - "));
    let mut mounts: Vec<String> = lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            words[3..].join(" ")
        })
        .collect();
    mounts.sort();
    mounts
}

#[test]
fn mounts_names_and_ids_come_back() {
    let bundle = Bundle::new()
        .args([
            "write", "/dev/shm/note", "kept", "--", "mkdir", "/dev/shm/directory", "--", "symlink", "note",
            "/dev/shm/link", "--", "mounts", "--", "signal-wait", "--", "mounts", "--", "pid", "--", "hostname",
            "--", "cat", "/dev/shm/note", "--", "readlink", "/dev/shm/link", "--", "stat", "/dev/null", "--",
            "try", "write", "/proc/sys/kernel/hostname", "x", "--", "fds", "--", "echo", "end",
        ])
        .set("/hostname", "iceberg");
    let frozen = Frozen::start(bundle);
    let before = mounts_of(&frozen.container.log());
    assert!(before.len() > 12, "{before:?}");
    let keys = frozen.output_keys();
    frozen.dump(&keys, &[]).succeeds();
    frozen.container.wait_for_status("stopped");
    let restored = frozen.restore(&keys, &[]);
    restored.wake();
    let after = frozen.output_after();
    assert_eq!(mounts_of(&after), before);
    let others: Vec<&str> = after.lines().filter(|line| !line.contains(" - ")).collect();
    let expected = [
        "signal 10", "1", "iceberg", "keptnote", "char 666 0 0 0 1:3", "EROFS", "0 /dev/null",
    ];
    assert_eq!(others[..7], expected, "{after}");
    assert!(others[7].starts_with("1 ") && others[8].starts_with("2 "), "{after}");
    wait_until("the payload has ended", || !restored.exists());
}

/// What a process sees of itself.
fn face(pid: i32) -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let kept = ["State", "TracerPid", "Sig", "ShdPnd", "Cap", "Threads", "NSpid"];
    let lines = status.lines().filter(|line| kept.iter().any(|key| line.starts_with(key)));
    [lines.collect::<Vec<_>>().join("\n"), read("maps"), read("mountinfo"), read("syscall")].join("\n")
}

#[test]
fn a_dump_that_fails_leaves_the_container_running() {
    let bundle = Bundle::new().args(["signal-wait", "--", "echo", "end"]);
    let frozen = Frozen::start(bundle);
    let pid = frozen.container.pid();
    // It sleeps most of the time; in between it has another face.
    let sleeping = || {
        let mut found = face(pid);
        wait_until("the payload sleeps", || {
            found = face(pid);
            found.contains("sleeping") && found.contains("\n230 ")
        });
        found
    };
    let before = sleeping();
    frozen.dump(&[], &[]).fails().says("--external file[");
    assert_eq!(sleeping(), before);
    frozen.container.kill("USR1").succeeds();
    frozen.wait_for("end");
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let frozen = Frozen::start(Bundle::new().args(["signal-wait", "--", "echo", "end"]));
    let keys = frozen.output_keys();
    frozen.dump(&keys, &[]).succeeds();
    let mounts = tests::host::mount_points();
    let pids = tests::host::processes();
    let result = frozen.try_restore(&[], &[]);
    let said = String::from_utf8_lossy(&result.stderr);
    assert!(said.contains("the caller gives nothing for it"), "{said}");
    assert_eq!(tests::host::mount_points(), mounts);
    let marked = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(frozen.container.id())
    };
    let new = tests::host::processes().into_iter().filter(|pid| !pids.contains(pid));
    assert_eq!(new.filter(marked).collect::<Vec<_>>(), [0_i32; 0]);
    let restored = frozen.restore(&keys, &[]);
    restored.wake();
    assert!(frozen.output_after().contains("signal 10"));
}

/// Runs a command in the network namespace of a process.
fn in_network(pid: i32, script: &str) -> String {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "sh", "-euc", script]);
    let output = command.output().expect("run nsenter");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn devices_addresses_and_routes_come_back() {
    const SETUP: &str = "ip link add inner type veth peer name other; ip link set lo up; ip link set inner up
        ip link set other up; ip addr add 10.9.8.7/24 dev inner; ip addr add fd00::7/64 dev inner nodad
        ip route add 10.1.0.0/16 via 10.9.8.1; ip rule add from 10.9.8.7 table 77; ip route add default dev inner table 77
        echo 1 >/proc/sys/net/ipv4/conf/inner/arp_accept";
    const SHOW: &str = "sleep 0.1; ip -o link; ip -o -4 addr; ip -o -6 addr show scope global; ip route; ip rule; ip route show table 77
        cat /proc/sys/net/ipv4/conf/inner/arp_accept";
    let frozen = Frozen::start(Bundle::new().args(["signal-wait", "--", "echo", "end"]));
    let pid = frozen.container.pid();
    in_network(pid, SETUP);
    let before = in_network(pid, SHOW);
    assert!(before.contains("10.1.0.0/16 via 10.9.8.1"), "{before}");
    let keys = frozen.output_keys();
    frozen.dump(&keys, &[]).succeeds();
    let restored = frozen.restore(&keys, &[]);
    assert_eq!(in_network(restored.0.as_raw_nonzero().get(), SHOW), before);
}

#[test]
fn a_frozen_group_is_dumped_and_left_frozen_by_a_failure() {
    let frozen = Frozen::start(Bundle::new().args(["signal-wait", "--", "echo", "end"]));
    let groups = frozen.container.cgroups();
    let file = |name: &str| groups.iter().map(|group| group.join(name)).find(|path| path.exists());
    let v1 = file("freezer.state").map(|path| (path, ["FROZEN", "THAWED"]));
    let found = v1.or_else(|| file("cgroup.freeze").map(|path| (path, ["1", "0"])));
    let (switch, [on, off]) = tests::need!(found, "needs a freezer");
    let group = switch.parent().expect("the group").to_string_lossy().into_owned();
    std::fs::write(&switch, on).expect("freeze");
    let state = || std::fs::read_to_string(&switch).expect("the state").trim().to_owned();
    wait_until("the group is frozen", || state() == on);
    frozen.dump(&[], &["--freeze-cgroup", &group]).fails().says("--external file[");
    wait_until("the group is as it was", || state() == on);
    std::fs::write(&switch, off).expect("thaw");
    let keys = frozen.output_keys();
    std::fs::write(&switch, on).expect("freeze");
    frozen.dump(&keys, &["--freeze-cgroup", &group]).succeeds();
    let restored = frozen.restore(&keys, &[]);
    restored.wake();
    assert!(frozen.output_after().contains("signal 10"));
}
