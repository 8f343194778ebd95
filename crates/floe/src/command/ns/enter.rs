//! `floe ns enter`

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sys::clone::{Clone, Side, clone};
use sys::namespace::{Kind, join, join_process};

use super::kept;
use crate::store::Store;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Only of these kinds: user, ipc, uts, net, pid, cgroup, time, mnt; all if not given
    #[arg(short, long, value_name = "KIND", value_delimiter = ',')]
    r#type: Vec<String>,
    /// TARGET is the pid of a process
    #[arg(short, long, conflicts_with = "kept")]
    pid: bool,
    /// TARGET is a name that `floe ns keep` gave
    #[arg(short, long)]
    kept: bool,
    /// A container, unless a flag says otherwise
    #[arg(value_name = "TARGET")]
    target: String,
    /// Program and arguments; a shell if not given
    #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let wanted = if flags.r#type.is_empty() {
        Kind::ALL.to_vec()
    } else {
        super::kinds(&flags.r#type)?
    };
    // From the moment we are inside until the program is executed, nobody inside may trace us
    // and reach what we hold of the host (CVE-2016-9962).
    sys::process::set_dumpable(false).context("hide from tracing")?;
    let joined = if flags.kept {
        enter_kept(&store, &flags.target, &wanted)?
    } else {
        enter_process(&store, flags, &wanted)?
    };
    if joined.contains(&Kind::Mount) {
        std::env::set_current_dir("/").context("enter root directory")?;
    }
    let shell = ["/bin/sh".to_owned()];
    let command = if flags.command.is_empty() {
        &shell[..]
    } else {
        &flags.command
    };
    if !joined.contains(&Kind::Pid) && !joined.contains(&Kind::Time) {
        return super::replace_by(command);
    }
    // Pid and time namespaces hold for children only.
    match clone(&Clone::default()).context("fork")? {
        Side::Child => super::replace_by(command),
        Side::Parent { pid, .. } => super::wait_for(pid),
    }
}

/// Joins all in one step through a pidfd: the process cannot be mistaken for a later one with the
/// same number, and none of its namespaces changes between two steps.
fn enter_process(store: &Store, flags: &Flags, wanted: &[Kind]) -> Result<Vec<Kind>> {
    let number = if flags.pid {
        flags
            .target
            .parse::<i32>()
            .with_context(|| format!("`{}` is not a pid", flags.target))?
    } else {
        let container = store.find(&flags.target)?;
        container.refuse_if_sealed("enter")?;
        container.running_pid(store)?
    };
    refuse_sealed(store, number)?;
    let pid = Pid::from_raw(number).with_context(|| format!("`{number}` is not a pid"))?;
    let pidfd =
        pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("open process {number}"))?;
    // Where it shares ours there is nothing to join; joining one's own user namespace is refused.
    let inode = |whose: &str, kind: Kind| {
        std::fs::metadata(format!("/proc/{whose}/ns/{}", kind.file()))
            .map(|file| file.ino())
            .ok()
    };
    let other = |kind: &&Kind| {
        let theirs = inode(&number.to_string(), **kind);
        theirs.is_some() && theirs != inode("self", **kind)
    };
    let kinds: Vec<Kind> = wanted.iter().filter(other).copied().collect();
    let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
    if flags != 0 {
        join_process(&pidfd, flags).with_context(|| format!("enter namespaces of {number}"))?;
    }
    Ok(kinds)
}

/// A sealed container is sealed by its processes' numbers as well as by its name.
fn refuse_sealed(store: &Store, pid: i32) -> Result<()> {
    let inode = |pid: i32| std::fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|file| file.ino());
    for container in store
        .all()?
        .iter()
        .filter(|container| container.record.no_enter)
    {
        let Ok(first) = container.running_pid(store) else {
            continue;
        };
        if let (Ok(sealed), Ok(asked)) = (inode(first), inode(pid))
            && sealed == asked
        {
            container.refuse_if_sealed("enter")?;
        }
    }
    Ok(())
}

fn enter_kept(store: &Store, name: &str, wanted: &[Kind]) -> Result<Vec<Kind>> {
    let directory = kept::directory(store, &crate::parse::name(name)?);
    if !directory.is_dir() {
        bail!("nothing is kept as `{name}`\n`floe ns ls` lists what is");
    }
    let files: Vec<(Kind, OwnedFd)> = Kind::ALL
        .into_iter()
        .filter(|kind| wanted.contains(kind))
        .filter_map(|kind| Some((kind, File::open(directory.join(kind.file())).ok()?.into())))
        .collect();
    if files.is_empty() {
        bail!("`{name}` keeps none of these namespaces");
    }
    for (kind, file) in &files {
        join(file.as_fd(), *kind).with_context(|| format!("enter {} of `{name}`", kind.file()))?;
    }
    Ok(files.into_iter().map(|(kind, _)| kind).collect())
}
