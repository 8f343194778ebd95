//! Where an engine's daemon lives: namespaces of its own that die, with all they hold, when the test does.
//!
//! Problem: daemons leave processes, bridges, iptables rules, mounts and files all over a host, and a
//! test that panics cannot tidy up after one.
//!
//! 1. A keeper, `unshare`, makes mount, network, pid and IPC namespaces. Its parent-death signal is
//!    SIGKILL, and its child, the namespaces' first process, dies with it: so do all others.
//! 2. The engine's data lies on a tmpfs that is mounted only in there; `/run` is another one; `/etc`
//!    and `/var/lib` are overlays whose upper layers lie on the first. They go with the last process.
//! 3. The cgroup hierarchies are the host's, as an engine expects. Engines are told to put everything
//!    below one group named after the test, and that is removed at the end.

use crate::{Outcome, Runtime, host, wait_until};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Namespaces with an own `/run`, `/etc`, network and process table.
#[derive(Debug)]
pub struct Sandbox {
    keeper: Child,
    daemons: Vec<Child>,
    init: i32,
    directory: TempDir,
    group: String,
    search: String,
}

/// `$1`: the test's directory.
const SET_UP: &str = r#"
set -eu
cd "$1"
mount -t tmpfs -o mode=755 tmpfs fs
mount --make-shared fs
mkdir -p fs/bin fs/home fs/tmp fs/etc fs/etc.work fs/lib fs/lib.work
chmod 1777 fs/tmp
mount -t overlay -o "lowerdir=/etc,upperdir=$1/fs/etc,workdir=$1/fs/etc.work" overlay /etc
mount -t overlay -o "lowerdir=/var/lib,upperdir=$1/fs/lib,workdir=$1/fs/lib.work" overlay /var/lib
mount -t tmpfs -o mode=755 tmpfs /run
"#;

/// `$1`: the test's directory, `$2`: a root file system that becomes the sandbox's, `$3`: the runtime.
const SET_UP_ROOT: &str = r#"
set -eu
cd "$1"
mount -t tmpfs -o mode=755 tmpfs fs
mkdir -p fs/bin fs/home fs/tmp fs/upper fs/upper.work root
chmod 1777 fs/tmp
cp "$(command -v busybox)" fs/bin
mount -t overlay -o "lowerdir=$2,upperdir=$1/fs/upper,workdir=$1/fs/upper.work" overlay root
cd root
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p ".$1"
mount --bind "$1" ".$1"
mount --bind "$1/fs" ".$1/fs"
mount --make-shared ".$1/fs"
if ! [ -e ".$3" ]; then
    mkdir -p ".${3%/*}"
    : >".$3"
    mount --bind "$3" ".$3"
fi
pivot_root . mnt
cd "$1"
# The new root need not have mount(8).
fs/bin/busybox umount -l /mnt
"#;

/// The end of both.
const SETTLE: &str = r#"
mkdir -p /run/lock
ip link set lo up
: >ready
# The shell reaps what the engines' helpers leave: a wait that never ends.
sleep infinity &
wait
"#;

impl Sandbox {
    /// Makes the namespaces and waits until they are furnished.
    #[must_use]
    pub fn new() -> Self {
        Self::furnished(SET_UP, &[])
    }

    /// The same with another root file system, into which the runtime under test is carried.
    ///
    /// Nothing is written to it: the sandbox sees an overlay.
    #[must_use]
    pub fn with_root(root: &Path) -> Self {
        Self::furnished(SET_UP_ROOT, &[root, Runtime::default().program()])
    }

    fn furnished(set_up: &str, arguments: &[&Path]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("floe-test.")
            .tempdir()
            .expect("temporary directory");
        // The mapped root of a user namespace must be able to walk in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::create_dir(directory.path().join("fs")).expect("directory for the tmpfs");
        let log = File::create(directory.path().join("keeper.log")).expect("log of the keeper");
        let mut keeper = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--ipc",
            ])
            .args(["--fork", "--kill-child", "--mount-proc", "sh", "-c"])
            .args([&format!("{set_up}{SETTLE}"), "sh"])
            .arg(directory.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("execute setpriv and unshare");
        let ready = directory.path().join("ready");
        wait_until("the sandbox is furnished", || {
            let ended = keeper.try_wait().expect("wait for the keeper");
            let log = || fs::read_to_string(directory.path().join("keeper.log"));
            assert!(ended.is_none(), "the sandbox ended: {:?}", log());
            ready.exists()
        });
        let init = only_child(keeper.id());
        Self {
            keeper,
            daemons: Vec::new(),
            init,
            group: crate::unique_id(),
            search: format!(
                "{}:/usr/sbin:/usr/bin:/sbin:/bin",
                directory.path().join("fs/bin").display()
            ),
            directory,
        }
    }

    /// A directory that only processes of the sandbox can look into; it can hold upper layers of overlays.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        let path = self.directory.path().join("fs").join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// A path of the sandbox as the test itself reaches it.
    #[must_use]
    pub fn outside(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref().strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.init)).join(path)
    }

    /// Writes a file of the sandbox, with the directories on the way.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.outside(path);
        fs::create_dir_all(path.parent().expect("an absolute path")).expect("directory");
        fs::write(path, content).expect("file of the sandbox");
    }

    /// Reads a file of the sandbox.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.outside(path))
            .unwrap_or_else(|error| panic!("read `{path}` of the sandbox: {error}"))
    }

    /// The directory that the test sees as it is, for logs and what is carried in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The group below which the engine's containers go, in every hierarchy: `/floe-test-…`.
    #[must_use]
    pub fn group(&self) -> String {
        format!("/{}", self.group)
    }

    /// A command of the sandbox, with an environment that holds nothing of the caller's.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(["--mount", "--net", "--pid", "--ipc", "--", program])
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", &self.search)
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"));
        command
    }

    /// [`Self::command`] of an engine's client, which is ended after a minute (times `FLOE_TEST_SLOWNESS`).
    #[must_use]
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.command("timeout");
        command.args([
            "--foreground",
            &(60 * crate::slowness()).to_string(),
            program,
        ]);
        command
    }

    /// Fetches a document from inside the sandbox's network; empty if nobody answers.
    #[must_use]
    pub fn fetch(&self, url: &str) -> String {
        let mut command = self.command("chroot");
        command.arg(self.directory().join("image/rootfs"));
        let outcome = self.outcome(command.args(["timeout", "2", "wget", "-q", "-O", "-", url]));
        outcome.stdout()
    }

    /// Runs a command of the sandbox to its end.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn outcome(&self, command: &mut Command) -> Outcome {
        Outcome::of(command, self.directory())
    }

    /// Runs a shell script in the sandbox.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn shell(&self, script: &str) -> Outcome {
        self.outcome(self.command("sh").args(["-ec", script]))
    }

    /// Starts a daemon whose output goes to `NAME.log` in [`Self::directory`]; it ends with the sandbox.
    pub fn daemon(&mut self, name: &str, command: &mut Command) {
        let log = File::create(self.directory().join(format!("{name}.log"))).expect("log file");
        let daemon = command
            .stdout(log.try_clone().expect("duplicate the log file"))
            .stderr(log)
            .spawn();
        let daemon = daemon.unwrap_or_else(|error| panic!("execute {command:?}: {error}"));
        self.daemons.push(daemon);
    }

    /// The last lines of a daemon's log that matter.
    #[must_use]
    pub fn complaints(&self, name: &str) -> String {
        let path = self.directory().join(format!("{name}.log"));
        let log = fs::read(path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let noise = [
            "level=info",
            "level=debug",
            "cleaning up after shim disconnected",
        ];
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| !noise.iter().any(|noise| line.contains(noise)))
            .collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The sandbox's processes whose command line contains `text`.
    #[must_use]
    pub fn processes_with(&self, text: &str) -> Vec<String> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = namespace(self.init);
        let line = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).ok();
        host::processes()
            .into_iter()
            .filter(|pid| namespace(*pid) == own)
            .filter_map(|pid| Some(line(pid)?.replace('\0', " ")))
            .filter(|line| line.contains(text))
            .collect()
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        for daemon in &mut self.daemons {
            let _ = daemon.wait();
        }
        // The namespace's first process returns from its death only when all others are gone, but
        // nobody here is its parent any more: look at it until it is no more.
        let init = PathBuf::from(format!("/proc/{}/ns/pid", self.init));
        for _ in 0..200 {
            let left = host::cgroup_mounts()
                .into_iter()
                .filter(|mount| !remove_groups(&mount.join(&self.group)))
                .count();
            if left == 0 && fs::read_link(&init).is_err() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Removes a group with those below it; whether it is gone.
fn remove_groups(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
    !group.exists()
}

fn only_child(pid: u32) -> i32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).expect("the keeper's children");
    children
        .trim()
        .parse()
        .expect("exactly one child of the keeper")
}
