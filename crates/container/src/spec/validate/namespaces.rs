//! Namespaces, and the fields that make sense only inside one of the container's own.

use super::super::{Error, IdMapping, Linux, Namespace, NamespaceKind, Process, Spec};
use super::{Check, idmap};

/// Bytes in a host or domain name (uname(2)).
const MAX_UTS_NAME: usize = 64;

pub(super) fn check(check: &Check, spec: &Spec, linux: &Linux) -> Result<(), Error> {
    list(check, &linux.namespaces)?;
    user(check, linux, spec.process.as_ref())?;
    uts_name(check, linux, "hostname", spec.hostname.as_deref())?;
    uts_name(check, linux, "domainname", spec.domainname.as_deref())?;
    time(check, linux)?;
    let mount = has(linux, NamespaceKind::Mount);
    for (field, paths) in [
        ("linux.maskedPaths", &linux.masked_paths),
        ("linux.readonlyPaths", &linux.readonly_paths),
    ] {
        if !paths.is_empty() && !mount {
            return check.refuse(field, "needs a mount namespace");
        }
    }
    Ok(())
}

/// Whether the container has a namespace of this kind that is not the runtime's.
pub(super) fn has(linux: &Linux, kind: NamespaceKind) -> bool {
    linux
        .namespaces
        .iter()
        .any(|namespace| namespace.kind == kind)
}

fn list(check: &Check, namespaces: &[Namespace]) -> Result<(), Error> {
    for (index, namespace) in namespaces.iter().enumerate() {
        if namespaces[..index]
            .iter()
            .any(|earlier| earlier.kind == namespace.kind)
        {
            return check.refuse(format!("linux.namespaces[{index}].type"), "given twice");
        }
        if namespace
            .path
            .as_ref()
            .is_some_and(|path| !path.is_absolute())
        {
            let field = format!("linux.namespaces[{index}].path");
            return check.refuse(field, "must be an absolute path");
        }
    }
    Ok(())
}

fn user(check: &Check, linux: &Linux, process: Option<&Process>) -> Result<(), Error> {
    let namespace = linux
        .namespaces
        .iter()
        .find(|ns| ns.kind == NamespaceKind::User);
    for (field, mappings) in [
        ("linux.uidMappings", &linux.uid_mappings),
        ("linux.gidMappings", &linux.gid_mappings),
    ] {
        idmap::check(check, field, mappings)?;
        match namespace {
            None if !mappings.is_empty() => return check.refuse(field, "needs a user namespace"),
            Some(Namespace { path: None, .. }) if mappings.is_empty() => {
                return check.refuse(field, "required with a new user namespace");
            }
            Some(_) | None => {}
        }
    }
    match (namespace, process) {
        (Some(Namespace { path: None, .. }), Some(process)) => ids(check, linux, process),
        _ => Ok(()),
    }
}

/// An id without a mapping cannot be taken on; the kernel would only say EINVAL.
fn ids(check: &Check, linux: &Linux, process: &Process) -> Result<(), Error> {
    let mapped = |field: &str, mappings: &[IdMapping], id: u32| {
        if idmap::maps(mappings, id) {
            return Ok(());
        }
        check.refuse(
            format!("process.user.{field}"),
            format!("{id} has no mapping"),
        )
    };
    let user = &process.user;
    mapped("uid", &linux.uid_mappings, user.uid)?;
    mapped("gid", &linux.gid_mappings, user.gid)?;
    user.additional_gids
        .iter()
        .enumerate()
        .try_for_each(|(index, gid)| {
            mapped(
                &format!("additionalGids[{index}]"),
                &linux.gid_mappings,
                *gid,
            )
        })
}

fn uts_name(check: &Check, linux: &Linux, field: &str, name: Option<&str>) -> Result<(), Error> {
    let Some(name) = name else { return Ok(()) };
    if !has(linux, NamespaceKind::Uts) {
        return check.refuse(field, "needs a uts namespace");
    }
    if name.len() > MAX_UTS_NAME {
        return check.refuse(field, format!("longer than {MAX_UTS_NAME} bytes"));
    }
    Ok(())
}

fn time(check: &Check, linux: &Linux) -> Result<(), Error> {
    if linux.time_offsets.is_empty() {
        return Ok(());
    }
    match linux
        .namespaces
        .iter()
        .find(|ns| ns.kind == NamespaceKind::Time)
    {
        None => return check.refuse("linux.timeOffsets", "needs a time namespace"),
        Some(Namespace { path: Some(_), .. }) => {
            return check.refuse(
                "linux.timeOffsets",
                "only a new time namespace takes offsets",
            );
        }
        Some(Namespace { path: None, .. }) => {}
    }
    for (clock, offset) in &linux.time_offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return check.refuse(format!("linux.timeOffsets.{clock}"), "no such clock");
        }
        if offset.nanosecs >= 1_000_000_000 {
            let field = format!("linux.timeOffsets.{clock}.nanosecs");
            return check.refuse(field, "must be less than 1000000000");
        }
    }
    Ok(())
}
