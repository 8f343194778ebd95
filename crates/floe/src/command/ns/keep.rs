//! `floe ns keep`

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sys::namespace::Kind;

use super::kept;
use crate::store::Store;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Let go of what the name keeps
    #[arg(long, conflicts_with_all = ["pid", "container", "type"])]
    remove: bool,
    /// Of this process
    #[arg(short, long, value_name = "PID", conflicts_with = "container")]
    pid: Option<i32>,
    /// Of this container
    #[arg(short, long, value_name = "CONTAINER")]
    container: Option<String>,
    /// Only of these kinds: user, ipc, uts, net, pid, cgroup, time, mnt
    #[arg(
        short,
        long,
        value_name = "KIND",
        value_delimiter = ',',
        default_value = "net"
    )]
    r#type: Vec<String>,
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let name = crate::parse::name(&flags.name)?;
    let directory = kept::directory(&store, &name);
    if flags.remove {
        if !directory.is_dir() {
            bail!("nothing is kept as `{name}`");
        }
        release(&directory)?;
        return Ok(0);
    }
    let pid = match (&flags.container, flags.pid) {
        (Some(name), _) => {
            let container = store.find(name)?;
            container.refuse_if_sealed("keep namespaces of")?;
            container.running_pid(&store)?
        }
        (None, Some(pid)) => pid,
        (None, None) => bail!("--pid PID or --container NAME"),
    };
    let kinds = super::kinds(&flags.r#type)?;
    crate::store::make_private(&store.run.join("ns"))?;
    // Its creation is what makes the name unique.
    std::fs::create_dir(&directory).with_context(|| format!("keep as `{name}`"))?;
    if let Err(error) = keep(pid, &kinds, &directory) {
        // The first error is the one to tell.
        let _ = release(&directory);
        return Err(error);
    }
    Ok(0)
}

fn keep(pid: i32, kinds: &[Kind], directory: &Path) -> Result<()> {
    let process = Pid::from_raw(pid).with_context(|| format!("`{pid}` is not a pid"))?;
    let pidfd =
        pidfd_open(process, PidfdFlags::empty()).with_context(|| format!("open process {pid}"))?;
    let open = |kind: &Kind| {
        let path = format!("/proc/{pid}/ns/{}", kind.file());
        File::open(&path).with_context(|| format!("open `{path}`"))
    };
    let files = kinds.iter().map(open).collect::<Result<Vec<_>>>()?;
    // The number was still this process's when its files were opened.
    let now = Some(std::time::Duration::ZERO);
    if sys::process::wait_exit(&pidfd, now).context("look at the process")? {
        bail!("process {pid} has just ended");
    }
    for (kind, file) in kinds.iter().zip(&files) {
        let target = directory.join(kind.file());
        File::create_new(&target).with_context(|| format!("make `{}`", target.display()))?;
        mount_bind(format!("/proc/self/fd/{}", file.as_raw_fd()), &target)
            .with_context(|| format!("keep {} on `{}`", kind.file(), target.display()))?;
    }
    Ok(())
}

fn release(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)?.flatten() {
        let path = entry.path();
        match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Never mounted.
            Ok(()) | Err(sys::Errno::INVAL) => {}
            Err(errno) => return Err(errno).context(format!("let go of `{}`", path.display())),
        }
        std::fs::remove_file(&path).with_context(|| format!("remove `{}`", path.display()))?;
    }
    std::fs::remove_dir(directory).with_context(|| format!("remove `{}`", directory.display()))
}
