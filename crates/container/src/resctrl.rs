//! `linux.intelRdt`: classes of cache and memory bandwidth, directories of the resctrl file system
//! (config-linux.md, "IntelRdt"; the kernel's filesystems/resctrl.rst).
//!
//! The mount's directory is a parameter, so that the tests run on directories that look like one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Result};
use crate::spec::IntelRdt;

/// The groups of a container, as its record keeps them. Names only: the mount is looked for anew,
/// so that a record names nothing outside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Groups {
    /// The directory of the class; empty for the mount's own, the default class.
    class: String,
    /// The directory below the class's `mon_groups`.
    monitor: Option<String>,
    /// The class is floe's to remove: it was not there before.
    made: bool,
    /// The class has the container's name, so that nobody else uses it.
    private: bool,
}

/// What is to be done, and to which class.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) groups: Groups,
    /// The lines for a new class; one that was there has them already.
    schemata: Vec<String>,
}

/// Where resctrl is mounted, if it is.
pub(crate) fn mounted() -> Result<Option<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo").during(|| "read the mount table")?;
    let mut mounts = sys::mountinfo::parse(&table);
    let found = mounts.find(|mount| mount.fs_type == b"resctrl" && mount.root.as_bytes() == b"/");
    Ok(found.map(|mount| PathBuf::from(mount.mount_point.into_owned())))
}

/// Looks at the class that a container asks for, and decides. Makes nothing.
///
/// # Errors
/// A class that must exist does not, or the existing one has other schemata.
pub(crate) fn place(root: &Path, wanted: &IntelRdt, id: &str) -> Result<Plan> {
    let name = class(wanted, id);
    // Not a link's target: a class is a directory of this file system.
    let exists = std::fs::symlink_metadata(root.join(name)).is_ok_and(|found| found.is_dir());
    let current = exists.then(|| read(&root.join(name).join("schemata")));
    plan(wanted, id, current.transpose()?.as_deref())
}

/// The directory of the class: `closID`, where `/` is the default class, else the container's id.
fn class<'a>(wanted: &'a IntelRdt, id: &'a str) -> &'a str {
    match wanted.clos_id.as_deref() {
        Some("/") => "",
        Some(name) if !name.is_empty() => name,
        _ => id,
    }
}

/// Decides, where `current` is the text of the existing class's `schemata`. Pure.
fn plan(wanted: &IntelRdt, id: &str, current: Option<&str>) -> Result<Plan> {
    let field = |name: &str| format!("linux.intelRdt.{name}");
    let lines = lines(wanted)?;
    let name = class(wanted, id);
    let private = name == id && wanted.clos_id.as_deref().is_none_or(str::is_empty);
    if ["info", "mon_data", "mon_groups"].contains(&name) {
        let cause = "the name of a directory of resctrl's own";
        return Err(Error::new(
            format!("{}: class `{name}`", field("closID")),
            cause,
        ));
    }
    match current {
        None if lines.is_empty() && !private => {
            let cause = "not there, and without schemata it is not made";
            return Err(Error::new(
                format!("{}: class `{name}`", field("closID")),
                cause,
            ));
        }
        Some(current) => agree(name, &lines, current)?,
        None => {}
    }
    Ok(Plan {
        groups: Groups {
            class: name.to_owned(),
            monitor: wanted.enable_monitoring.then(|| id.to_owned()),
            made: current.is_none(),
            private,
        },
        schemata: lines,
    })
}

/// The lines for `schemata`, in the order in which they are written: the last one wins.
fn lines(wanted: &IntelRdt) -> Result<Vec<String>> {
    let refuse = |field: &str, cause: &str| Err(Error::plain(format!("{field}: {cause}")));
    let mut lines = Vec::new();
    // Lines for memory bandwidth have a field of their own.
    let cache = wanted.l3_cache_schema.iter().flat_map(|text| text.lines());
    let cache = cache.filter(|line| !line.is_empty() && !line.starts_with("MB:"));
    lines.extend(cache.map(str::to_owned));
    if let Some(bandwidth) = &wanted.mem_bw_schema {
        if !bandwidth.starts_with("MB:") || bandwidth.contains('\n') {
            return refuse(
                "linux.intelRdt.memBwSchema",
                "one line that begins with `MB:`",
            );
        }
        lines.push(bandwidth.clone());
    }
    for (index, line) in wanted.schemata.iter().enumerate() {
        if line.contains('\n') || !line.contains(':') {
            let field = format!("linux.intelRdt.schemata[{index}]");
            return refuse(&field, "one line, `RESOURCE:DOMAIN=VALUE;…`");
        }
        lines.push(line.clone());
    }
    Ok(lines)
}

/// Refuses an existing class that differs in what is asked for; it is not the container's to change.
fn agree(class: &str, lines: &[String], current: &str) -> Result<()> {
    let current = values(current.lines());
    let lines = values(lines.iter().map(String::as_str));
    let differing = lines
        .iter()
        .find(|(place, value)| current.get(*place) != Some(*value));
    let Some(((resource, domain), value)) = differing else {
        return Ok(());
    };
    let class = if class.is_empty() { "/" } else { class };
    let has = match current.get(&(resource.clone(), domain.clone())) {
        Some(other) => format!("it has `{resource}:{domain}={other}`"),
        None => "it has no such domain".to_owned(),
    };
    let cause = format!("`{resource}:{domain}={value}` is asked for, {has}");
    Err(Error::new(
        format!("linux.intelRdt: class `{class}`"),
        cause,
    ))
}

/// The value for each resource and domain, in one form: the kernel pads with blanks and zeros.
fn values<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<(String, String), String> {
    let mut all = BTreeMap::new();
    for line in lines {
        let Some((resource, domains)) = line.trim().split_once(':') else {
            continue;
        };
        for domain in domains.split(';') {
            if let Some((domain, value)) = domain.split_once('=') {
                let place = (resource.trim().to_owned(), domain.trim().to_owned());
                all.insert(place, plain(value));
            }
        }
    }
    all
}

fn plain(value: &str) -> String {
    let value = value.trim().to_ascii_lowercase();
    let digits = value
        .trim_start_matches("0x")
        .trim_start_matches('0')
        .to_owned();
    if digits.is_empty() {
        "0".to_owned()
    } else {
        digits
    }
}

/// Makes what was decided. Says in `plan` what of it was there all the same.
///
/// # Errors
/// The hardware has no more classes or counters, or refuses the schemata.
pub(crate) fn make(root: &Path, plan: &mut Plan) -> Result<()> {
    let class = root.join(&plan.groups.class);
    if plan.groups.made {
        match std::fs::create_dir(&class) {
            Ok(()) => write_schemata(root, &class, &plan.schemata)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                plan.groups.made = false;
                let current = read(&class.join("schemata"))?;
                agree(&plan.groups.class, &plan.schemata, &current)?;
            }
            Err(error) => return Err(explained(root, "make class", &class, &error)),
        }
    }
    let Some(monitor) = &plan.groups.monitor else {
        return Ok(());
    };
    let monitor = class.join("mon_groups").join(monitor);
    match std::fs::create_dir(&monitor) {
        // Of a container of this name that was not deleted: nobody else's.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(explained(
            root,
            "enableMonitoring: make group",
            &monitor,
            &error,
        )),
        _ => Ok(()),
    }
}

fn write_schemata(root: &Path, class: &Path, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let file = class.join("schemata");
    let operation = format!("write `{}` to", lines.join("; "));
    std::fs::write(&file, lines.join("\n") + "\n")
        .map_err(|error| explained(root, &operation, &file, &error))
}

/// Puts a process into the class, then into the monitoring group, which takes the class's only. Its
/// children are born there.
///
/// # Errors
/// A group is gone.
pub(crate) fn attach(root: &Path, groups: &Groups, pid: Pid) -> Result<()> {
    let class = root.join(&groups.class);
    let monitor = groups
        .monitor
        .as_ref()
        .map(|name| class.join("mon_groups").join(name));
    for group in [Some(class), monitor].into_iter().flatten() {
        let file = group.join("tasks");
        let mut options = std::fs::OpenOptions::new();
        // The kernel adds; so does a file of the tests.
        let mut tasks = options
            .append(true)
            .open(&file)
            .map_err(|error| explained(root, "open", &file, &error))?;
        let text = format!("{}\n", pid.as_raw_nonzero());
        std::io::Write::write_all(&mut tasks, text.as_bytes())
            .map_err(|error| explained(root, "attach the process to", &file, &error))?;
    }
    Ok(())
}

/// Removes what was made for a container. A class that others use by its name stays: without it
/// their processes would be back in the default class. Goes on after an error.
///
/// # Errors
/// Something cannot be removed.
pub(crate) fn remove(root: &Path, groups: &Groups, first: i32) -> Result<()> {
    let class = root.join(&groups.class);
    let monitor = groups.monitor.as_ref().map(|name| {
        let group = class.join("mon_groups").join(name);
        remove_group(root, &group)
    });
    let ours = groups.made && !groups.class.is_empty();
    if ours && (groups.private || !has_others(&class, first)) {
        remove_group(root, &class)?;
    }
    monitor.unwrap_or(Ok(()))
}

/// Whether processes besides the container's first one, which may wait for its parent, are there.
fn has_others(class: &Path, first: i32) -> bool {
    let tasks = std::fs::read_to_string(class.join("tasks")).unwrap_or_default();
    let groups = std::fs::read_dir(class.join("mon_groups"));
    let others = tasks
        .split_ascii_whitespace()
        .any(|pid| pid != first.to_string());
    others || groups.is_ok_and(|mut entries| entries.next().is_some())
}

fn remove_group(root: &Path, group: &Path) -> Result<()> {
    match std::fs::remove_dir(group) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(explained(root, "remove", group, &error))
        }
        _ => Ok(()),
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).during(|| format!("linux.intelRdt: read `{}`", file.display()))
}

/// The kernel tells more about a refusal than its number, until the next command.
fn explained(root: &Path, operation: &str, path: &Path, error: &std::io::Error) -> Error {
    let operation = format!("linux.intelRdt: {operation} `{}`", path.display());
    let status = std::fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    let errno = sys::Errno::from_io_error(error);
    let cause = errno.map_or_else(|| error.to_string(), sys::errno::describe);
    let refused = [sys::Errno::INVAL, sys::Errno::NOSPC, sys::Errno::PERM]
        .map(Some)
        .contains(&errno);
    match status.trim() {
        status if refused && !["", "ok"].contains(&status) => {
            Error::new(operation, format!("{status}: {cause}"))
        }
        _ => Error::new(operation, cause),
    }
}

#[cfg(test)]
mod tests;
