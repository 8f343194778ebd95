//! Descriptors that become readable when a group runs short of memory, or under pressure.

use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags, open};
use sys::Errno;

use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::file;
use crate::group::Group;
use crate::plan::Place;

/// Tells of a group's memory running out. Readable (`POLLIN`) when [`OomWatch::take`] has news.
#[derive(Debug)]
pub struct OomWatch {
    group: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// v1's eventfd; the kernel ends the notices when `_control` is closed.
    Eventfd { notices: OwnedFd, _control: OwnedFd },
    /// v2's counters, which change under inotify.
    Counters { changes: OwnedFd, seen: u64 },
}

/// What an [`OomWatch`] has seen since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oom {
    /// So many times the group was out of memory (v1) or had a process killed (v2); 0 after a
    /// wakeup about something else.
    Times(u64),
    /// The group has no more processes, or is gone.
    Ended,
}

/// How short memory is, in v1's three steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLevel {
    /// The kernel reclaims.
    Low,
    /// It swaps, or drops pages in use.
    Medium,
    /// It is about to run out.
    Critical,
}

/// A resource whose pressure stall information can be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stalled {
    Cpu,
    Memory,
    Io,
}

/// When to tell of pressure: tasks waited for `stall` within `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    pub resource: Stalled,
    /// All tasks waited at once, not just some.
    pub full: bool,
    pub stall: Duration,
    /// 500 ms to 10 s; a multiple of 2 s without CAP_SYS_RESOURCE.
    pub window: Duration,
}

impl Group {
    /// Watches for the group's memory running out.
    ///
    /// # Errors
    /// No memory controller, or the group is gone.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let (place, group) = self.memory_place("watch for lack of memory")?;
        let source = match place {
            Place::V1(_) => {
                let (notices, control) = notices_v1(group, "memory.oom_control", "")?;
                Source::Eventfd {
                    notices,
                    _control: control,
                }
            }
            Place::V2 => {
                let fails = |errno| Error::kernel("watch", group, errno);
                let changes =
                    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(fails)?;
                for name in ["memory.events", "cgroup.events"] {
                    inotify::add_watch(&changes, group.join(name), WatchFlags::MODIFY)
                        .map_err(fails)?;
                }
                let seen = kills(group).unwrap_or_default();
                Source::Counters { changes, seen }
            }
        };
        Ok(OomWatch {
            group: group.to_path_buf(),
            source,
        })
    }

    /// v1's notice of memory pressure: an eventfd, readable when the level was reached.
    ///
    /// # Errors
    /// The memory controller is not on v1, or the group is gone.
    pub fn watch_memory_level(&self, level: MemoryLevel) -> Result<(OwnedFd, OwnedFd)> {
        let (place, group) = self.memory_place("watch memory pressure")?;
        if place == Place::V2 {
            let cause = "the memory controller is on v2; watch stalls";
            return Err(self.describe_error("watch memory pressure", cause));
        }
        let level = match level {
            MemoryLevel::Low => "low",
            MemoryLevel::Medium => "medium",
            MemoryLevel::Critical => "critical",
        };
        notices_v1(group, "memory.pressure_level", level)
    }

    /// The kernel's own watch over pressure stall information, on v2 and hybrid hosts: raises
    /// `POLLPRI`, at most once per window, and `POLLERR` when the group is gone.
    ///
    /// # Errors
    /// No v2 group, pressure information switched off (`EOPNOTSUPP`), or a window that the
    /// caller may not use (`EINVAL`).
    pub fn watch_stall(&self, trigger: &Trigger) -> Result<OwnedFd> {
        let Some(group) = self.v2_path() else {
            return Err(self.describe_error("watch pressure", "no v2 group on this host"));
        };
        let name = match trigger.resource {
            Stalled::Cpu => "cpu.pressure",
            Stalled::Memory => "memory.pressure",
            Stalled::Io => "io.pressure",
        };
        let path = group.join(name);
        let fails = |errno| Error::kernel("watch pressure with", &path, errno);
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let watch = open(&path, flags, Mode::empty()).map_err(fails)?;
        let kind = if trigger.full { "full" } else { "some" };
        let (stall, window) = (trigger.stall.as_micros(), trigger.window.as_micros());
        rustix::io::write(&watch, format!("{kind} {stall} {window}").as_bytes()).map_err(fails)?;
        Ok(watch)
    }

    fn memory_place(&self, operation: &str) -> Result<(Place, &Path)> {
        self.place_of(Controller::Memory).ok_or_else(|| {
            self.describe_error(operation, "no usable memory controller on this host")
        })
    }
}

impl OomWatch {
    /// What happened since the last call; never waits.
    ///
    /// # Errors
    /// The kernel's notice cannot be read.
    pub fn take(&mut self) -> Result<Oom> {
        let fails = |errno| Error::kernel("read notice of", &self.group, errno);
        let times = match &mut self.source {
            Source::Eventfd { notices, .. } => {
                let mut count = [0; 8];
                match rustix::io::read(notices, &mut count) {
                    Ok(_) => u64::from_ne_bytes(count),
                    Err(Errno::AGAIN) => 0,
                    Err(errno) => return Err(fails(errno)),
                }
            }
            Source::Counters { changes, seen } => {
                drain(changes).map_err(fails)?;
                let Ok(now) = kills(&self.group) else {
                    return Ok(Oom::Ended);
                };
                let times = now.saturating_sub(*seen);
                *seen = now;
                if times == 0 && !populated(&self.group) {
                    return Ok(Oom::Ended);
                }
                return Ok(Oom::Times(times));
            }
        };
        // v1 notices the removal of the group too, but may do so late.
        let exists = rustix::fs::access(&self.group, rustix::fs::Access::EXISTS).is_ok();
        Ok(if exists {
            Oom::Times(times)
        } else {
            Oom::Ended
        })
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Eventfd { notices, .. } => notices.as_fd(),
            Source::Counters { changes, .. } => changes.as_fd(),
        }
    }
}

/// Asks v1 for notices about a file: an eventfd, and the file's descriptor to keep open.
fn notices_v1(group: &Path, name: &str, argument: &str) -> Result<(OwnedFd, OwnedFd)> {
    let fails = |errno| Error::kernel("watch", &group.join(name), errno);
    let notices = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(fails)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let control = open(group.join(name), flags, Mode::empty()).map_err(fails)?;
    let mut request = format!("{} {}", notices.as_raw_fd(), control.as_raw_fd());
    if !argument.is_empty() {
        // Writing to a String does not fail.
        let _ = write!(request, " {argument}");
    }
    file::write(&group.join("cgroup.event_control"), &request).map_err(fails)?;
    Ok((notices, control))
}

fn kills(group: &Path) -> Result<u64> {
    let events = file::read(&group.join("memory.events"))?;
    Ok(field(&events, "oom_kill"))
}

fn populated(group: &Path) -> bool {
    file::read(&group.join("cgroup.events")).is_ok_and(|events| field(&events, "populated") != 0)
}

fn field(text: &str, name: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_default()
}

/// Takes all that inotify has: only that there was something matters.
fn drain(changes: &OwnedFd) -> sys::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut reader = inotify::Reader::new(changes, &mut buffer);
    loop {
        match reader.next() {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}
