//! The container's resource groups, and who makes them: we, or systemd.

use std::path::PathBuf;

use cgroup::Group;
use cgroup::systemd::{Systemd, Unit, is_users};
use rustix::process::Pid;

use crate::error::{During, Error, Result};
use crate::launch::Child;
use crate::plan::{Plan, resources};
use crate::record::{INNER_GROUP, Record};
use crate::{prepare, resctrl, spec};

/// The groups of a container that is being created.
#[derive(Debug)]
pub(crate) struct Groups<'a> {
    plan: &'a Plan,
    layout: &'a cgroup::Layout,
    manager: Manager,
    /// The one with the limits.
    outer: Group,
    /// The one with the processes: the same, or one below it.
    process: Group,
    /// Groups of the resctrl file system, and where it is mounted.
    resctrl: Option<(PathBuf, resctrl::Plan)>,
}

/// Who makes and removes the groups.
#[derive(Debug)]
enum Manager {
    Own,
    Systemd { connection: Systemd, unit: Unit },
}

impl<'a> Groups<'a> {
    /// Decides where they will be; makes nothing. systemd is asked only where the caller wants it.
    pub(crate) fn place(plan: &'a Plan, layout: &'a cgroup::Layout) -> Result<Groups<'a>> {
        let linux = plan.linux();
        let (path, id) = (linux.cgroups_path.as_deref(), plan.id.as_str());
        let (manager, outer) = if plan.options.systemd_cgroup {
            let (mut connection, unit) = systemd(path, id)?;
            let group = connection
                .group(&unit, layout)
                .during(|| "linux.cgroupsPath")?;
            (Manager::Systemd { connection, unit }, group)
        } else {
            let request = cgroup::Request {
                id,
                path,
                rootless: is_user(),
            };
            (
                Manager::Own,
                Group::place(layout, &request).during(|| "linux.cgroupsPath")?,
            )
        };
        let process = if plan.inner_group() {
            outer.inner(INNER_GROUP)
        } else {
            outer.clone()
        };
        Ok(Groups {
            resctrl: place_resctrl(plan)?,
            plan,
            layout,
            manager,
            outer,
            process,
        })
    }

    /// The group that has the limits.
    pub(crate) fn outer(&self) -> &Group {
        &self.outer
    }

    /// The group that will hold the processes.
    pub(crate) fn process(&self) -> &Group {
        &self.process
    }

    /// The groups of the resctrl file system, for the record.
    pub(crate) fn resctrl(&self) -> Option<resctrl::Groups> {
        self.resctrl.as_ref().map(|(_, plan)| plan.groups.clone())
    }

    pub(crate) fn layout(&self) -> &'a cgroup::Layout {
        self.layout
    }

    /// What comes before there is a process. systemd needs one to make a group.
    pub(crate) fn before(&mut self) -> Result<()> {
        if let Some((root, plan)) = &mut self.resctrl {
            resctrl::make(root, plan)?;
        }
        if matches!(self.manager, Manager::Own) {
            self.outer.create().during(|| "make the groups")?;
            self.limit()?;
            self.make_inner()?;
        }
        Ok(())
    }

    /// The v2 directory that the process may be born in.
    pub(crate) fn birthplace(&self) -> Result<Option<std::os::fd::OwnedFd>> {
        match self.manager {
            Manager::Own => self.process.v2_dir().during(|| "open the v2 group"),
            Manager::Systemd { .. } => Ok(None),
        }
    }

    /// Puts the process where it belongs, before it does anything.
    pub(crate) fn attach(&mut self, child: &Child) -> Result<()> {
        if let Some((root, plan)) = &self.resctrl {
            resctrl::attach(root, &plan.groups, child.pid)?;
        }
        let during = || "attach the process to its groups";
        if let Manager::Systemd { connection, unit } = &mut self.manager {
            let wanted = wanted(self.plan)?;
            let extra = unit_properties(&self.plan.spec);
            self.outer = connection
                .start(unit, self.layout, child.pid, &wanted, &extra)
                .during(|| format!("start unit `{}`", unit.name()))?;
            self.limit()?;
            if !self.plan.inner_group() {
                self.process = self.outer.clone();
                return Ok(());
            }
            self.process = self.outer.inner(INNER_GROUP);
            self.make_inner()?;
        }
        if child.in_group {
            self.process.attach_v1(child.pid).during(during)
        } else {
            self.process.attach(child.pid).during(during)
        }
    }

    fn limit(&mut self) -> Result<()> {
        let wanted = wanted(self.plan)?;
        self.outer.apply(&wanted).during(|| "linux.resources")
    }

    /// Below the group with the limits; a user namespace's root may divide it further.
    fn make_inner(&mut self) -> Result<()> {
        if !self.plan.inner_group() {
            return Ok(());
        }
        self.process.create().during(|| "make the inner group")?;
        match prepare::host_root(self.plan) {
            Some((uid, gid)) => self.process.delegate(uid, gid).during(|| "the inner group"),
            None => Ok(()),
        }
    }
}

/// Decides about `linux.intelRdt`; one that asks for nothing is none.
fn place_resctrl(plan: &Plan) -> Result<Option<(PathBuf, resctrl::Plan)>> {
    let linux = plan.linux();
    let wanted = linux
        .intel_rdt
        .as_ref()
        .filter(|wanted| **wanted != spec::IntelRdt::default());
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    let root = resctrl::mounted()?.ok_or_else(|| {
        Error::plain("linux.intelRdt: not supported: the host has no resctrl file system mounted")
    })?;
    let plan = resctrl::place(&root, wanted, plan.id.as_str())?;
    Ok(Some((root, plan)))
}

/// Puts another process of the container where its first one is.
pub(crate) fn attach_resctrl(record: &Record, pid: Pid) -> Result<()> {
    match &record.resctrl {
        Some(groups) => {
            let root = resctrl::mounted()?.ok_or_else(|| {
                Error::plain("linux.intelRdt: the resctrl file system is not mounted any more")
            })?;
            resctrl::attach(&root, groups, pid)
        }
        None => Ok(()),
    }
}

/// The limits of the configuration, with the device rules that every container has.
fn wanted(plan: &Plan) -> Result<cgroup::Resources> {
    let linux = plan.linux();
    let wanted = linux
        .resources
        .as_ref()
        .map(resources::translate)
        .transpose()?;
    let mut wanted = wanted.unwrap_or_default();
    if prepare::may_restrict_devices() {
        wanted.devices = resources::device_policy(wanted.devices, &plan.devices.nodes);
    } else {
        wanted.devices.clear();
    }
    Ok(wanted)
}

fn is_user() -> bool {
    !rustix::process::geteuid().is_root()
}

fn systemd(path: Option<&str>, id: &str) -> Result<(Systemd, Unit)> {
    let user = is_users();
    let unit = Unit::parse(path, id, user).during(|| "linux.cgroupsPath")?;
    let connection = Systemd::connect(user).during(|| "--systemd-cgroup")?;
    Ok((connection, unit))
}

/// Annotations `org.systemd.property.NAME` are properties of the unit.
fn unit_properties(spec: &spec::Spec) -> Vec<(String, String)> {
    let properties = spec.annotations.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix("org.systemd.property.")?;
        Some((name.to_owned(), value.clone()))
    });
    properties.collect()
}

/// Changes the limits of a container that exists.
pub(crate) fn update(record: &Record, wanted: &cgroup::Resources) -> Result<()> {
    if let Some(path) = &record.systemd_unit {
        let (mut connection, unit) = systemd(Some(path), &record.id)?;
        let layout = cgroup::Layout::detect().during(|| "find the groups")?;
        connection
            .update(&unit, &layout, wanted)
            .during(|| "update the unit")?;
    }
    record.group().apply(wanted).during(|| "update")
}

/// Removes the groups; what is left in them has been killed.
pub(crate) fn remove(record: &Record) -> Result<()> {
    if let Some(path) = &record.systemd_unit {
        let (mut connection, unit) = systemd(Some(path), &record.id)?;
        connection.stop(&unit).during(|| "stop the unit")?;
    }
    let removed = record.group().remove().during(|| "remove the groups");
    // Without the mount there are no groups.
    if let Some(groups) = &record.resctrl
        && let Some(root) = resctrl::mounted()?
    {
        resctrl::remove(&root, groups, record.init_process_pid)?;
    }
    removed
}

impl<T> During<T> for cgroup::Result<T> {
    fn during<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::new(operation(), error))
    }
}
