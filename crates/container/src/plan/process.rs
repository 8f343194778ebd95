//! `process` of the configuration to values that need no further thought.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sys::process::Limit;
use sys::scheduling::Attributes;

use super::Options;
use super::mount::{MountStep, What};
use crate::error::{During, Error, Result};
use crate::spec;

/// A process to be started.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) arguments: Vec<CString>,
    /// `NAME=value`, in the order given; a later one of the same name wins, as it does for shells.
    pub(crate) environment: Vec<CString>,
    pub(crate) cwd: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: u32,
    pub(crate) limits: Vec<(u32, String, Limit)>,
    pub(crate) scheduler: Option<Attributes>,
    /// Class and level of ioprio_set(2).
    pub(crate) io_priority: Option<(u16, u16)>,
    /// Descriptors after the standard ones that the program inherits.
    pub(crate) inherited_fds: u32,
}

/// The names of setrlimit(2) and their numbers.
const LIMITS: &[(&str, u32)] = &[
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

impl Plan {
    /// For a container without a program, which ends when it is started.
    pub(crate) fn nothing() -> Plan {
        Plan {
            arguments: Vec::new(),
            environment: Vec::new(),
            cwd: PathBuf::from("/"),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            umask: 0o022,
            limits: Vec::new(),
            scheduler: None,
            io_priority: None,
            inherited_fds: 0,
        }
    }

    /// Decides from the configuration; `caller` is the environment of the runtime, of which the
    /// socket-activation variables pass through.
    pub(crate) fn new(
        process: &spec::Process,
        options: &Options,
        caller: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Plan> {
        let text = |field: &str, value: &str| {
            CString::new(value).map_err(|_| Error::plain(format!("process.{field}: holds a NUL")))
        };
        let texts = |field: &str, values: &[String]| {
            values
                .iter()
                .map(|value| text(field, value))
                .collect::<Result<Vec<CString>>>()
        };
        let arguments = texts("args", &process.args)?;
        if arguments.is_empty() {
            return Err(Error::plain("process.args: is empty"));
        }
        let mut environment = texts("env", &process.env)?;
        let listen = pass_listen_fds(&mut environment, caller);
        Ok(Plan {
            arguments,
            environment,
            cwd: process.cwd.clone(),
            uid: process.user.uid,
            gid: process.user.gid,
            groups: distinct(&process.user.additional_gids),
            umask: process.user.umask.unwrap_or(0o022),
            limits: limits(&process.rlimits)?,
            scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
            inherited_fds: options.preserve_fds.saturating_add(listen),
        })
    }
}

/// Where the service manager's socket is in the container.
const NOTIFY_SOCKET: &str = "/run/notify/notify.sock";

impl Plan {
    /// Hands the service manager's socket (sd_notify(3)) on: bound into the container under a path
    /// of ours. An abstract one (`@…`) is reached through the network namespace, if at all. A
    /// configuration that names a socket itself is left alone.
    pub(crate) fn pass_notify_socket(&mut self, socket: &Path) -> Option<MountStep> {
        let named = |line: &CString| line.as_bytes().starts_with(b"NOTIFY_SOCKET=");
        if self.environment.iter().any(named) || socket.as_os_str().is_empty() {
            return None;
        }
        let inside = if socket.is_absolute() {
            Path::new(NOTIFY_SOCKET)
        } else {
            socket
        };
        let line = [b"NOTIFY_SOCKET=", inside.as_os_str().as_bytes()].concat();
        self.environment.extend(CString::new(line));
        socket.is_absolute().then(|| MountStep {
            destination: inside.to_owned(),
            what: What::Bind {
                source: socket.to_owned(),
                scope: sys::mount::Scope::One,
            },
            attributes: sys::mount::Attributes::default(),
            tree_attributes: sys::mount::Attributes::default(),
            copy_up: false,
            late_read_only: false,
            id_map: None,
        })
    }
}

/// Engines name a group twice that they add to one the user is in; `id` would show both.
fn distinct(groups: &[u32]) -> Vec<u32> {
    let mut seen = Vec::with_capacity(groups.len());
    for group in groups {
        if !seen.contains(group) {
            seen.push(*group);
        }
    }
    seen
}

/// Hands LISTEN_FDS (sd_listen_fds(3)) on: the descriptors stay where they are, and the pid they
/// are meant for is the container's first process. How many there are.
///
/// Variables that name another process are a leftover of whoever started the engine: what is open
/// at those numbers by now is not for the container.
fn pass_listen_fds(
    environment: &mut Vec<CString>,
    caller: impl Iterator<Item = (OsString, OsString)>,
) -> u32 {
    let (mut count, mut pid) = (0, 0);
    let mut lines = Vec::new();
    for (name, value) in caller {
        let number = value.to_str().and_then(|value| value.parse::<u32>().ok());
        match name.as_bytes() {
            b"LISTEN_PID" => pid = number.unwrap_or(0),
            b"LISTEN_FDS" => count = number.unwrap_or(0),
            b"LISTEN_FDNAMES" => {}
            _ => continue,
        }
        if name != "LISTEN_PID" {
            let line = [name.as_bytes(), b"=", value.as_bytes()].concat();
            lines.extend(CString::new(line));
        }
    }
    if count == 0 || pid != std::process::id() {
        return 0;
    }
    environment.append(&mut lines);
    environment.push(c"LISTEN_PID=1".to_owned());
    count
}

fn limits(list: &[spec::Rlimit]) -> Result<Vec<(u32, String, Limit)>> {
    let one = |(index, limit): (usize, &spec::Rlimit)| {
        let known = LIMITS.iter().find(|(name, _)| *name == limit.kind);
        let (name, number) = known.ok_or_else(|| {
            let field = format!("process.rlimits[{index}].type");
            Error::new(
                field,
                format!("`{}` is not a limit", limit.kind.escape_default()),
            )
        })?;
        Ok((
            *number,
            (*name).to_owned(),
            Limit {
                soft: limit.soft,
                hard: limit.hard,
            },
        ))
    };
    list.iter().enumerate().map(one).collect()
}

fn scheduler(wanted: &spec::Scheduler) -> Result<Attributes> {
    let flags = wanted.flags.iter().fold(0, |flags, flag| {
        flags
            | match flag {
                spec::SchedulerFlag::ResetOnFork => 0x01,
                spec::SchedulerFlag::Reclaim => 0x02,
                spec::SchedulerFlag::DlOverrun => 0x04,
                spec::SchedulerFlag::KeepPolicy => 0x08,
                spec::SchedulerFlag::KeepParams => 0x10,
                spec::SchedulerFlag::UtilClampMin => 0x20,
                spec::SchedulerFlag::UtilClampMax => 0x40,
            }
    });
    let policy = match wanted.policy {
        spec::SchedulerPolicy::SchedOther => 0,
        spec::SchedulerPolicy::SchedFifo => 1,
        spec::SchedulerPolicy::SchedRr => 2,
        spec::SchedulerPolicy::SchedBatch => 3,
        spec::SchedulerPolicy::SchedIso => 4,
        spec::SchedulerPolicy::SchedIdle => 5,
        spec::SchedulerPolicy::SchedDeadline => 6,
    };
    let mut attributes = Attributes::default();
    attributes.policy = policy;
    attributes.flags = flags;
    attributes.nice = wanted.nice;
    attributes.priority = u32::try_from(wanted.priority)
        .map_err(|_| Error::plain("process.scheduler.priority: is negative"))?;
    attributes.runtime = wanted.runtime;
    attributes.deadline = wanted.deadline;
    attributes.period = wanted.period;
    Ok(attributes)
}

fn io_priority(wanted: &spec::IoPriority) -> Result<(u16, u16)> {
    let class = match wanted.class {
        spec::IoPriorityClass::RealTime => 1,
        spec::IoPriorityClass::BestEffort => 2,
        spec::IoPriorityClass::Idle => 3,
    };
    let level = u16::try_from(wanted.priority)
        .ok()
        .filter(|level| *level <= 7);
    let level = level.ok_or_else(|| {
        Error::plain(format!(
            "process.ioPriority.priority: {} is not 0 to 7",
            wanted.priority
        ))
    })?;
    Ok((class, level))
}

/// Sets `linux.memoryPolicy` for the calling thread.
pub(crate) fn set_memory_policy(wanted: &spec::MemoryPolicy) -> Result<()> {
    let mode = match wanted.mode {
        spec::MemoryPolicyMode::Default => 0,
        spec::MemoryPolicyMode::Preferred => 1,
        spec::MemoryPolicyMode::Bind => 2,
        spec::MemoryPolicyMode::Interleave => 3,
        spec::MemoryPolicyMode::Local => 4,
        spec::MemoryPolicyMode::PreferredMany => 5,
        spec::MemoryPolicyMode::WeightedInterleave => 6,
    };
    let flags = wanted.flags.iter().fold(0, |flags, flag| {
        flags
            | match flag {
                spec::MemoryPolicyFlag::NumaBalancing => 1 << 13,
                spec::MemoryPolicyFlag::RelativeNodes => 1 << 14,
                spec::MemoryPolicyFlag::StaticNodes => 1 << 15,
            }
    });
    let ranges = spec::ranges(wanted.nodes.as_deref().unwrap_or_default());
    let nodes: Vec<u32> = ranges.into_iter().flatten().flatten().take(1024).collect();
    sys::scheduling::set_memory_policy(mode | flags, &nodes).during(|| "linux.memoryPolicy: set")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(process: &spec::Process, caller: &[(&str, &str)]) -> Result<Plan> {
        let caller = caller
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        Plan::new(process, &Options::default(), caller)
    }

    fn shell() -> spec::Process {
        spec::Process {
            args: vec!["sh".into()],
            ..spec::Process::default()
        }
    }

    #[test]
    fn socket_activation_passes_through() {
        let own = std::process::id().to_string();
        let two = [
            ("LISTEN_FDS", "2"),
            ("LISTEN_PID", own.as_str()),
            ("HOME", "/x"),
        ];
        let plan = planned(&shell(), &two).unwrap();
        assert_eq!(plan.inherited_fds, 2);
        let lines = [c"LISTEN_FDS=2".to_owned(), c"LISTEN_PID=1".to_owned()];
        assert_eq!(plan.environment, lines);
        for others in [
            &[][..],
            &[("LISTEN_FDS", "2")],
            &[("LISTEN_FDS", "2"), ("LISTEN_PID", "1")],
            &[("LISTEN_FDS", "-1"), ("LISTEN_PID", own.as_str())],
        ] {
            let plan = planned(&shell(), others).unwrap();
            assert_eq!(
                (plan.inherited_fds, plan.environment.len()),
                (0, 0),
                "{others:?}"
            );
        }
    }

    #[test]
    fn the_service_managers_socket_is_bound_in() {
        let mut plan = planned(&shell(), &[]).unwrap();
        let step = plan
            .pass_notify_socket(Path::new("/run/systemd/notify"))
            .unwrap();
        assert_eq!(step.destination, Path::new(NOTIFY_SOCKET));
        assert_eq!(
            plan.environment,
            [c"NOTIFY_SOCKET=/run/notify/notify.sock".to_owned()]
        );
        assert_eq!(plan.pass_notify_socket(Path::new("/other")), None);
    }

    #[test]
    fn a_group_named_twice_is_one() {
        let mut process = shell();
        process.user.additional_gids = vec![10, 7, 10];
        assert_eq!(planned(&process, &[]).unwrap().groups, [10, 7]);
    }

    #[test]
    fn errors_name_the_field() {
        let bad_limit = spec::Process {
            rlimits: vec![spec::Rlimit {
                kind: "RLIMIT_X".into(),
                ..spec::Rlimit::default()
            }],
            ..shell()
        };
        for (process, text) in [
            (spec::Process::default(), "process.args: is empty"),
            (
                bad_limit,
                "process.rlimits[0].type: `RLIMIT_X` is not a limit",
            ),
        ] {
            assert_eq!(planned(&process, &[]).unwrap_err().to_string(), text);
        }
    }
}
