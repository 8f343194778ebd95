//! Hooks: programs of the engine that run at fixed points of a container's life
//! (config.md, "POSIX-platform Hooks").

use std::io::{Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{PidfdFlags, pidfd_open};

use crate::error::{During, Error, Result};
use crate::plan::Plan;
use crate::spec;

/// The state document that hooks read from their standard input.
pub(crate) fn state(plan: &Plan, status: spec::Status, pid: i32) -> spec::State {
    spec::State {
        oci_version: spec::VERSION.to_owned(),
        id: plan.id.to_string(),
        status,
        pid,
        bundle: plan.bundle.clone(),
        annotations: plan.spec.annotations.clone(),
    }
}

/// Runs hooks in order; the first that fails ends it.
///
/// # Errors
/// A hook cannot be executed, exits with another status than 0, or exceeds its timeout; it is
/// killed then.
pub(crate) fn run(kind: &str, hooks: &[spec::Hook], state: &spec::State) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        one(hook, state).map_err(|error| {
            error.within(format!(
                "hooks.{kind}[{index}]: run `{}`",
                hook.path.display()
            ))
        })?;
    }
    Ok(())
}

/// Runs hooks whose failure must not stop what goes on (`poststart`, `poststop`); the errors.
pub(crate) fn run_all(kind: &str, hooks: &[spec::Hook], state: &spec::State) -> Vec<Error> {
    let each = hooks.iter().filter_map(|hook| {
        let one = std::slice::from_ref(hook);
        run(kind, one, state).err()
    });
    each.collect()
}

fn one(hook: &spec::Hook, state: &spec::State) -> Result<()> {
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    let environment = hook.env.iter().filter_map(|line| line.split_once('='));
    command
        .env_clear()
        .envs(environment)
        .stdin(Stdio::from(document(state)?))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let mut child = command.spawn().during(|| "execute")?;
    finish(&mut child, hook)
}

/// The state as a file in memory: a hook that does not read it must not keep us writing.
fn document(state: &spec::State) -> Result<std::fs::File> {
    let text = serde_json::to_vec(state).map_err(|error| Error::new("state", error))?;
    let during = || "write the state";
    let file = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC).during(during)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&text).during(during)?;
    file.rewind().during(during)?;
    Ok(file)
}

fn finish(child: &mut Child, hook: &spec::Hook) -> Result<()> {
    if let Some(seconds) = hook.timeout {
        let timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::plain("no pid"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).during(|| "open its pidfd")?;
        if !sys::process::wait_exit(&pidfd, Some(timeout)).during(|| "wait")? {
            child.kill().during(|| "kill")?;
            child.wait().during(|| "wait")?;
            return Err(Error::plain(format!("still running after {seconds} s")));
        }
    }
    let status = child.wait().during(|| "wait")?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::plain(status.to_string()))
    }
}
