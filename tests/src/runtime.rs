//! The runtime under test and what one call of it came to.

use crate::bundle::built_program;
use crate::leftovers::MARK;
use std::env;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// A program with runc's command line.
#[derive(Debug, Clone)]
pub struct Runtime {
    program: PathBuf,
}

impl Default for Runtime {
    /// The program that `FLOE_TEST_RUNTIME` names, or the `floe-oci` of this build.
    fn default() -> Self {
        Self::at(
            env::var_os("FLOE_TEST_RUNTIME")
                .map_or_else(|| built_program("floe-oci"), PathBuf::from),
        )
    }
}

impl Runtime {
    /// The runtime installed at `program`.
    #[must_use]
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// The path of the program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether this is floe's own runtime: what only floe promises is asserted only then.
    #[must_use]
    pub fn is_floe(&self) -> bool {
        self.program
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("floe"))
    }

    /// A command of this runtime with a state directory of its own, marked as belonging to test `id`.
    #[must_use]
    pub fn command(&self, state: &Path, id: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(state)
            .env(MARK, id)
            .stdin(Stdio::null());
        command
    }
}

/// What a call printed and how it ended.
#[derive(Debug)]
pub struct Outcome {
    command: String,
    code: i32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Outcome {
    /// Runs `command` to its end, its output going to files in `directory`.
    ///
    /// Files, not pipes: what a created container's process inherits would keep a pipe open, and the
    /// reader waiting, for as long as it lives.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn of(command: &mut Command, directory: &Path) -> Self {
        let paths = ["stdout", "stderr"]
            .map(|name| directory.join(format!("{name}.{}", crate::unique_id())));
        let [stdout, stderr] = paths
            .each_ref()
            .map(|path| File::create(path).expect("file for output"));
        let status = command.stdout(stdout).stderr(stderr).status();
        let status = status.unwrap_or_else(|error| panic!("execute {command:?}: {error}"));
        let [stdout, stderr] = paths.map(|path| std::fs::read(path).expect("file with output"));
        Self {
            command: format!("{command:?}"),
            code: code(status),
            stdout,
            stderr,
        }
    }

    /// The exit status as a shell shows it: 128 and the number for a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }

    /// Everything on the standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Everything on the standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The standard output as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| self.reject(&format!("no JSON: {error}")))
    }

    /// Asserts the exit status.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        if self.code == code {
            self
        } else {
            self.reject(&format!("expected exit status {code}"))
        }
    }

    /// Asserts exit status 0.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// Asserts an exit status other than 0.
    #[track_caller]
    pub fn fails(self) -> Self {
        if self.code == 0 {
            self.reject("expected a failure")
        } else {
            self
        }
    }

    /// Asserts the whole standard output.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        if self.stdout() == text {
            self
        } else {
            self.reject(&format!("expected the output {text:?}"))
        }
    }

    /// Asserts that the standard output has this line.
    #[track_caller]
    pub fn prints_line(self, line: &str) -> Self {
        if self.stdout().lines().any(|other| other == line) {
            self
        } else {
            self.reject(&format!("expected the line {line:?}"))
        }
    }

    /// Asserts that the standard error contains `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        if self.stderr().contains(text) {
            self
        } else {
            self.reject(&format!("expected an error with {text:?}"))
        }
    }

    #[track_caller]
    fn reject(&self, why: &str) -> ! {
        panic!(
            "{why}\ncommand: {}\nexit status: {}\nstdout: {}\nstderr: {}",
            self.command,
            self.code,
            self.stdout(),
            self.stderr()
        );
    }
}

fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}
