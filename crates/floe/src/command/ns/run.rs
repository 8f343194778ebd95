//! `floe ns run`

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sys::clone::{Clone, Side, clone};
use sys::namespace::{Kind, join_process};

use crate::store::Store;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Make new namespaces of these kinds: user, ipc, uts, net, pid, cgroup, mnt
    #[arg(short, long, value_name = "KIND", value_delimiter = ',')]
    new: Vec<String>,
    /// Number of the process: its own first, then that in the pid namespace around, and so on
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<i32>,
    /// In the pid namespace of this container
    #[arg(long, value_name = "CONTAINER")]
    r#in: Option<String>,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let kinds = super::kinds(&flags.new)?;
    if kinds.contains(&Kind::Time) {
        bail!("--new time: `floe run --time-offset` makes one with an offset");
    }
    if flags.pid.iter().any(|pid| *pid <= 0) {
        bail!("--pid: numbers from 1");
    }
    if let Some(name) = &flags.r#in {
        let store = Store::open()?;
        let container = store.find(name)?;
        container.refuse_if_sealed("enter")?;
        let number = container.running_pid(&store)?;
        let pid = Pid::from_raw(number).context("the container has no process")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("open the container's process")?;
        join_process(&pidfd, Kind::Pid.flag()).context("enter the container's pid namespace")?;
    }
    let bits = kinds.iter().fold(0, |bits, kind| bits | kind.flag());
    // The child waits until its ids are mapped.
    let (ready, go) = pipe_with(PipeFlags::CLOEXEC).context("make pipe")?;
    let options = Clone {
        flags: bits,
        set_tid: &flags.pid,
        cgroup: None,
    };
    match clone(&options).map_err(|errno| explain(errno, flags))? {
        Side::Child => {
            drop(go);
            let mut byte = [0];
            rustix::io::read(&ready, &mut byte).context("wait for id maps")?;
            prepare(&kinds)?;
            super::replace_by(&flags.command)
        }
        Side::Parent { pid, .. } => {
            drop(ready);
            if kinds.contains(&Kind::User) {
                map_ids(pid)?;
            }
            drop(go);
            super::wait_for(pid)
        }
    }
}

/// What a refused clone means for who chose a pid.
fn explain(errno: sys::Errno, flags: &Flags) -> anyhow::Error {
    let pids: Vec<String> = flags.pid.iter().map(ToString::to_string).collect();
    let pids = pids.join(",");
    let error = anyhow::Error::from(errno).context(format!("make process {pids}"));
    let remedy = match errno {
        sys::Errno::EXIST => "a process has this number already",
        sys::Errno::INVAL if !flags.pid.is_empty() => {
            "as many numbers as nested pid namespaces at most; the first of a new one is 1"
        }
        sys::Errno::PERM if !flags.pid.is_empty() => {
            "choosing pids needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN over the pid namespaces"
        }
        _ => return error,
    };
    error.context(remedy)
}

/// Root inside is the caller.
fn map_ids(child: Pid) -> Result<()> {
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{child}/{file}");
        std::fs::write(&path, text).with_context(|| format!("write `{path}`"))
    };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    write("uid_map", &format!("0 {uid} 1\n"))?;
    if !uid.is_root() {
        // Without this a caller could drop a group that forbids something to it.
        write("setgroups", "deny")?;
    }
    write("gid_map", &format!("0 {gid} 1\n"))
}

fn prepare(kinds: &[Kind]) -> Result<()> {
    if kinds.contains(&Kind::Mount) {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).context("make mounts private")?;
        if kinds.contains(&Kind::Pid) {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("proc", "/proc", "proc", flags, None).context("mount `proc` on `/proc`")?;
        }
    }
    Ok(())
}
