//! Mounts: where they go, and what an idmapped one needs.

use super::super::{Error, Linux, Mount, NamespaceKind};
use super::{Check, idmap, namespaces};

pub(super) fn check(check: &mut Check, mounts: &[Mount], linux: &Linux) -> Result<(), Error> {
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("mounts[{index}]");
        one(check, &field, mount)?;
        mapped(check, &field, mount, linux)?;
    }
    Ok(())
}

fn one(check: &mut Check, field: &str, mount: &Mount) -> Result<(), Error> {
    if mount.destination.as_os_str().is_empty() {
        return check.refuse(format!("{field}.destination"), "required");
    }
    if !mount.destination.is_absolute() {
        let cause = "relative, taken from the container's root";
        check.warn(format!("{field}.destination"), cause);
    }
    if is_bind(mount) {
        if mount.source.is_none() {
            return check.refuse(format!("{field}.source"), "required for a bind mount");
        }
    } else if mount.kind.is_none() && !has_option(mount, "remount") {
        return check.refuse(format!("{field}.type"), "required");
    }
    Ok(())
}

fn mapped(check: &Check, field: &str, mount: &Mount, linux: &Linux) -> Result<(), Error> {
    let asked = has_option(mount, "idmap") || has_option(mount, "ridmap");
    let given = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if !asked && !given {
        return Ok(());
    }
    if !is_bind(mount) {
        return check.refuse(field, "only a bind mount can be idmapped");
    }
    if !given {
        // It then takes the mappings of the container's user namespace.
        let user = namespaces::has(linux, NamespaceKind::User);
        let cause = "idmap needs uidMappings and gidMappings, or a user namespace";
        return if user {
            Ok(())
        } else {
            check.refuse(field, cause)
        };
    }
    for (name, mappings) in [
        ("uidMappings", &mount.uid_mappings),
        ("gidMappings", &mount.gid_mappings),
    ] {
        if mappings.is_empty() {
            return check.refuse(format!("{field}.{name}"), "required, as the other is given");
        }
        idmap::check(check, &format!("{field}.{name}"), mappings)?;
    }
    Ok(())
}

fn is_bind(mount: &Mount) -> bool {
    mount.kind.as_deref() == Some("bind") || has_option(mount, "bind") || has_option(mount, "rbind")
}

fn has_option(mount: &Mount, option: &str) -> bool {
    mount.options.iter().any(|given| given == option)
}
