//! User namespace id maps.

use std::path::Path;
use std::process::Command;

use rustix::process::Pid;

use crate::error::{During, Error, Result};
use crate::spec::{IdMapping, Linux};

/// Writes the maps of a new user namespace, from outside, through its first process.
///
/// An unprivileged caller may map itself alone; for more, newuidmap(1) and newgidmap(1) check
/// `/etc/subuid` and `/etc/subgid`.
///
/// # Errors
/// The kernel or the programs refuse the map; the error names the field.
pub(crate) fn write(pid: Pid, linux: &Linux) -> Result<()> {
    let direct = may_write_directly();
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let helper = |own: u32, mappings: &[IdMapping]| !direct && !is_own_id(own, mappings);
    if helper(own.0, &linux.uid_mappings) {
        run_helper("newuidmap", pid, &linux.uid_mappings)?;
    } else {
        write_file(pid, "uid_map", &linux.uid_mappings)?;
    }
    if helper(own.1, &linux.gid_mappings) {
        return run_helper("newgidmap", pid, &linux.gid_mappings);
    }
    if !direct {
        // Without this an unprivileged user could drop a group that denies it something
        // (user_namespaces(7), CVE-2014-8989).
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny").during(|| "deny setgroups")?;
    }
    write_file(pid, "gid_map", &linux.gid_mappings)
}

/// The text of a map file: a line for each range.
pub(crate) fn text(mappings: &[IdMapping]) -> String {
    let line = |map: &IdMapping| format!("{} {} {}\n", map.container_id, map.host_id, map.size);
    mappings.iter().map(line).collect()
}

fn write_file(pid: Pid, file: &str, mappings: &[IdMapping]) -> Result<()> {
    std::fs::write(
        Path::new("/proc").join(pid.to_string()).join(file),
        text(mappings),
    )
    .during(|| format!("linux.{}: write", field(file)))
}

fn field(file: &str) -> &'static str {
    if file.contains("uid") {
        "uidMappings"
    } else {
        "gidMappings"
    }
}

/// CAP_SETUID over the parent namespace.
fn may_write_directly() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| {
        let needed = rustix::thread::CapabilitySet::SETUID | rustix::thread::CapabilitySet::SETGID;
        sets.effective.contains(needed)
    })
}

fn is_own_id(own: u32, mappings: &[IdMapping]) -> bool {
    matches!(mappings, [map] if map.host_id == own && map.size == 1)
}

fn run_helper(program: &str, pid: Pid, mappings: &[IdMapping]) -> Result<()> {
    let numbers = mappings
        .iter()
        .flat_map(|map| [map.container_id, map.host_id, map.size]);
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .output()
        .during(|| format!("linux.{}: run `{program}` (package uidmap)", field(program)))?;
    if output.status.success() {
        return Ok(());
    }
    let cause = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(
        format!("linux.{}: run `{program}`", field(program)),
        cause.trim(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_a_line_for_each_range() {
        let map = |container_id, host_id, size| IdMapping {
            container_id,
            host_id,
            size,
        };
        assert_eq!(
            text(&[map(0, 1000, 1), map(1, 100_000, 65_536)]),
            "0 1000 1\n1 100000 65536\n"
        );
        assert!(is_own_id(1000, &[map(0, 1000, 1)]));
        assert!(!is_own_id(1000, &[map(0, 1000, 2)]));
    }
}
