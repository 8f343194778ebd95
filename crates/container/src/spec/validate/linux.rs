//! The rest of the `linux` object.

use std::path::PathBuf;

use super::super::{
    Device, DeviceKind, Error, IntelRdt, Linux, MemoryPolicy, MemoryPolicyFlag, MemoryPolicyMode,
    NamespaceKind,
};
use super::list::ranges;
use super::{Check, namespaces};

/// Bytes in a network device's name (IFNAMSIZ, less the NUL).
const MAX_DEVICE_NAME: usize = 15;

/// Propagation types of mount(2), and their recursive forms.
const PROPAGATION: [&str; 8] = [
    "shared",
    "slave",
    "private",
    "unbindable",
    "rshared",
    "rslave",
    "rprivate",
    "runbindable",
];

pub(super) fn check(check: &mut Check, linux: &Linux) -> Result<(), Error> {
    if let Some(propagation) = &linux.rootfs_propagation
        && !PROPAGATION.contains(&propagation.as_str())
    {
        return check.refuse(
            "linux.rootfsPropagation",
            format!("unknown `{propagation}`"),
        );
    }
    absolute(check, "linux.maskedPaths", &linux.masked_paths)?;
    absolute(check, "linux.readonlyPaths", &linux.readonly_paths)?;
    for (index, device) in linux.devices.iter().enumerate() {
        self::device(check, &format!("linux.devices[{index}]"), device)?;
    }
    net_devices(check, linux)?;
    if let Some(rdt) = &linux.intel_rdt {
        intel_rdt(check, rdt)?;
    }
    if let Some(policy) = &linux.memory_policy {
        memory_policy(check, policy)?;
    }
    if linux
        .personality
        .as_ref()
        .is_some_and(|personality| !personality.flags.is_empty())
    {
        check.warn("linux.personality.flags", "none is defined, ignored");
    }
    Ok(())
}

fn absolute(check: &Check, field: &str, paths: &[PathBuf]) -> Result<(), Error> {
    match paths.iter().position(|path| !path.is_absolute()) {
        Some(index) => check.refuse(format!("{field}[{index}]"), "must be an absolute path"),
        None => Ok(()),
    }
}

fn device(check: &Check, field: &str, device: &Device) -> Result<(), Error> {
    if !device.path.is_absolute() {
        return check.refuse(format!("{field}.path"), "must be an absolute path");
    }
    if device.kind == DeviceKind::Fifo {
        return Ok(()); // Its numbers mean nothing.
    }
    // The kernel keeps 12 bits and 20 bits; mknod(2) would cut a larger number to another device.
    for (name, number, limit) in [
        ("major", device.major, 1 << 12),
        ("minor", device.minor, 1 << 20),
    ] {
        if !(0..limit).contains(&number) {
            let cause = format!("{number} is not in 0..{}", limit - 1);
            return check.refuse(format!("{field}.{name}"), cause);
        }
    }
    Ok(())
}

fn net_devices(check: &Check, linux: &Linux) -> Result<(), Error> {
    if linux.net_devices.is_empty() {
        return Ok(());
    }
    if !namespaces::has(linux, NamespaceKind::Network) {
        return check.refuse("linux.netDevices", "needs a network namespace");
    }
    let mut taken = Vec::new();
    for (outside, device) in &linux.net_devices {
        let inside = device.name.as_ref().unwrap_or(outside);
        for (name, field) in [(outside, ""), (inside, ".name")] {
            if !is_device_name(name) {
                let cause = format!("`{name}` is no network device's name");
                return check.refuse(format!("linux.netDevices.{outside}{field}"), cause);
            }
        }
        if taken.contains(&inside) {
            let cause = format!("`{inside}` given twice");
            return check.refuse(format!("linux.netDevices.{outside}.name"), cause);
        }
        taken.push(inside);
    }
    Ok(())
}

/// The kernel's rule, and no `%`, which it would take for a pattern.
fn is_device_name(name: &str) -> bool {
    (1..=MAX_DEVICE_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace())
}

fn intel_rdt(check: &Check, rdt: &IntelRdt) -> Result<(), Error> {
    let Some(id) = &rdt.clos_id else {
        return Ok(());
    };
    // A directory's name below the resctrl mount; `/` alone is the root group.
    if id != "/" && (id == "." || id == ".." || id.contains('/')) {
        return check.refuse("linux.intelRdt.closID", format!("`{id}` is no name"));
    }
    Ok(())
}

fn memory_policy(check: &Check, policy: &MemoryPolicy) -> Result<(), Error> {
    let field = "linux.memoryPolicy.nodes";
    let text = policy.nodes.as_deref().unwrap_or_default();
    let Some(nodes) = ranges(text) else {
        return check.refuse(field, format!("`{text}` is no list of nodes"));
    };
    match policy.mode {
        MemoryPolicyMode::Default | MemoryPolicyMode::Local if !nodes.is_empty() => {
            return check.refuse(field, "the mode takes no nodes");
        }
        MemoryPolicyMode::Bind
        | MemoryPolicyMode::Interleave
        | MemoryPolicyMode::WeightedInterleave
        | MemoryPolicyMode::PreferredMany
            if nodes.is_empty() =>
        {
            return check.refuse(field, "required by the mode");
        }
        _ => {}
    }
    let has = |flag| policy.flags.contains(&flag);
    if has(MemoryPolicyFlag::StaticNodes) && has(MemoryPolicyFlag::RelativeNodes) {
        return check.refuse(
            "linux.memoryPolicy.flags",
            "static and relative nodes exclude each other",
        );
    }
    Ok(())
}
