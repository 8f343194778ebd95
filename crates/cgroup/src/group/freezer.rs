//! Freezing a group: v2's freezer, or v1's where there is no v2.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use sys::Errno;

use super::Group;
use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::file;

/// How long a group may take to freeze: a task in an uninterruptible wait holds it up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a group is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    No,
    /// Asked to freeze, with tasks that still run.
    Freezing,
    Yes,
}

impl Group {
    /// Stops every process of the group where it is, and returns once all have stopped.
    ///
    /// # Errors
    /// No freezer, or tasks that do not stop within ten seconds; the group is then thawed.
    pub fn freeze(&self) -> Result<()> {
        let result = match (&self.v2, self.v1_freezer()) {
            (Some(v2), _) => freeze_v2(&v2.path),
            (None, Some(state)) => freeze_v1(&state),
            (None, None) => Err(self.describe_error("freeze group", "no freezer on this host")),
        };
        if result.is_err() {
            drop(self.thaw());
        }
        result
    }

    /// Lets the processes of the group run again.
    ///
    /// # Errors
    /// The group is gone, or may not be written.
    pub fn thaw(&self) -> Result<()> {
        if let Some(v2) = &self.v2 {
            let path = v2.path.join("cgroup.freeze");
            file::write(&path, "0").map_err(|errno| Error::kernel("thaw", &path, errno))?;
        }
        self.thaw_v1()
    }

    /// Whether the group is frozen, by v2's freezer or by v1's.
    ///
    /// # Errors
    /// The group cannot be read. One that is gone is not frozen.
    pub fn frozen(&self) -> Result<Frozen> {
        if let Some(v2) = &self.v2 {
            let wanted = file::read_optional(&v2.path.join("cgroup.freeze"))?;
            if wanted.as_deref().map(str::trim_ascii) == Some("1") {
                let events = file::read(&v2.path.join("cgroup.events"))?;
                let done = events.lines().any(|line| line == "frozen 1");
                return Ok(if done { Frozen::Yes } else { Frozen::Freezing });
            }
        }
        let Some(state) = self.v1_freezer() else {
            return Ok(Frozen::No);
        };
        let text = file::read_optional(&state)?.unwrap_or_default();
        Ok(match text.trim_ascii() {
            "FROZEN" => Frozen::Yes,
            "FREEZING" => Frozen::Freezing,
            _ => Frozen::No,
        })
    }

    /// Thaws v1's freezer if it is not; without one there is nothing to do.
    pub(super) fn thaw_v1(&self) -> Result<()> {
        let Some(state) = self.v1_freezer() else {
            return Ok(());
        };
        match file::read_optional(&state)? {
            Some(text) if text.trim_ascii() != "THAWED" => {
                file::write(&state, "THAWED").map_err(|errno| Error::kernel("thaw", &state, errno))
            }
            _ => Ok(()),
        }
    }

    fn v1_freezer(&self) -> Option<std::path::PathBuf> {
        let freezer = self.at(crate::plan::Place::V1(Controller::Freezer))?;
        Some(freezer.path.join("freezer.state"))
    }
}

fn freeze_v2(group: &std::path::Path) -> Result<()> {
    let fails = |errno| Error::kernel("freeze", group, errno);
    let path = group.join("cgroup.events");
    let events = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fails)?;
    file::write(&group.join("cgroup.freeze"), "1").map_err(fails)?;
    let deadline = Instant::now() + PATIENCE;
    let mut text = [0; 256];
    loop {
        let length = rustix::io::pread(&events, &mut text, 0).map_err(fails)?;
        let mut lines = text
            .get(..length)
            .unwrap_or_default()
            .split(|byte| *byte == b'\n');
        if lines.any(|line| line == b"frozen 1") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(fails(Errno::TIMEDOUT));
        }
        // The kernel raises POLLPRI when the file changes after it was last read.
        let wait = Timespec::try_from(left.min(Duration::from_millis(100))).ok();
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(fails(errno)),
        }
    }
}

/// v1 has no event, and a task that forks while the group freezes can hold it in FREEZING until
/// FROZEN is written again.
fn freeze_v1(state: &std::path::Path) -> Result<()> {
    let fails = |errno| Error::kernel("freeze", state, errno);
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    while Instant::now() < deadline {
        file::write(state, "FROZEN").map_err(fails)?;
        if file::read(state)?.trim_ascii() == "FROZEN" {
            return Ok(());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Err(fails(Errno::TIMEDOUT))
}
