//! System call filters: what no kernel could do, or what would hang the start.

use super::super::{Error, Seccomp, SeccompAction, SeccompSyscall};
use super::Check;

/// The data of a filter's answer has 16 bits (seccomp(2), SECCOMP_RET_DATA).
const MAX_DATA: u64 = 0xffff;
/// The highest error number that a system call can return.
const MAX_ERRNO: u64 = 4095;
const MAX_ARGS: u64 = 6;

pub(super) fn check(check: &Check, seccomp: &Seccomp) -> Result<(), Error> {
    if seccomp.default_action == SeccompAction::Notify {
        // The start itself would wait for the listener, which is only sent the fd by it.
        return check.refuse("defaultAction", "SCMP_ACT_NOTIFY cannot be the default");
    }
    data(
        check,
        "defaultErrnoRet",
        seccomp.default_action,
        seccomp.default_errno_ret,
    )?;
    for (index, rule) in seccomp.syscalls.iter().enumerate() {
        one(check, &format!("syscalls[{index}]"), rule)?;
    }
    let notify = seccomp
        .syscalls
        .iter()
        .any(|rule| rule.action == SeccompAction::Notify);
    if notify && seccomp.listener_path.is_none() {
        return check.refuse("listenerPath", "required by SCMP_ACT_NOTIFY");
    }
    Ok(())
}

fn one(check: &Check, field: &str, rule: &SeccompSyscall) -> Result<(), Error> {
    data(
        check,
        &format!("{field}.errnoRet"),
        rule.action,
        rule.errno_ret,
    )?;
    if let Some(index) = rule.names.iter().position(String::is_empty) {
        return check.refuse(format!("{field}.names[{index}]"), "empty");
    }
    let write = rule.names.iter().any(|name| name == "write");
    if write && rule.action == SeccompAction::Notify {
        // Passing on the fd takes a write after the filter is loaded: it would wait for ever.
        return check.refuse(
            format!("{field}.names"),
            "`write` cannot have SCMP_ACT_NOTIFY",
        );
    }
    match rule.args.iter().position(|arg| arg.index >= MAX_ARGS) {
        Some(index) => check.refuse(format!("{field}.args[{index}].index"), "must be 0 to 5"),
        None => Ok(()),
    }
}

fn data(
    check: &Check,
    field: &str,
    action: SeccompAction,
    value: Option<u64>,
) -> Result<(), Error> {
    let limit = match action {
        SeccompAction::Errno => MAX_ERRNO,
        SeccompAction::Trace => MAX_DATA,
        // config-linux.md: the runtime must fail where the action takes no number.
        _ if value.is_some() => return check.refuse(field, "the action takes no number"),
        _ => return Ok(()),
    };
    match value {
        Some(value) if value > limit => check.refuse(field, format!("{value} is above {limit}")),
        Some(_) | None => Ok(()),
    }
}
