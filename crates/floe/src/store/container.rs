//! One container: its directory, its record, the state it is in.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use monitor::clock::Moment;
use monitor::files::{EXIT, Exit, LOCK, Phase, SOCKET, STATUS, Status, replace};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::Store;
use super::record::Record;
use crate::command::group::account::write_down_container;
use crate::runtime::Runtime;

/// The mark that `floe pause` leaves in the runtime directory, so that `ps` need not ask the
/// runtime about each container.
pub(crate) const PAUSED: &str = "paused";

/// A container that exists.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) record: Record,
    pub(crate) dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) word: Word,
    /// Its first process in the host's numbering, while it runs.
    pub(crate) pid: Option<i32>,
    pub(crate) started: String,
    pub(crate) restarts: u32,
    /// How its last run ended.
    pub(crate) exit: Option<Exit>,
}

/// The state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
}

impl Word {
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }

    /// Whether a monitor holds it.
    #[must_use]
    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

impl Container {
    /// Reads a container's record.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(crate) fn load(store: &Store, id: &str) -> Result<Self> {
        let dir = store.containers().join(id);
        let path = dir.join("config.json");
        let text = std::fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        let record: Record =
            serde_json::from_slice(&text).with_context(|| format!("read `{}`", path.display()))?;
        Ok(Self {
            record,
            dir,
            run_dir: store.run.join(id),
        })
    }

    /// The container under the first letters of its id, as tables show it.
    #[must_use]
    pub(crate) fn short_id(&self) -> &str {
        self.record.id.get(..12).unwrap_or(&self.record.id)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// Those of writing and renaming a file.
    pub(crate) fn save(&self) -> Result<()> {
        let path = self.dir.join("config.json");
        let mut text = serde_json::to_vec_pretty(&self.record)?;
        text.push(b'\n');
        replace_durably(&path, &text)
    }

    /// Locks the container against other commands until the descriptor is dropped.
    ///
    /// # Errors
    /// It has been removed meanwhile.
    pub(crate) fn lock(&self) -> Result<OwnedFd> {
        self.lock_with(FlockOperation::LockExclusive)
    }

    fn lock_with(&self, operation: FlockOperation) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&self.dir, flags, Mode::empty())
            .with_context(|| format!("open `{}`", self.dir.display()))?;
        flock(&fd, operation).with_context(|| format!("lock `{}`", self.dir.display()))?;
        if !self.dir.join("config.json").exists() {
            bail!("container `{}` has just been removed", self.record.name);
        }
        Ok(fd)
    }

    /// The path of the OCI bundle.
    #[must_use]
    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    /// What the container is doing; a monitor that was killed is noticed here, and what it left
    /// is cleaned up.
    ///
    /// # Errors
    /// Those of reading its files.
    pub(crate) fn state(&self, store: &Store) -> Result<State> {
        self.state_with(store, true)
    }

    /// The same for a caller that holds the container's lock.
    ///
    /// # Errors
    /// Those of reading its files.
    pub(crate) fn state_locked(&self, store: &Store) -> Result<State> {
        self.state_with(store, false)
    }

    fn state_with(&self, store: &Store, lock: bool) -> Result<State> {
        let exit = self.exit();
        let Some(status) = self.status() else {
            return Ok(State {
                word: if exit.is_some() {
                    Word::Exited
                } else {
                    Word::Created
                },
                pid: None,
                started: exit
                    .as_ref()
                    .map(|exit| exit.started.clone())
                    .unwrap_or_default(),
                restarts: 0,
                exit,
            });
        };
        if status.phase != Phase::Exited && !self.is_held() {
            let _lock = lock.then(|| self.lock()).transpose()?;
            self.repair(store, &status)?;
            return Ok(State {
                word: Word::Exited,
                pid: None,
                started: status.started,
                restarts: status.restarts,
                exit: self.exit(),
            });
        }
        let word = match status.phase {
            Phase::Created => Word::Created,
            Phase::Running if self.is_paused() => Word::Paused,
            Phase::Running => Word::Running,
            Phase::Restarting => Word::Restarting,
            Phase::Exited => Word::Exited,
        };
        let pid = (status.pid > 0 && word.is_live()).then_some(status.pid);
        Ok(State {
            word,
            pid,
            started: status.started,
            restarts: status.restarts,
            exit,
        })
    }

    /// The pid of the running container's first process.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn running_pid(&self, store: &Store) -> Result<i32> {
        let state = self.state(store)?;
        match (state.word, state.pid) {
            (Word::Running | Word::Paused, Some(pid)) => Ok(pid),
            (word, _) => bail!(
                "container `{}` is {}, not running\n`floe start {}` starts it",
                self.record.name,
                word.name(),
                self.record.name
            ),
        }
    }

    /// The pid of the monitor, as it last wrote it.
    #[must_use]
    pub(crate) fn monitor(&self) -> Option<i32> {
        self.status().map(|status| status.monitor)
    }

    /// # Errors
    /// The container is sealed (`--no-enter`).
    pub(crate) fn refuse_if_sealed(&self, operation: &str) -> Result<()> {
        if self.record.no_enter {
            bail!(
                "{operation} `{}`: the container is sealed (--no-enter)",
                self.record.name
            );
        }
        Ok(())
    }

    fn status(&self) -> Option<Status> {
        Status::parse(&std::fs::read_to_string(self.run_dir.join(STATUS)).ok()?)
    }

    /// How the last run ended.
    #[must_use]
    pub(crate) fn exit(&self) -> Option<Exit> {
        Exit::parse(&std::fs::read_to_string(self.dir.join(EXIT)).ok()?)
    }

    /// Whether a monitor lives.
    #[must_use]
    pub(crate) fn is_held(&self) -> bool {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::open(self.run_dir.join(LOCK), flags, Mode::empty()) else {
            return false;
        };
        // Released at once, by the drop: a monitor that is just starting tries again.
        flock(&fd, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Waits until the monitor of an ended container is gone; whether it is.
    #[must_use]
    pub(crate) fn wait_released(&self) -> bool {
        (0..200).any(|_| {
            let released = !self.is_held();
            if !released {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            released
        })
    }

    fn is_paused(&self) -> bool {
        self.run_dir.join(PAUSED).exists()
    }

    /// Ends what a killed monitor left: without it nobody reads the output or learns the status.
    fn repair(&self, store: &Store, status: &Status) -> Result<()> {
        // Somebody else may have been faster, or started it again.
        if self.is_held() || self.status().as_ref() != Some(status) {
            return Ok(());
        }
        write_down_container(self, store, &status.started);
        Runtime::find(store)?.delete_force(&self.record.id)?;
        let exit = Exit {
            code: 255,
            started: status.started.clone(),
            finished: Moment::now().to_string(),
            asked: false,
            error: "its monitor was killed; the exit status is unknown".to_owned(),
        };
        let path = self.dir.join(EXIT);
        replace(&path, exit.format().as_bytes())
            .with_context(|| format!("write `{}`", path.display()))?;
        for name in [STATUS, SOCKET, PAUSED] {
            // What is not there need not be removed.
            let _ = std::fs::remove_file(self.run_dir.join(name));
        }
        Ok(())
    }
}

/// Writes a file so that after a crash of the machine it is the old one or the new one.
pub(crate) fn replace_durably(path: &std::path::Path, text: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("new{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        std::io::Write::write_all(&mut file, text)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("write `{}`", path.display()))
}
