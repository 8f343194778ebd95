//! The OCI runtime and the monitor, by their command lines.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::store::Store;
use crate::store::container::Container;

/// An error with an exit status of its own: 126 and 127 tell that the program in the container
/// could not be executed, or is not there.
#[derive(Debug)]
pub(crate) struct WithCode {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl std::fmt::Display for WithCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for WithCode {}

/// The runtime's program and the place of its state.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) program: PathBuf,
    pub(crate) root: PathBuf,
}

impl Runtime {
    /// Finds the runtime: `$FLOE_RUNTIME`, then `floe-oci` beside this program, in PATH and in
    /// the usual libexec directories.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn find(store: &Store) -> Result<Self> {
        let program = match std::env::var_os("FLOE_RUNTIME").filter(|value| !value.is_empty()) {
            Some(value) => on_path(&value).ok_or_else(|| {
                anyhow!("FLOE_RUNTIME: no program `{}`", Path::new(&value).display())
            })?,
            None => companion("floe-oci")?,
        };
        Ok(Self {
            program,
            root: store.runtime_root(),
        })
    }

    /// A subcommand, whose standard input and output are the caller's to set.
    #[must_use]
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let mut command = self.program();
        command.arg(subcommand);
        command
    }

    fn program(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.root)
            .args(["--log-format", "json"]);
        command
    }

    /// `create`, whose groups systemd makes if `systemd`.
    #[must_use]
    pub(crate) fn create_command(&self, systemd: bool) -> Command {
        let mut command = self.program();
        if systemd {
            command.arg("--systemd-cgroup");
        }
        command.arg("create");
        command
    }

    /// Runs a subcommand and gives what it prints.
    ///
    /// # Errors
    /// The runtime's own message.
    pub(crate) fn run<I, S>(&self, subcommand: &str, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(subcommand);
        command.args(arguments).stdin(Stdio::null());
        let output = command
            .output()
            .with_context(|| format!("execute `{}`", self.program.display()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        bail!(
            "{}",
            message_of(&String::from_utf8_lossy(&output.stderr), subcommand)
        )
    }

    /// Changes the limits of a running container.
    ///
    /// # Errors
    /// The runtime's own message.
    pub(crate) fn update(&self, id: &str, resources: &Value) -> Result<()> {
        let mut command = self.command("update");
        command.args(["--resources=-", id]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("execute `{}`", self.program.display()))?;
        let written = child.stdin.take().map_or(Ok(()), |mut input| {
            input.write_all(resources.to_string().as_bytes())
        });
        let output = child.wait_with_output().context("wait for runtime")?;
        if !output.status.success() {
            bail!(
                "{}",
                message_of(&String::from_utf8_lossy(&output.stderr), "update")
            );
        }
        written.context("give limits to runtime")
    }

    /// Kills a container if it runs and removes the runtime's state of it.
    ///
    /// # Errors
    /// The runtime's own message.
    pub(crate) fn delete_force(&self, id: &str) -> Result<()> {
        self.run("delete", ["--force", id]).map(drop)
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// The runtime's own message.
    pub(crate) fn kill(&self, id: &str, signal: i32) -> Result<()> {
        self.run("kill", [id, &signal.to_string()]).map(drop)
    }
}

/// Starts the monitor of a container and waits until the container is made.
///
/// # Errors
/// What the monitor or the runtime says; [`WithCode`] where the program is at fault.
pub(crate) fn launch(store: &Store, container: &Container, runtime: &Runtime) -> Result<()> {
    launch_from(store, container, runtime, None)
}

/// The same; with `images`, its processes go on from there.
///
/// # Errors
/// Those of [`launch`].
pub(crate) fn launch_from(
    store: &Store,
    container: &Container,
    runtime: &Runtime,
    images: Option<&Path>,
) -> Result<()> {
    let record = &container.record;
    crate::store::make_private(&container.run_dir)?;
    for stale in [crate::store::container::PAUSED, monitor::files::RUNTIME_LOG] {
        // Of an earlier run; usually not there.
        let _ = std::fs::remove_file(container.run_dir.join(stale));
    }
    let mut command = Command::new(companion("floed")?);
    command.args(["monitor", "--id", &record.id]);
    for (flag, path) in [
        ("--runtime", &runtime.program),
        ("--root", &runtime.root),
        ("--bundle", &container.bundle()),
        ("--run-dir", &container.run_dir),
        ("--state-dir", &container.dir),
        ("--events", &store.events()),
    ] {
        command.arg(flag).arg(path);
    }
    if let Some(images) = images {
        command.arg("--restore").arg(images);
    }
    command.args(["--restart", &record.restart]);
    command.args(["--log-size", &record.log_size.to_string()]);
    command.args(["--stop-signal", &record.stop_signal.to_string()]);
    command.args(["--stop-timeout", &record.stop_timeout.to_string()]);
    if record.terminal {
        command.arg("--terminal");
    }
    if record.interactive {
        command.arg("--interactive");
    }
    if record.systemd_group {
        command.arg("--systemd-cgroup");
    }
    if record.remove {
        let own = std::env::current_exe().context("find own program")?;
        command.arg("--remove-with").arg(own);
    }
    command.stdin(Stdio::null());
    let output = command.output().context("execute `floed`")?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let told = told.trim().strip_prefix("floed: ").unwrap_or(told.trim());
    Err(start_error(container, told))
}

/// The error of a container that could not be made or started: the runtime's last words.
#[must_use]
pub(crate) fn start_error(container: &Container, otherwise: &str) -> anyhow::Error {
    let log = container.run_dir.join(monitor::files::RUNTIME_LOG);
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let message = last_message(&text).unwrap_or_else(|| otherwise.to_owned());
    WithCode {
        code: code_of(&message),
        message: crate::text::plain(&message),
    }
    .into()
}

/// docker's reading of a runtime's message: 127 no such program, 126 not executable.
#[must_use]
pub(crate) fn code_of(message: &str) -> u8 {
    let has = |text: &str| message.contains(text);
    if !has("exec") {
        125
    } else if has("executable file not found") || has("no such file or directory") {
        127
    } else if has("permission denied") || has("is a directory") || has("exec format error") {
        126
    } else {
        125
    }
}

/// What a runtime said on standard error, with `--log-format json` or without.
#[must_use]
pub(crate) fn message_of(stderr: &str, subcommand: &str) -> String {
    let message = last_message(stderr).unwrap_or_else(|| stderr.trim().to_owned());
    if message.is_empty() {
        return format!("runtime {subcommand} failed without a word");
    }
    crate::text::plain(&message)
}

/// The text of the last error in a runtime's log.
fn last_message(log: &str) -> Option<String> {
    log.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|entry| entry["level"] == "error" || entry["level"] == "fatal")
        .and_then(|entry| entry["msg"].as_str().map(str::to_owned))
}

/// A program of the same build: beside this one, in PATH, or in a libexec directory.
pub(crate) fn companion(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find own program")?;
    let beside = own.parent().map(|directory| directory.join(name));
    let usual = ["/usr/local/libexec/floe", "/usr/libexec/floe"];
    beside
        .into_iter()
        .filter(|path| path.is_file())
        .chain(on_path(OsStr::new(name)))
        .chain(usual.map(|directory| Path::new(directory).join(name)))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            anyhow!(
                "no program `{name}` beside `{}` or in PATH\ninstall it there",
                own.display()
            )
        })
}

fn on_path(name: &OsStr) -> Option<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        return std::fs::canonicalize(name).ok();
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_dockers() {
        for (message, code) in [
            ("exec: \"nosuch\": executable file not found in $PATH", 127),
            ("exec: \"/x\": stat /x: no such file or directory", 127),
            ("exec: \"/etc/passwd\": permission denied", 126),
            ("exec /x: exec format error", 126),
            ("mount `/a` on `/b`: no such file or directory", 125),
            ("something else", 125),
        ] {
            assert_eq!(code_of(message), code, "{message}");
        }
    }

    #[test]
    fn the_last_error_line_is_the_message() {
        let log = "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"one\"}\n\
                   {\"level\":\"error\",\"msg\":\"two\\u001b[2J\",\"time\":\"t\"}\n";
        assert_eq!(message_of(log, "kill"), "two\\u{1b}[2J");
        assert_eq!(message_of("plain words\n", "kill"), "plain words");
        assert_eq!(message_of("", "kill"), "runtime kill failed without a word");
    }
}
