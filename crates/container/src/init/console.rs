//! The container's terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{OFlags, ResolveFlags};
use sys::fd::Standard;
use sys::in_root::{self, Missing};
use sys::mount::Scope;

use super::Init;
use crate::error::{During, Error, Result};
use crate::spec;

/// Starts a session and, where the configuration wants a terminal, makes one in the container's own
/// devpts, hands its master out and shows it as `/dev/console`.
pub(super) fn open(init: &mut Init<'_>) -> Result<()> {
    match session(init)? {
        Some(slave) if init.plan.devices.standard => show_as_console(init.root()?, &slave),
        _ => Ok(()),
    }
}

/// The terminal of a process that joins a container: its session's, but not `/dev/console`.
pub(super) fn open_joined(init: &mut Init<'_>) -> Result<()> {
    session(init).map(drop)
}

/// Starts a session, with a terminal if one is wanted; its slave.
fn session(init: &mut Init<'_>) -> Result<Option<OwnedFd>> {
    rustix::process::setsid().during(|| "start a session")?;
    let process = init.plan.spec.process.as_ref();
    let Some(process) = process.filter(|process| process.terminal) else {
        return Ok(None);
    };
    let socket = init.inherited.console.take();
    let socket = socket.ok_or_else(|| Error::plain("nobody takes the terminal's master"))?;
    hand_out(init.root()?, &socket, process.console_size).map(Some)
}

/// Makes a terminal below `root`, sends its master through `socket` with its name as the text, as
/// runc's console protocol has it, and makes its slave the standard streams.
fn hand_out(root: &OwnedFd, socket: &OwnedFd, size: Option<spec::ConsoleSize>) -> Result<OwnedFd> {
    let master = open_multiplexer(root)?;
    let slave = sys::terminal::slave_of(&master).during(|| "open the terminal")?;
    if let Some(spec::ConsoleSize { height, width }) = size {
        let clip = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        sys::terminal::set_size(&slave, clip(height), clip(width)).during(|| "set the size")?;
    }
    let name = sys::terminal::name(&master).during(|| "find the terminal's name")?;
    sys::message::send_with_fds(socket, name.as_bytes(), &[master.as_fd()])
        .during(|| "hand the terminal out")?;
    sys::terminal::make_controlling(&slave).during(|| "make it the controlling terminal")?;
    for stream in [Standard::Input, Standard::Output, Standard::Error] {
        sys::fd::replace_standard(slave.as_fd(), stream).during(|| "make it a standard stream")?;
    }
    Ok(slave)
}

/// The multiplexer is opened inside the root and must belong to a devpts: a file that the image
/// put there instead would receive what is typed.
fn open_multiplexer(root: &OwnedFd) -> Result<OwnedFd> {
    const DEVPTS: i64 = 0x1cd1;
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let path = Path::new("/dev/pts/ptmx");
    let master = in_root::open_with(root, path, flags, ResolveFlags::NO_SYMLINKS)
        .during(|| "open `/dev/pts/ptmx`")?;
    let found = rustix::fs::fstatfs(&master).during(|| "stat `/dev/pts/ptmx`")?;
    if found.f_type as i64 == DEVPTS {
        Ok(master)
    } else {
        Err(Error::plain(
            "`/dev/pts` is not a devpts: `mounts` must have one for a terminal",
        ))
    }
}

/// Shows the slave as `/dev/console`. Source and place are descriptors, for a link or a swap at
/// either path would mount a file of the host (CVE-2025-52565).
fn show_as_console(root: &OwnedFd, slave: &OwnedFd) -> Result<()> {
    let during = || "show it as `/dev/console`";
    let copy = sys::mount::clone_tree(slave, Scope::One).during(during)?;
    let (parent, name) = in_root::open_parent(root, Path::new("/dev/console")).during(during)?;
    let place = in_root::open_or_create(&parent, Path::new(name), Missing::File).during(during)?;
    sys::mount::attach(&copy, &place).during(during)
}
