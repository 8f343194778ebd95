//! A container of a test, deleted and looked after when the test ends.

use crate::leftovers::Leftovers;
use crate::{Bundle, Outcome, Runtime, wait_until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A bundle, the runtime that runs it, and the promise that nothing of it stays.
///
/// It keeps its state under a `--root` of its own, so that tests never see each other's containers.
#[derive(Debug)]
pub struct Container {
    bundle: Bundle,
    runtime: Runtime,
}

impl Container {
    /// A container of this bundle under the [default runtime](Runtime::default); nothing runs yet.
    #[must_use]
    pub fn new(bundle: Bundle) -> Self {
        Self::with_runtime(bundle, Runtime::default())
    }

    /// A container of this bundle under this runtime.
    #[must_use]
    pub fn with_runtime(bundle: Bundle, runtime: Runtime) -> Self {
        bundle.write();
        Self { bundle, runtime }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.bundle.id()
    }

    /// Its bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The runtime that runs it.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The directory given to the runtime as `--root`.
    #[must_use]
    pub fn state_root(&self) -> PathBuf {
        self.bundle.directory().join("state")
    }

    /// A command of the runtime, for tests that set up more than arguments.
    #[must_use]
    pub fn command<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.runtime.command(&self.state_root(), self.id());
        command.args(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        command
    }

    /// Runs a command of the runtime to its end.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn call<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        self.outcome(&mut self.command(args))
    }

    /// Runs a prepared command to its end; see [`Outcome::of`].
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn outcome(&self, command: &mut Command) -> Outcome {
        Outcome::of(command, self.bundle.directory())
    }

    /// `run`, attached: the output is the container's.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn run(&self) -> Outcome {
        self.call_with_bundle("run")
    }

    /// `create`; the container's output goes to the file that [`Self::log`] reads.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn create(&self) -> Outcome {
        self.call_with_bundle("create")
    }

    /// `start`.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn start(&self) -> Outcome {
        self.call(["start", self.id()])
    }

    /// `exec`, attached, of a program and its arguments.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn exec<const N: usize>(&self, args: [&str; N]) -> Outcome {
        self.call(["exec", self.id()].into_iter().chain(args))
    }

    /// `kill` with a signal.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn kill(&self, signal: &str) -> Outcome {
        self.call(["kill", self.id(), signal])
    }

    /// `delete`.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn delete(&self) -> Outcome {
        self.call(["delete", self.id()])
    }

    /// What `state` prints.
    #[track_caller]
    #[must_use]
    pub fn state(&self) -> Value {
        self.call(["state", self.id()]).succeeds().json()
    }

    /// The status in what `state` prints: `created`, `running`, `paused`, `stopped`.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> String {
        self.state()["status"]
            .as_str()
            .expect("a status")
            .to_owned()
    }

    /// The host's pid of the container's first process.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.state()["pid"]
            .as_i64()
            .and_then(|pid| pid.try_into().ok())
            .expect("a pid")
    }

    /// Waits for a status.
    #[track_caller]
    pub fn wait_for_status(&self, status: &str) {
        wait_until(&format!("the container is {status}"), || {
            self.status() == status
        });
    }

    /// What a created container printed so far, on either output.
    #[must_use]
    pub fn log(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.bundle.directory())
            .expect("the test's directory")
            .flatten()
        {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("stdout.")
                || name.to_string_lossy().starts_with("stderr.")
            {
                text += &String::from_utf8_lossy(&fs::read(entry.path()).unwrap_or_default());
            }
        }
        text
    }

    /// Its resource groups on this host, one directory per hierarchy that has one.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let path = self
            .bundle
            .config()
            .pointer("/linux/cgroupsPath")
            .and_then(Value::as_str);
        let path = path.unwrap_or_default().trim_start_matches('/');
        let mounts = crate::host::cgroup_mounts();
        mounts
            .iter()
            .map(|mount| mount.join(path))
            .filter(|group| group.is_dir())
            .collect()
    }

    fn call_with_bundle(&self, verb: &str) -> Outcome {
        let bundle = self.bundle.path();
        let mut command = self.command([verb]);
        self.outcome(command.arg("--bundle").arg(bundle).arg(self.id()))
    }

    /// Runs even while the test panics, so it must not.
    fn delete_by_force(&self) -> Result<(), String> {
        let output = self.command(["delete", "--force", self.id()]).output();
        let output = output.map_err(|error| format!("execute the runtime: {error}"))?;
        let text = || {
            format!(
                "delete --force: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )
        };
        if output.status.success() {
            Ok(())
        } else {
            Err(text())
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = self.delete_by_force();
        let found = Leftovers::of(
            self.id(),
            self.bundle.directory(),
            &self.state_root().join(self.id()),
        );
        let found = found.after_a_while();
        found.clean();
        if !std::thread::panicking() {
            assert_eq!(deleted, Ok(()));
            assert!(found.is_empty(), "left behind: {found:#?}");
        }
    }
}

/// Whether a path is a mount point of the tests' mount namespace.
#[must_use]
pub fn is_mount_point(path: &Path) -> bool {
    crate::host::mount_points()
        .iter()
        .any(|point| point == path)
}
