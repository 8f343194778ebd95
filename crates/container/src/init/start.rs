//! The last steps: environment, waiting for `start`, and execution.

use std::ffi::{CString, OsStr};
use std::io::BufRead;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use rustix::net::acceptfrom_with;

use super::{Init, credentials};
use crate::error::{During, Error, Result};
use crate::protocol::{self, Message};
use crate::spec;

/// Gives the container a session keyring of its own: keys of the host's session are not reachable
/// from it, nor its keys from another container (roadmap N16).
pub(super) fn join_keyring(init: &mut Init<'_>) -> Result<()> {
    if init.plan.options.no_new_keyring {
        return Ok(());
    }
    let name = CString::new(format!("_ses.{}", init.plan.id)).unwrap_or_default();
    match sys::keyring::join_session(&name) {
        Ok(serial) => sys::keyring::allow_user_search(serial).during(|| "set permissions"),
        Err(sys::Errno::NOSYS) => Ok(()), // a kernel without keyrings has none to leak
        Err(errno) => Err(errno).during(|| "join"),
    }
}

/// Enters the working directory, unless only the user may, who is not there yet.
pub(super) fn directory(init: &mut Init<'_>) -> Result<()> {
    match rustix::process::chdir(&init.plan.process.cwd) {
        Ok(()) => {}
        Err(sys::Errno::NOENT) => make_cwd(init)?,
        Err(sys::Errno::ACCESS) => return Ok(()),
        Err(errno) => return Err(errno).during(|| describe_cwd(init)),
    }
    init.in_directory = true;
    credentials::directory_is_inside()
}

/// Engines expect a working directory that the image lacks to be made.
fn make_cwd(init: &Init<'_>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).during(|| "open `/`")?;
    let path = &init.plan.process.cwd;
    let made = sys::in_root::open_or_create(&root, path, sys::in_root::Missing::Directory);
    rustix::process::fchdir(made.during(|| describe_cwd(init))?).during(|| describe_cwd(init))
}

fn describe_cwd(init: &Init<'_>) -> String {
    format!(
        "process.cwd: change directory to `{}`",
        init.plan.process.cwd.display()
    )
}

/// Finds the program while errors still reach `create`. A container may have none.
pub(super) fn program(init: &mut Init<'_>) -> Result<()> {
    if !init.plan.process.arguments.is_empty() {
        init.program = Some(find_program(&init.plan.process)?);
    }
    Ok(())
}

/// Looks a program up as a shell would. The texts are the ones that engines match to tell 127 from
/// 126.
pub(crate) fn find_program(process: &crate::plan::process::Plan) -> Result<CString> {
    let name = OsStr::from_bytes(
        process
            .arguments
            .first()
            .map_or(b"", |name| name.as_bytes()),
    );
    let failed = |cause: &str| Error::new(format!("exec: {:?}", name.to_string_lossy()), cause);
    let describe = |errno| match errno {
        sys::Errno::NOENT => "no such file or directory".to_owned(),
        sys::Errno::ACCESS => "permission denied".to_owned(),
        // Engines make 126 of "permission denied" only; a directory lacks nothing but a program.
        sys::Errno::ISDIR => "is a directory: permission denied".to_owned(),
        errno => sys::errno::describe(errno),
    };
    let found = if name.as_bytes().contains(&b'/') {
        executable(Path::new(name)).map_err(|errno| failed(&describe(errno)))?;
        PathBuf::from(name)
    } else {
        let directories = variable(&process.environment, b"PATH=").unwrap_or_default();
        let mut denied = false;
        let mut candidates = directories.split(|byte| *byte == b':').map(|directory| {
            Path::new(if directory.is_empty() {
                OsStr::new(".")
            } else {
                OsStr::from_bytes(directory)
            })
            .join(name)
        });
        let hit = candidates.find(|path| match executable(path) {
            Ok(()) => true,
            Err(errno) => {
                denied |= errno == sys::Errno::ACCESS;
                false
            }
        });
        match (hit, denied) {
            (Some(path), _) => path,
            (None, true) => return Err(failed("permission denied")),
            (None, false) => return Err(failed("executable file not found in $PATH")),
        }
    };
    CString::new(found.into_os_string().into_encoded_bytes()).map_err(|_| failed("holds a NUL"))
}

fn executable(path: &Path) -> sys::Result<()> {
    let found = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err(sys::Errno::ISDIR);
    }
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// The value of the last line that starts with `prefix`, `NAME=`.
fn variable<'a>(environment: &'a [CString], prefix: &[u8]) -> Option<&'a [u8]> {
    environment
        .iter()
        .rev()
        .find_map(|line| line.as_bytes().strip_prefix(prefix))
}

/// Tells the runtime that all is set, then waits until `start` connects.
pub(super) fn wait(init: &mut Init<'_>) -> Result<OwnedFd> {
    let listener = init.inherited.start.take();
    let listener = listener.ok_or_else(|| Error::plain("no socket to wait at"))?;
    close_all_but(init, Some(&listener))?;
    protocol::send(&init.socket, &Message::Ready)?;
    let accepted =
        rustix::io::retry_on_intr(|| acceptfrom_with(&listener, rustix::net::SocketFlags::CLOEXEC));
    accepted
        .map(|(starter, _)| starter)
        .during(|| "wait for `start`")
}

/// As [`wait`], for a process that nobody starts later.
pub(super) fn close_for_join(init: &mut Init<'_>) -> Result<()> {
    close_all_but(init, None)
}

/// What the runtime opened, and what its caller leaked into it, ends here: a directory of the host
/// behind any descriptor is a way out (CVE-2016-9962, CVE-2024-21626).
fn close_all_but(init: &mut Init<'_>, listener: Option<&OwnedFd>) -> Result<()> {
    init.root = None;
    init.null = None;
    init.proc = None;
    init.inherited.sources.clear();
    let first = 3 + init.plan.process.inherited_fds;
    let ours = [
        listener,
        Some(&init.socket),
        init.inherited.seccomp.as_ref(),
    ];
    let keep: Vec<_> = ours.into_iter().flatten().map(AsFd::as_fd).collect();
    sys::fd::close_all_but(first, &keep).during(|| "close descriptors")
}

pub(super) fn hooks(init: &mut Init<'_>) -> Result<()> {
    let hooks = &init.plan.spec.hooks.start_container;
    if hooks.is_empty() {
        return Ok(());
    }
    let state = crate::hooks::state(init.plan, spec::Status::Created, init.pid);
    crate::hooks::run("startContainer", hooks, &state)
}

/// Scheduling policy, I/O priority, memory policy and execution domain.
pub(super) fn scheduling(init: &mut Init<'_>) -> Result<()> {
    let process = &init.plan.process;
    if let Some(attributes) = &process.scheduler {
        sys::scheduling::set(attributes).during(|| "process.scheduler: set")?;
    }
    if let Some((class, level)) = process.io_priority {
        sys::scheduling::set_io_priority(class, level).during(|| "process.ioPriority: set")?;
    }
    let linux = init.plan.linux();
    if let Some(personality) = &linux.personality {
        let domain = match personality.domain {
            spec::PersonalityDomain::Linux => 0,
            spec::PersonalityDomain::Linux32 => 8,
        };
        sys::process::set_personality(domain).during(|| "linux.personality: set")?;
    }
    if let Some(policy) = &linux.memory_policy {
        crate::plan::process::set_memory_policy(policy)?;
    }
    Ok(())
}

/// Sets the limits exactly; where one had to be raised, the runtime has made room for it.
pub(super) fn limits(init: &mut Init<'_>) -> Result<()> {
    for (number, name, limit) in &init.plan.process.limits {
        sys::process::limit(None, *number, Some(limit)).during(|| {
            format!(
                "process.rlimits: set `{name}` to {} (hard {})",
                limit.soft, limit.hard
            )
        })?;
    }
    Ok(())
}

/// Lets the user open its own standard streams again (`/dev/stdout`), as engines expect.
pub(super) fn own_streams(init: &mut Init<'_>) -> Result<()> {
    let uid = rustix::fs::Uid::from_raw(init.plan.process.uid);
    for stream in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let Ok(found) = rustix::fs::fstat(stream) else {
            continue;
        }; // closed is the caller's choice
        let null = found.st_rdev == rustix::fs::makedev(1, 3);
        if null || found.st_uid == uid.as_raw() {
            continue;
        }
        match rustix::fs::fchown(stream, Some(uid), None) {
            // Of a read-only file system, an unmapped owner, or a file that has no owner.
            Ok(()) | Err(sys::Errno::ROFS | sys::Errno::PERM | sys::Errno::INVAL) => {}
            Err(errno) => return Err(errno).during(|| format!("give to uid {}", uid.as_raw())),
        }
    }
    Ok(())
}

/// What exec needs and a filter may forbid: after this only execve is left.
pub(super) fn prepare(init: &mut Init<'_>) -> Result<()> {
    let process = &init.plan.process;
    init.environment = with_home(process);
    sys::signal::reset().during(|| "reset the signals")?;
    sys::fd::close_on_exec_from(3 + process.inherited_fds).during(|| "mark descriptors")
}

/// Executes the program. Returns only the error.
pub(super) fn execute(init: &Init<'_>) -> Error {
    let Some(program) = &init.program else {
        sys::process::leave(0)
    };
    let errno = sys::exec::execve(program, &init.plan.process.arguments, &init.environment);
    Error::new(format!("exec {program:?}"), sys::errno::describe(errno))
}

/// HOME from the container's `/etc/passwd` if the configuration has none.
fn with_home(process: &crate::plan::process::Plan) -> Vec<CString> {
    let mut environment = process.environment.clone();
    if variable(&environment, b"HOME=").is_none_or(<[u8]>::is_empty) {
        let home = home_of(process.uid).unwrap_or_else(|| "/".to_owned());
        environment.retain(|line| !line.as_bytes().starts_with(b"HOME="));
        environment.extend(CString::new(format!("HOME={home}")));
    }
    environment
}

/// Field 6 of the user's line in passwd(5). The file is the tenant's: at most 1 MiB of it is read.
fn home_of(uid: u32) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open("/etc/passwd", flags, Mode::empty()).ok()?;
    let file = std::io::Read::take(std::fs::File::from(file), 1 << 20);
    std::io::BufReader::new(file)
        .lines()
        .map_while(std::io::Result::ok)
        .find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let same = fields.get(2)?.parse::<u32>().ok()? == uid;
            same.then(|| fields.get(5).map(|home| (*home).to_owned()))?
        })
}
