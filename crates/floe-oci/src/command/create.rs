//! `create`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use container::Created;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::flags::{Create, Global};
use crate::log::Log;

pub(crate) fn create(global: &Global, flags: Create, log: &Log) -> anyhow::Result<ExitCode> {
    let console = flags.console_socket.as_deref().map(connect_to).transpose();
    let console = console.context("--console-socket")?;
    let created = make(global, flags, console)?;
    for warning in &created.warnings {
        log.warn(warning);
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates the container; `console` takes its terminal.
pub(crate) fn make(
    global: &Global,
    flags: Create,
    console: Option<OwnedFd>,
) -> anyhow::Result<Created> {
    let id = super::id(&flags.id)?;
    let bundle = std::path::absolute(&flags.bundle).context("--bundle")?;
    let pidfd_socket = flags.pidfd_socket.as_deref().map(connect_to).transpose();
    let pidfd_socket = pidfd_socket.context("--pidfd-socket")?;
    let created = container::create(container::Create {
        root: &super::root(global),
        id,
        bundle: &bundle,
        options: container::Options {
            no_pivot: flags.no_pivot,
            no_new_keyring: flags.no_new_keyring,
            preserve_fds: flags.preserve_fds,
            systemd_cgroup: global.systemd_cgroup,
        },
        console,
        pid_file: flags.pid_file,
    })
    .with_context(|| format!("create `{}`", flags.id))?;
    if let Some(socket) = pidfd_socket {
        sys::message::send_with_fds(&socket, b"pidfd", &[created.pidfd.as_fd()])
            .context("send the pidfd")?;
    }
    Ok(created)
}

/// Connects to a Unix stream socket of the engine.
pub(crate) fn connect_to(path: &Path) -> anyhow::Result<OwnedFd> {
    let named = || format!("connect to `{}`", path.display());
    let flags = SocketFlags::CLOEXEC;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).with_context(named)?;
    let address = SocketAddrUnix::new(path).with_context(named)?;
    connect(&socket, &address).with_context(named)?;
    Ok(socket)
}
