//! `/sys/fs/cgroup` in the container: its own groups, in the host's layout.

use std::os::fd::OwnedFd;
use std::path::Path;

use sys::in_root::{self, Missing};
use sys::mount::{Attributes, Scope, attribute};
use sys::namespace::Kind;

use super::{Init, filesystem};
use crate::error::{During, Result};
use crate::plan::mount::{MountStep, Parameter};

/// Mounts the view: v2 alone as one mount, otherwise a tmpfs with a directory for each hierarchy.
pub(super) fn mount(init: &Init<'_>, step: &MountStep, target: &OwnedFd) -> Result<()> {
    if init.layout.v1.is_empty() {
        let Some(v2) = &init.layout.v2 else {
            return Ok(());
        };
        let mount = hierarchy(init, v2, step)?;
        return sys::mount::attach(&mount, target).during(|| "attach");
    }
    let parameters = [Parameter::Value("mode".into(), "755".into())];
    let flags = attribute::NO_SUID | attribute::NO_DEV | attribute::NO_EXEC;
    let tmpfs = filesystem::mount("tmpfs", "tmpfs", &parameters, flags)?;
    sys::mount::attach(&tmpfs, target).during(|| "attach the tmpfs")?;
    for one in init.layout.v1.iter().chain(&init.layout.v2) {
        let Some(name) = one.mount_point.file_name() else {
            continue;
        };
        let place = in_root::open_or_create(&tmpfs, Path::new(name), Missing::Directory);
        let place = place.during(|| format!("make `{}`", name.display()))?;
        let mount = hierarchy(init, one, step)
            .map_err(|error| error.within(format!("hierarchy `{}`", name.display())))?;
        sys::mount::attach(&mount, &place).during(|| "attach")?;
        links(&tmpfs, one, name.as_ref())?;
    }
    let read_only = Attributes {
        set: step.attributes.set & attribute::READ_ONLY,
        ..Attributes::default()
    };
    if read_only.is_empty() {
        return Ok(());
    }
    sys::mount::set_attributes(&tmpfs, &read_only, Scope::One).during(|| "make read-only")
}

/// `cpu` and `cpuacct` beside a hierarchy that is mounted as `cpu,cpuacct`.
fn links(tmpfs: &OwnedFd, one: &cgroup::layout::Hierarchy, directory: &Path) -> Result<()> {
    for name in one.names.iter().filter(|_| one.names.len() > 1) {
        if Path::new(name) != directory {
            rustix::fs::symlinkat(directory, tmpfs, name).during(|| format!("link `{name}`"))?;
        }
    }
    Ok(())
}

/// One hierarchy, attached nowhere: in a cgroup namespace of its own a new mount, whose root is
/// the container's group, else a copy of the host's mount from that group down.
fn hierarchy(
    init: &Init<'_>,
    one: &cgroup::layout::Hierarchy,
    step: &MountStep,
) -> Result<OwnedFd> {
    let attributes = attribute::NO_SUID
        | attribute::NO_DEV
        | attribute::NO_EXEC
        | (step.attributes.set & attribute::READ_ONLY);
    if init.plan.namespaces.has(Kind::Cgroup) {
        let kind = if one.names.is_empty() {
            "cgroup2"
        } else {
            "cgroup"
        };
        let parameters: Vec<Parameter> = one.names.iter().map(|name| parameter(name)).collect();
        return filesystem::mount(kind, kind, &parameters, attributes);
    }
    let paths = init.groups.paths();
    let own = paths.get(one.names.first().map_or("", String::as_str));
    let copy = sys::mount::clone_tree_at(own.unwrap_or(&one.mount_point), Scope::One)
        .during(|| "open the host's")?;
    let attributes = Attributes {
        set: attributes,
        ..Attributes::default()
    };
    sys::mount::set_attributes(&copy, &attributes, Scope::One).during(|| "set attributes")?;
    Ok(copy)
}

/// `memory`, or `name=systemd`.
fn parameter(name: &str) -> Parameter {
    match name.split_once('=') {
        Some((key, value)) => Parameter::Value(key.to_owned(), value.to_owned()),
        None => Parameter::Flag(name.to_owned()),
    }
}
