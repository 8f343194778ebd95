//! The resource group that the caller froze, so that nothing of the tree escapes while it is seized.
//!
//! A task of a frozen v1 group cannot reach a stop of ptrace. So everything is seized and told to
//! stop while it is frozen; then the group is thawed, and the first thing that each task does is to
//! stop.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, openat};

use crate::error::{Context, Error, Result};

/// How long a group may take: a task in an uninterruptible wait holds it up.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open group of the v1 freezer or of v2.
#[derive(Debug)]
pub(crate) struct Freezer {
    directory: OwnedFd,
    /// The file that freezes. Open from the start: where v2 is mounted with `nsdelegate`, nobody who
    /// is in the container's cgroup namespace may open it to write.
    control: OwnedFd,
    name: String,
    v2: bool,
    /// Whether the caller had frozen it.
    was_frozen: bool,
}

impl Freezer {
    /// Opens the group at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).during("open group", &name)?;
        let writable = |file| {
            openat(
                &directory,
                file,
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let (control, v2) = match writable("cgroup.freeze") {
            Ok(control) => (control, true),
            Err(sys::Errno::NOENT) => {
                let about = || format!("{name}/freezer.state");
                (writable("freezer.state").during("open", about())?, false)
            }
            Err(errno) => return Err(errno).during("open", format!("{name}/cgroup.freeze")),
        };
        let mut freezer = Self {
            directory,
            control,
            name,
            v2,
            was_frozen: false,
        };
        freezer.was_frozen = match freezer.v2 {
            true => freezer.read("cgroup.freeze")?.trim() == "1",
            false => freezer.read("freezer.state")?.trim() != "THAWED",
        };
        Ok(freezer)
    }

    fn read(&self, file: &str) -> Result<String> {
        let about = || format!("{}/{file}", self.name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = openat(&self.directory, file, flags, Mode::empty()).during("open", about())?;
        std::io::read_to_string(std::fs::File::from(fd)).during("read", about())
    }

    /// Writes v1's word or v2's.
    fn write(&self, value: [&str; 2]) -> Result<()> {
        let value = value[usize::from(self.v2)];
        rustix::io::pwrite(&self.control, value.as_bytes(), 0)
            .during("freeze or thaw group", &self.name)
            .map(drop)
    }

    fn is_frozen(&self) -> Result<bool> {
        if self.v2 {
            let events = self.read("cgroup.events")?;
            return Ok(events.lines().any(|line| line == "frozen 1"));
        }
        Ok(self.read("freezer.state")?.trim() == "FROZEN")
    }

    /// Freezes the group, and waits until all is still.
    pub(crate) fn freeze(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        self.write(["FROZEN", "1"])?;
        while !self.is_frozen()? {
            if Instant::now() > end {
                let cause = "some of its tasks do not stop";
                return Err(Error::because("freeze group", &self.name, cause));
            }
            std::thread::sleep(Duration::from_millis(1));
            // v1 looks at its tasks again when it is written to.
            self.write(["FROZEN", "1"])?;
        }
        Ok(())
    }

    /// Lets the tasks run to their stops.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.write(["THAWED", "0"])
    }

    /// Leaves the group as the caller gave it. Called while all its tasks are stopped.
    pub(crate) fn leave(&self) {
        if self.was_frozen {
            let _ = self.write(["FROZEN", "1"]);
        }
    }
}
