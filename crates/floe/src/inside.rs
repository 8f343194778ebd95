//! Looks into a running container from outside.
//!
//! Attack: a container's files may be links, devices or programs of its own making; a tool that
//! enters the container and then loads a library from it runs the container's code with the
//! tool's rights (CVE-2019-14271). So nothing enters: the root is a descriptor, every path is
//! resolved below it (openat2, RESOLVE_IN_ROOT), and no file of the container is ever executed.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The root directory of a process, with the mounts that it sees.
///
/// # Errors
/// The process is gone, or not the caller's to look into.
pub(crate) fn root_of(pid: i32) -> Result<OwnedFd> {
    let process = Pid::from_raw(pid).context("the container has no process")?;
    let pidfd = pidfd_open(process, PidfdFlags::empty()).context("open the container's process")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())
        .context("open the container's root")?;
    // The number was still this process's when its root was opened.
    let now = Some(std::time::Duration::ZERO);
    if sys::process::wait_exit(&pidfd, now).context("look at the container's process")? {
        bail!("the container has just ended");
    }
    Ok(root)
}

/// The text of a small regular file below a root.
#[must_use]
pub(crate) fn read_text(root: &OwnedFd, path: &Path) -> Option<String> {
    // Not blocking: it may be a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = sys::in_root::open_with(root.as_fd(), path, flags, ResolveFlags::empty()).ok()?;
    let file = std::fs::File::from(file);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(1 << 20).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
