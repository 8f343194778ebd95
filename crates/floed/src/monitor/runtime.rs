//! The OCI runtime, by its command line.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use monitor::files::RUNTIME_LOG;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::options::Options;

/// Our ends of a created container's standard streams. With a terminal, `input` and `output` are
/// two descriptors of its master and there is no `errors`.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) init: Pid,
    pub(super) input: Option<OwnedFd>,
    pub(super) output: OwnedFd,
    pub(super) errors: Option<OwnedFd>,
}

/// Makes the container; its program does not run yet.
pub(super) fn create(options: &Options) -> Result<Created, String> {
    let pid_file = options.run_dir.join("pid");
    let mut command = match &options.restore {
        None => subcommand(options, "create"),
        Some(images) => restore(options, images),
    };
    command
        .arg("--bundle")
        .arg(&options.bundle)
        .arg("--pid-file")
        .arg(&pid_file);
    let (input, output, errors) = if options.terminal {
        let (listener, path) = console_socket(options)?;
        command.arg("--console-socket").arg(path).arg(&options.id);
        run(command)?;
        let master = receive_master(&listener)?;
        let input = master
            .try_clone()
            .map_err(|error| format!("duplicate terminal: {error}"))?;
        (Some(input), master, None)
    } else {
        let (output, theirs_output) = pipe()?;
        let (errors, theirs_errors) = pipe()?;
        let mut input = None;
        if options.interactive {
            let (theirs, ours) = pipe()?;
            command.stdin(theirs);
            input = Some(ours);
        }
        command
            .stdout(theirs_output)
            .stderr(theirs_errors)
            .arg(&options.id);
        run(command)?;
        (input, output, Some(errors))
    };
    for fd in [input.as_ref(), Some(&output), errors.as_ref()]
        .into_iter()
        .flatten()
    {
        rustix::io::ioctl_fionbio(fd, true)
            .map_err(|errno| format!("make pipe non-blocking: {}", sys::errno::describe(errno)))?;
    }
    let text = std::fs::read_to_string(&pid_file)
        .map_err(|error| format!("read `{}`: {error}", pid_file.display()))?;
    let init = text.trim().parse().ok().and_then(Pid::from_raw);
    let init = init.ok_or_else(|| format!("`{}`: no pid", pid_file.display()))?;
    Ok(Created {
        init,
        input,
        output,
        errors,
    })
}

/// Makes it from images: its processes run at once. What the checkpoint allowed is in the images.
fn restore(options: &Options, images: &Path) -> Command {
    let mut command = subcommand(options, "restore");
    command
        .args([
            "--detach",
            "--tcp-established",
            "--file-locks",
            "--ext-unix-sk",
        ])
        .arg("--image-path")
        .arg(images)
        .arg("--work-path")
        .arg(&options.run_dir);
    command
}

/// Lets the created container's program run.
pub(super) fn start(options: &Options) -> Result<(), String> {
    let mut command = subcommand(options, "start");
    command.arg(&options.id);
    run(command)
}

/// Removes what the runtime keeps of the container: its group and state. `force` kills it first.
pub(super) fn delete(options: &Options, force: bool) -> Result<(), String> {
    let mut command = subcommand(options, "delete");
    if force {
        command.arg("--force");
    }
    command.arg(&options.id);
    run(command)
}

/// The runtime's flag for groups that systemd makes.
const SYSTEMD: &str = "--systemd-cgroup";

fn subcommand(options: &Options, name: &str) -> Command {
    let mut command = Command::new(&options.runtime);
    command.arg("--root").arg(&options.runtime_root);
    command
        .arg("--log")
        .arg(options.run_dir.join(RUNTIME_LOG))
        .args(["--log-format", "json"]);
    if options.systemd_cgroup {
        command.arg(SYSTEMD);
    }
    command.arg(name);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Ours are blocked, and the container's first process would inherit that.
    sys::child::unblock_signals(&mut command);
    command
}

fn run(mut command: Command) -> Result<(), String> {
    let name = command
        .get_args()
        .skip(6)
        .find(|argument| *argument != SYSTEMD)
        .map(OsStr::to_owned)
        .unwrap_or_default();
    let status = command
        .status()
        .map_err(|error| format!("execute `{}`: {error}", command.get_program().display()))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("runtime {}: {status}", name.display()))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| format!("make pipe: {}", sys::errno::describe(errno)))
}

/// A socket on which the runtime sends the terminal's master. The monitor's working directory is
/// the runtime directory, so that its own bind needs no path of any length.
fn console_socket(options: &Options) -> Result<(OwnedFd, PathBuf), String> {
    let told = |errno| format!("make console socket: {}", sys::errno::describe(errno));
    // Of an earlier run of this container.
    let _ = std::fs::remove_file("console");
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(told)?;
    bind(&socket, &SocketAddrUnix::new("console").map_err(told)?).map_err(told)?;
    listen(&socket, 1).map_err(told)?;
    let path = options.run_dir.join("console");
    let path = if SocketAddrUnix::new(path.as_path()).is_ok() {
        path
    } else {
        PathBuf::from(format!("/proc/{}/cwd/console", std::process::id()))
    };
    Ok((socket, path))
}

fn receive_master(listener: &OwnedFd) -> Result<OwnedFd, String> {
    let told = |errno| format!("receive terminal: {}", sys::errno::describe(errno));
    // The runtime has ended, so a connection that is not there now will never come.
    rustix::io::ioctl_fionbio(listener, true).map_err(told)?;
    let connection = accept_with(listener, SocketFlags::CLOEXEC).map_err(told)?;
    let mut name = [0_u8; 4096];
    let (_, fds) = sys::message::receive(&connection, &mut name).map_err(told)?;
    let _ = std::fs::remove_file("console");
    fds.into_iter()
        .next()
        .ok_or_else(|| "receive terminal: no descriptor came".to_owned())
}
