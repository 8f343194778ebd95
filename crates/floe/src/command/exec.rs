//! `floe exec`
//!
//! The program never gets a descriptor of the caller's: a process in the container that held the
//! caller's terminal could type on it. It has pipes or a terminal of its own, and this command
//! copies.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::{Value, json};

use crate::relay::{Relay, Streams};
use crate::runtime::{Runtime, WithCode, code_of, message_of};
use crate::store::Store;
use crate::store::container::Container;
use crate::terminal::{self, Raw};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Leave it running in the background
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set NAME=VALUE, or pass NAME on from here (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file (repeatable)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group, by number, or by name where the container's files tell it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Give it all capabilities
    #[arg(long)]
    privileged: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    let container = store.find(&flags.container)?;
    container.refuse_if_sealed("exec in")?;
    let pid = container.running_pid(&store)?;
    let process = process(&container, flags, pid)?;
    let tag = &crate::store::new_id()?[..12];
    let files = Files::new(&container, tag);
    crate::store::container::replace_durably(&files.process, process.to_string().as_bytes())?;
    crate::events::record(
        &store,
        &container,
        "exec",
        &[("program", &flags.command[0])],
    );
    start(&runtime, &container, flags, &files)
}

/// Files of one exec in the runtime directory; removed on drop.
struct Files {
    process: PathBuf,
    pid: PathBuf,
    log: PathBuf,
    socket: PathBuf,
}

impl Files {
    fn new(container: &Container, tag: &str) -> Self {
        let file = |suffix| container.run_dir.join(format!("exec-{tag}.{suffix}"));
        Self {
            process: file("json"),
            pid: file("pid"),
            log: file("log"),
            socket: file("tty"),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [&self.process, &self.pid, &self.log, &self.socket] {
            // Not each was made.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The process, as the container's own with what the flags change.
fn process(container: &Container, flags: &Flags, pid: i32) -> Result<Value> {
    let bundle = container.bundle().join("config.json");
    let spec = std::fs::read(&bundle).with_context(|| format!("read `{}`", bundle.display()))?;
    let mut spec: Value =
        serde_json::from_slice(&spec).with_context(|| format!("read `{}`", bundle.display()))?;
    let mut process = spec["process"].take();
    process["args"] = json!(flags.command);
    process["terminal"] = flags.tty.into();
    if let (true, Some((rows, columns))) = (flags.tty, crate::terminal::size()) {
        // Set before the program begins: it may ask at once.
        process["consoleSize"] = json!({ "height": rows, "width": columns });
    }
    if let Some(directory) = &flags.workdir {
        process["cwd"] = directory.as_str().into();
    }
    if let Some(user) = &flags.user {
        let root = inside(pid)?;
        let read = |path: &str| crate::inside::read_text(&root, path.as_ref()).unwrap_or_default();
        let accounts = crate::plan::identity::Accounts {
            passwd: read("/etc/passwd"),
            group: read("/etc/group"),
        };
        let user = accounts.user(user, &[])?;
        process["user"] =
            json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.groups });
        if user.uid != 0
            && let Some(sets) = process["capabilities"].as_object_mut()
        {
            sets.retain(|name, _| name == "bounding");
        }
    }
    if flags.privileged {
        let isolation = crate::flags::IsolationFlags {
            privileged: true,
            ..crate::flags::IsolationFlags::default()
        };
        let bounding = crate::host::bounding_set();
        let all = crate::plan::security::security(&isolation, bounding, &|_| Ok(String::new()))?;
        let names = json!(all.capabilities);
        process["capabilities"] =
            json!({ "bounding": names, "effective": names, "permitted": names });
    }
    let process_flags = crate::flags::ProcessFlags {
        env: flags.env.clone(),
        env_file: flags.env_file.clone(),
        ..crate::flags::ProcessFlags::default()
    };
    let base = process["env"].as_array().cloned().unwrap_or_default();
    let mut base: Vec<(String, String)> = base
        .iter()
        .filter_map(Value::as_str)
        .map(crate::parse::key_value)
        .collect();
    if flags.tty && !base.iter().any(|(name, _)| name == "TERM") {
        base.push((
            "TERM".into(),
            std::env::var("TERM").unwrap_or_else(|_| "xterm".into()),
        ));
    }
    let own = |name: &str| std::env::var(name).ok();
    let environment = crate::plan::process::environment(base, &process_flags, &own, &|path| {
        std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
    })?;
    process["env"] = json!(environment);
    Ok(process)
}

fn inside(pid: i32) -> Result<OwnedFd> {
    crate::inside::root_of(pid)
}

fn start(runtime: &Runtime, container: &Container, flags: &Flags, files: &Files) -> Result<u8> {
    // The runtime ends at once; its child becomes ours, and with it the exit status.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become subreaper")?;
    let mut command = std::process::Command::new(&runtime.program);
    command.arg("--root").arg(&runtime.root);
    command
        .arg("--log")
        .arg(&files.log)
        .args(["--log-format", "json", "exec", "--detach"]);
    command
        .arg("--process")
        .arg(&files.process)
        .arg("--pid-file")
        .arg(&files.pid);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let (streams, listener) = if flags.tty {
        let (listener, path) = console_socket(container, files)?;
        command.arg("--console-socket").arg(path);
        (None, Some(listener))
    } else if flags.detach {
        (None, None)
    } else {
        (Some(pipes(&mut command, flags.interactive)?), None)
    };
    let status = command
        .arg(&container.record.id)
        .status()
        .context("execute runtime")?;
    drop(command);
    if !status.success() {
        let log = std::fs::read_to_string(&files.log).unwrap_or_default();
        let message = message_of(&log, "exec");
        return Err(WithCode {
            code: code_of(&message),
            message,
        }
        .into());
    }
    let streams = match listener {
        Some(listener) => {
            let master = receive(&listener)?;
            let input = master.try_clone().context("duplicate terminal")?;
            Some(Streams {
                input: flags.interactive.then_some(input),
                output: master,
                errors: None,
            })
        }
        None => streams,
    };
    let (false, Some(streams)) = (flags.detach, streams) else {
        return Ok(0);
    };
    attached(flags, files, streams)
}

/// Copies the program's streams until it ends; its status.
fn attached(flags: &Flags, files: &Files, streams: Streams) -> Result<u8> {
    let pid = std::fs::read_to_string(&files.pid)
        .with_context(|| format!("read `{}`", files.pid.display()))?;
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| anyhow!("`{}`: no pid", files.pid.display()))?;
    let raw = flags.tty && flags.interactive && terminal::is_input();
    let raw = raw.then(Raw::enter).transpose()?;
    Relay::new(streams, flags.tty).run(pid)?;
    drop(raw);
    let status = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))
        .context("wait for the program")?;
    let Some((_, status)) = status else {
        bail!("the program's status is lost")
    };
    let code = status
        .exit_status()
        .or(status.terminating_signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

fn pipes(command: &mut std::process::Command, interactive: bool) -> Result<Streams> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context("make pipe");
    let (output, theirs_output) = pipe()?;
    let (errors, theirs_errors) = pipe()?;
    command.stdout(theirs_output).stderr(theirs_errors);
    let mut input = None;
    if interactive {
        let (theirs, ours) = pipe()?;
        command.stdin(theirs);
        input = Some(ours);
    }
    Ok(Streams {
        input,
        output,
        errors: Some(errors),
    })
}

fn console_socket(container: &Container, files: &Files) -> Result<(OwnedFd, PathBuf)> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .context("make console socket")?;
    // A socket's address is at most 107 bytes; through the directory's descriptor it always fits.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&container.run_dir, flags, Mode::empty())
        .context("open runtime directory")?;
    let name = files.socket.file_name().unwrap_or_default();
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    bind(&socket, &SocketAddrUnix::new(&short)?).context("bind console socket")?;
    listen(&socket, 1).context("listen on console socket")?;
    let path = if SocketAddrUnix::new(&files.socket).is_ok() {
        files.socket.clone()
    } else {
        bail!(
            "`{}`: too long for a socket\nset FLOE_RUN_DIR to a shorter path",
            files.socket.display()
        )
    };
    Ok((socket, path))
}

fn receive(listener: &OwnedFd) -> Result<OwnedFd> {
    // The runtime has ended, so a connection that is not there now will never come.
    rustix::io::ioctl_fionbio(listener, true).context("receive terminal")?;
    let connection = accept_with(listener, SocketFlags::CLOEXEC).context("receive terminal")?;
    let mut name = [0_u8; 4096];
    let (_, fds) =
        sys::message::receive(connection.as_fd(), &mut name).context("receive terminal")?;
    fds.into_iter()
        .next()
        .ok_or_else(|| anyhow!("receive terminal: no descriptor came"))
}
