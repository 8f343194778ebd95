//! Security labels and the system call filter.

use std::os::fd::AsFd;

use super::Init;
use crate::error::{During, Error, Result};
use crate::{hooks, seccomp, spec};

/// The AppArmor profile or SELinux label that the program will have, where the kernel has them.
pub(super) fn label(init: &mut Init<'_>) -> Result<()> {
    let Some(process) = &init.plan.spec.process else {
        return Ok(());
    };
    crate::label::set_for_exec(process, init.inherited.labels)
}

/// Compiles the filter while errors still reach `create`.
pub(super) fn compile_filter(init: &mut Init<'_>) -> Result<()> {
    let linux = init.plan.linux();
    let Some(rules) = &linux.seccomp else {
        return Ok(());
    };
    let native = seccomp::native();
    let native = native.ok_or_else(|| Error::plain("linux.seccomp: unknown on this machine"))?;
    let filter = seccomp::compile(rules, native);
    init.filter = Some(filter.map_err(|error| Error::plain(error.to_string()))?);
    Ok(())
}

/// Without no_new_privs only a privileged process may load a filter, so it comes before the
/// credentials; the filter must then allow what sets them.
pub(super) fn filter_while_privileged(init: &mut Init<'_>) -> Result<()> {
    if no_new_privileges(init) {
        Ok(())
    } else {
        load(init)
    }
}

/// With no_new_privs the filter is the last thing before exec, and need allow nothing but that.
pub(super) fn filter_last(init: &mut Init<'_>) -> Result<()> {
    if no_new_privileges(init) {
        load(init)
    } else {
        Ok(())
    }
}

fn no_new_privileges(init: &Init<'_>) -> bool {
    init.plan
        .spec
        .process
        .as_ref()
        .is_some_and(|process| process.no_new_privileges)
}

fn load(init: &mut Init<'_>) -> Result<()> {
    let Some(filter) = init.filter.take() else {
        return Ok(());
    };
    // Prepared before: under the filter the fewer calls the better.
    let document = agent_document(init)?;
    let listener = sys::seccomp::load(&filter.program, filter.load);
    let listener = listener.during(|| "linux.seccomp: load the filter")?;
    let (Some(listener), Some(agent)) = (listener, init.inherited.seccomp.take()) else {
        return Ok(());
    };
    sys::message::send_with_fds(&agent, &document, &[listener.as_fd()])
        .during(|| "linux.seccomp: hand the listener out")
}

/// What the agent is told along with the listener (config-linux.md, "The Container Process State").
fn agent_document(init: &Init<'_>) -> Result<Vec<u8>> {
    let linux = init.plan.linux();
    let rules = linux.seccomp.as_ref();
    if init.inherited.seccomp.is_none() {
        return Ok(Vec::new());
    }
    let (status, pid) = match init.joined {
        Some(container) => (spec::Status::Running, container),
        None => (spec::Status::Creating, init.pid),
    };
    let state = hooks::state(init.plan, status, pid);
    let document = spec::ContainerProcessState {
        oci_version: spec::VERSION.to_owned(),
        fds: vec![spec::SECCOMP_FD_NAME.to_owned()],
        pid: init.pid,
        metadata: rules
            .and_then(|rules| rules.listener_metadata.clone())
            .unwrap_or_default(),
        state,
    };
    serde_json::to_vec(&document).map_err(|error| Error::new("linux.seccomp", error))
}
