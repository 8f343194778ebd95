//! `restore`: as `run`, from images.

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::{Context, bail};
use container::{Create, Created, Force};

use super::terminal::{self, Foreground};
use super::{checkpoint, create, criu, run, terminal_wanted};
use crate::flags::{Global, Restore};
use crate::log::Log;

pub(crate) fn restore(global: &Global, flags: Restore, log: &Log) -> anyhow::Result<ExitCode> {
    if flags.images.lazy_pages {
        bail!("--lazy-pages: this version of floe cannot do that yet");
    }
    let (root, id) = (super::root(global), super::id(&flags.id)?);
    let given = flags.console_socket.as_deref().map(create::connect_to);
    let given = given.transpose().context("--console-socket")?;
    if !flags.no_subreaper && !flags.detach {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let signals = if flags.detach {
        None
    } else {
        Some(sys::signal::block_to_fd(None)?)
    };
    let own = (given.is_none() && !flags.detach && terminal_wanted(&flags.bundle))
        .then(sys::message::pair)
        .transpose()?;
    let (ours, theirs) = own.map_or((None, given), |(ours, theirs)| (Some(ours), Some(theirs)));
    let restored = make(global, flags, theirs)?;
    for warning in &restored.warnings {
        log.warn(warning);
    }
    let Some(signals) = signals else {
        return Ok(ExitCode::SUCCESS);
    };
    let result = wait(&restored, ours.as_ref(), &signals);
    for error in container::delete(&root, &id, Force::Yes)? {
        log.warn(&error.to_string());
    }
    result
}

fn make(global: &Global, flags: Restore, console: Option<OwnedFd>) -> anyhow::Result<Created> {
    let id = super::id(&flags.id)?;
    let bundle = std::path::absolute(&flags.bundle).context("--bundle")?;
    let pid_file = flags.pid_file.map(std::path::absolute).transpose();
    let criu = criu::program(global);
    container::restore(container::Restore {
        create: Create {
            root: &super::root(global),
            id,
            bundle: &bundle,
            options: container::Options {
                systemd_cgroup: global.systemd_cgroup,
                ..container::Options::default()
            },
            console,
            pid_file: pid_file.context("--pid-file")?,
        },
        images: checkpoint::images(&flags.images, &criu),
        tcp_close: flags.tcp_close,
        lsm_profile: flags.lsm_profile,
        lsm_mount_context: flags.lsm_mount_context,
    })
    .with_context(|| format!("restore `{}`", flags.id))
}

fn wait(
    restored: &Created,
    console: Option<&OwnedFd>,
    signals: &OwnedFd,
) -> anyhow::Result<ExitCode> {
    let terminal = console.map(terminal::receive).transpose()?;
    let pidfd = &restored.pidfd;
    terminal::attend(&Foreground {
        pidfd,
        signals,
        terminal,
    })?;
    run::reap(restored.pid)
}
