//! `exec`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use container::spec::{self, Capabilities, Process, User};

use super::create::connect_to;
use super::run::reap;
use super::terminal::{self, Foreground};
use crate::flags::{Exec, Global};

pub(crate) fn exec(global: &Global, flags: Exec) -> anyhow::Result<ExitCode> {
    let root = super::root(global);
    let id = super::id(&flags.id)?;
    let process = match &flags.process {
        Some(path) => document(path).context("--process")?,
        None => from_flags(&flags, container::process(&root, &id)?)?,
    };
    let given = flags.console_socket.as_deref().map(connect_to).transpose();
    let given = given.context("--console-socket")?;
    let pidfd_socket = flags.pidfd_socket.as_deref().map(connect_to).transpose();
    let pidfd_socket = pidfd_socket.context("--pidfd-socket")?;
    let signals = if flags.detach {
        None
    } else {
        Some(sys::signal::block_to_fd(None)?)
    };
    let own = (given.is_none() && !flags.detach && process.terminal)
        .then(sys::message::pair)
        .transpose()?;
    let (ours, theirs) = own.map_or((None, given), |(ours, theirs)| (Some(ours), Some(theirs)));
    let executed = container::exec(container::Exec {
        root: &root,
        id,
        process,
        options: container::Options {
            preserve_fds: flags.preserve_fds,
            ..container::Options::default()
        },
        console: theirs,
        pid_file: flags.pid_file,
        ignore_paused: flags.ignore_paused,
        groups: flags.cgroup.iter().map(|text| group(text)).collect(),
    })
    .context("exec failed")?;
    if let Some(socket) = pidfd_socket {
        sys::message::send_with_fds(&socket, b"pidfd", &[executed.pidfd.as_fd()])
            .context("send the pidfd")?;
    }
    let Some(signals) = signals else {
        return Ok(ExitCode::SUCCESS);
    };
    let terminal = ours.as_ref().map(terminal::receive).transpose()?;
    terminal::attend(&Foreground {
        pidfd: &executed.pidfd,
        signals: &signals,
        terminal,
    })?;
    reap(executed.pid)
}

fn document(path: &Path) -> anyhow::Result<Process> {
    let named = || format!("open `{}`", path.display());
    let mut file = std::fs::File::open(path).with_context(named)?;
    Ok(spec::parse_process(&spec::read_document(
        "process", &mut file,
    )?)?)
}

/// The container's own process with what the flags change of it.
fn from_flags(flags: &Exec, mut process: Process) -> anyhow::Result<Process> {
    if flags.command.is_empty() {
        bail!("a command is missing, or --process");
    }
    process.args.clone_from(&flags.command);
    process.terminal = flags.tty;
    process.env.extend(flags.env.iter().cloned());
    if let Some(cwd) = &flags.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(text) = &flags.user {
        process.user = user(text).with_context(|| format!("--user `{text}`"))?;
    }
    process.user.additional_gids.extend(&flags.additional_gids);
    let sets = process.capabilities.get_or_insert_default();
    for name in &flags.cap {
        add(sets, name);
    }
    process.no_new_privileges |= flags.no_new_privs;
    process.apparmor_profile = flags.apparmor.clone().or(process.apparmor_profile);
    process.selinux_label = flags.process_label.clone().or(process.selinux_label);
    Ok(process)
}

/// `uid[:gid]`.
fn user(text: &str) -> anyhow::Result<User> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let number = |text: &str| text.parse().context("not a number");
    Ok(User {
        uid: number(uid)?,
        gid: number(gid)?,
        ..User::default()
    })
}

fn add(sets: &mut Capabilities, name: &str) {
    let all = [&mut sets.bounding, &mut sets.effective, &mut sets.permitted];
    for set in all {
        if !set.iter().any(|known| known == name) {
            set.push(name.to_owned());
        }
    }
}

/// `[CONTROLLER[,CONTROLLER]:]PATH`, below the container's group.
fn group(text: &str) -> (String, PathBuf) {
    let (controller, path) = text.split_once(':').unwrap_or(("", text));
    (controller.to_owned(), PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_or_two_numbers() {
        assert_eq!(
            user("7").unwrap(),
            User {
                uid: 7,
                ..User::default()
            }
        );
        assert_eq!(
            user("7:8").unwrap(),
            User {
                uid: 7,
                gid: 8,
                ..User::default()
            }
        );
        assert!(user("root").is_err());
    }

    #[test]
    fn groups_name_their_controller_or_none() {
        assert_eq!(group("cpu:sub"), ("cpu".into(), "sub".into()));
        assert_eq!(group("sub"), (String::new(), "sub".into()));
    }
}
