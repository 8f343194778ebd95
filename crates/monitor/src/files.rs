//! The files of a container's runtime directory (`/run/floe/ID`) and of its exit.
//!
//! Each is `key=value` lines, written under another name and renamed into place. They are state
//! of a running machine, so nothing is synced to disk.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Held locked by the monitor as long as it lives.
pub const LOCK: &str = "monitor.lock";
/// The monitor's socket.
pub const SOCKET: &str = "attach";
/// [`Status`] as the monitor last knew it.
pub const STATUS: &str = "status";
/// [`Exit`] of the last run; in the container's durable directory.
pub const EXIT: &str = "exit";
/// Where the runtime writes its errors.
pub const RUNTIME_LOG: &str = "runtime.log";

/// What the monitor knows of its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Made, waits for `Start`.
    Created,
    Running,
    /// Waits to be started again.
    Restarting,
    Exited,
}

impl Phase {
    /// The word users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Created, Self::Running, Self::Restarting, Self::Exited]
            .into_iter()
            .find(|phase| phase.name() == text)
    }
}

/// The file [`STATUS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub phase: Phase,
    /// The monitor's own process.
    pub monitor: i32,
    /// The container's first process, in the host's numbering; 0 if it has none.
    pub pid: i32,
    /// Start of the present run; empty before the first.
    pub started: String,
    pub restarts: u32,
}

impl Status {
    #[must_use]
    pub fn format(&self) -> String {
        let Self {
            phase,
            monitor,
            pid,
            started,
            restarts,
        } = self;
        let phase = phase.name();
        format!(
            "phase={phase}\nmonitor={monitor}\npid={pid}\nstarted={started}\nrestarts={restarts}\n"
        )
    }

    /// Reads the file's text; `None` if it lacks a field.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fields = fields(text);
        Some(Self {
            phase: Phase::parse(fields.get("phase")?)?,
            monitor: fields.get("monitor")?.parse().ok()?,
            pid: fields.get("pid")?.parse().ok()?,
            started: (*fields.get("started")?).to_owned(),
            restarts: fields.get("restarts")?.parse().ok()?,
        })
    }
}

/// The file [`EXIT`]: how the last run ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// Exit status; 128 + signal if killed; 255 if nobody was there to see it.
    pub code: u8,
    pub started: String,
    pub finished: String,
    /// Whether it was ended by `stop`, `kill` or `rm`, not by itself.
    pub asked: bool,
    /// Why the status is not the container's own; empty if it is.
    pub error: String,
}

impl Exit {
    #[must_use]
    pub fn format(&self) -> String {
        let Self {
            code,
            started,
            finished,
            asked,
            error,
        } = self;
        let error = error.replace('\n', " ");
        format!(
            "code={code}\nstarted={started}\nfinished={finished}\nasked={asked}\nerror={error}\n"
        )
    }

    /// Reads the file's text; `None` if it lacks a field.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fields = fields(text);
        Some(Self {
            code: fields.get("code")?.parse().ok()?,
            started: (*fields.get("started")?).to_owned(),
            finished: (*fields.get("finished")?).to_owned(),
            asked: *fields.get("asked")? == "true",
            error: (*fields.get("error")?).to_owned(),
        })
    }
}

fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .collect()
}

/// Writes `path` so that a reader sees the old text or the new one, never a part.
///
/// # Errors
/// Those of writing a file beside `path` and renaming it.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new{}", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The error of the write is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_survives_its_file() {
        let status = Status {
            phase: Phase::Restarting,
            monitor: 12,
            pid: 0,
            started: "2026-11-22T03:04:05.000000007Z".to_owned(),
            restarts: 4,
        };
        assert_eq!(Status::parse(&status.format()), Some(status));
        assert_eq!(Status::parse("phase=odd\nmonitor=1\n"), None);
    }

    #[test]
    fn exit_survives_its_file_and_keeps_to_its_lines() {
        let exit = Exit {
            code: 255,
            error: "lost\ncode=0".to_owned(),
            ..Exit::default()
        };
        let read = Exit::parse(&exit.format());
        assert_eq!(
            read.map(|exit| (exit.code, exit.error)),
            Some((255, "lost code=0".to_owned()))
        );
    }
}
