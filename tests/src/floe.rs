//! `floe` with a store of its own, and nothing left behind.

use crate::bundle::built_program;
use crate::leftovers::MARK;
use crate::{Outcome, host, unique_id};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The human command line, run as root or as an ordinary user, on a store that is removed at the end.
///
/// At the end every container is removed; then no process, mount or resource group of any may be left.
#[derive(Debug)]
pub struct Floe {
    directory: TempDir,
    id: String,
    user: Option<u32>,
}

impl Default for Floe {
    fn default() -> Self {
        Self::new()
    }
}

impl Floe {
    /// `floe` as the caller, root.
    #[must_use]
    pub fn new() -> Self {
        Self::with_user(None)
    }

    /// `floe` as an ordinary user, who owns the store.
    #[must_use]
    pub fn as_user(uid: u32) -> Self {
        Self::with_user(Some(uid))
    }

    fn with_user(user: Option<u32>) -> Self {
        // Short: sockets lie below it.
        let directory = tempfile::Builder::new()
            .prefix("floe")
            .tempdir()
            .expect("temporary directory");
        for name in ["state", "run", "out"] {
            std::fs::create_dir(directory.path().join(name)).expect("directory");
        }
        let floe = Self {
            directory,
            id: unique_id(),
            user,
        };
        if let Some(uid) = user {
            for path in [floe.path(""), floe.path("state"), floe.path("run")] {
                std::os::unix::fs::chown(&path, Some(uid), Some(uid)).expect("chown");
            }
        } else {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(floe.directory.path(), mode).expect("chmod");
        }
        floe
    }

    /// A path in the test's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command of floe.
    #[must_use]
    pub fn command<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let floe = built_program("floe");
        let mut command = match self.user {
            None => Command::new(floe),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                let uid = uid.to_string();
                command
                    .args(["--reuid", &uid, "--regid", &uid, "--clear-groups"])
                    .arg(floe);
                command.env("HOME", self.path(""));
                command
            }
        };
        command
            .env("FLOE_STATE_DIR", self.path("state"))
            .env("FLOE_RUN_DIR", self.path("run"))
            .env_remove("FLOE_RUNTIME")
            .env(MARK, &self.id)
            .current_dir("/")
            .stdin(Stdio::null());
        for arg in args {
            command.arg(arg.as_ref());
        }
        command
    }

    /// Runs a command of floe to its end.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn call<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::of(&mut self.command(args), &self.path("out"))
    }

    /// The same, of a line that is split at blanks.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn line(&self, line: &str) -> Outcome {
        self.call(line.split_whitespace())
    }

    /// The same, with something on standard input.
    ///
    /// # Panics
    /// Where the program cannot be executed.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn feed<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Outcome {
        let path = self.path("out").join(unique_id());
        std::fs::write(&path, input).expect("input");
        let file = std::fs::File::open(&path).expect("input");
        Outcome::of(self.command(args).stdin(file), &self.path("out"))
    }

    /// `floe inspect` of a container.
    #[must_use]
    pub fn inspect(&self, name: &str) -> Value {
        self.call(["inspect", name]).succeeds().json()[0].take()
    }

    /// The status word of a container.
    #[must_use]
    pub fn status(&self, name: &str) -> String {
        self.inspect(name)["state"]["status"]
            .as_str()
            .expect("a status")
            .to_owned()
    }

    /// Waits until a container has this status.
    #[track_caller]
    pub fn wait_for_status(&self, name: &str, status: &str) {
        crate::wait_until(&format!("`{name}` is {status}"), || {
            self.status(name) == status
        });
    }

    fn ids(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("state/containers"))
            .into_iter()
            .flatten();
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// What of these containers, or of the test's store, is still on the host.
    fn leftovers(&self, ids: &[String]) -> Vec<String> {
        let mut left = self.ids();
        let mark = format!("{MARK}={}", self.id);
        for pid in host::processes() {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_bytes())
            {
                let line =
                    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                left.push(format!("process {pid}: {}", line.replace('\0', " ")));
            }
        }
        let mounts = host::mount_points().into_iter();
        let own = mounts.filter(|mount| mount.starts_with(self.directory.path()));
        left.extend(own.map(|mount| format!("mount {}", mount.display())));
        for hierarchy in host::cgroup_mounts() {
            for id in ids {
                let scope = format!("system.slice/floe-{id}.scope");
                for group in [hierarchy.join("floe").join(id), hierarchy.join(scope)] {
                    if group.exists() {
                        left.push(format!("group {}", group.display()));
                    }
                }
            }
        }
        left
    }
}

impl Drop for Floe {
    fn drop(&mut self) {
        let ids = self.ids();
        for id in &ids {
            // What cannot be removed is found below.
            let _ = self.command(["rm", "--force", id]).output();
        }
        let end = Instant::now() + Duration::from_secs(3) * crate::slowness();
        let mut left = self.leftovers(&ids);
        while !left.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            left = self.leftovers(&ids);
        }
        assert!(
            std::thread::panicking() || left.is_empty(),
            "left behind: {left:#?}"
        );
    }
}

/// A root file system of one static program under many names, as a directory.
///
/// # Panics
/// Where files cannot be made.
#[must_use]
pub fn busybox(directory: &Path) -> Option<PathBuf> {
    let program = host::program("busybox")?;
    let root = directory.join("busybox");
    std::fs::create_dir_all(root.join("bin")).expect("directory");
    std::fs::create_dir_all(root.join("etc")).expect("directory");
    std::fs::copy(program, root.join("bin/busybox")).expect("copy");
    for name in [
        "sh", "cat", "echo", "id", "ls", "sleep", "touch", "true", "wc", "env", "mount",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("link");
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
    )
    .expect("accounts");
    Some(root)
}
