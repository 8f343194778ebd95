//! Groups that belong to systemd: a scope for each container, asked for over D-Bus.
//!
//! systemd is the single writer of its tree: it makes the group, moves the first process into it
//! and takes it away. We tell it the limits as properties, so that its next reload does not undo
//! them, and write the files that it has no property for ourselves (`Delegate=yes`).

mod properties;
mod unit;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::Pid;

use crate::dbus::{Connection, Target, Value};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::layout::Layout;
use crate::plan::{self, Current};
use crate::resources::Resources;

pub use unit::Unit;

const MANAGER: Target<'_> = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

const PROPERTIES: Target<'_> = Target {
    interface: "org.freedesktop.DBus.Properties",
    ..MANAGER
};

/// Whether systemd is this host's service manager (sd_booted(3)).
#[must_use]
pub fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether the caller's systemd is a user's: the system's belongs to somebody else. So it is for
/// an ordinary user, and for one who is root in a user namespace of their own, as under Podman.
#[must_use]
pub fn is_users() -> bool {
    let own = rustix::process::geteuid();
    let system = std::fs::metadata("/run/systemd");
    !own.is_root() || system.is_ok_and(|found| found.uid() != own.as_raw())
}

/// A connection to systemd: the system's, or that of the calling user.
#[derive(Debug)]
pub struct Systemd {
    connection: Connection,
    user: bool,
}

impl Systemd {
    /// Connects over the bus, or where there is none straight to systemd's own socket.
    ///
    /// # Errors
    /// systemd does not run, or does not answer.
    pub fn connect(user: bool) -> Result<Self> {
        let (bus, private) = addresses(user);
        let connection = match Connection::open(&bus) {
            Ok(mut connection) => {
                connection.hello()?;
                connection.add_match(
                    "type='signal',sender='org.freedesktop.systemd1',\
                     interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
                )?;
                connection.call(&MANAGER, "Subscribe", &[])?;
                connection
            }
            // The error that matters is the bus's.
            Err(error) => Connection::open(&private).map_err(|_| error)?,
        };
        Ok(Self { connection, user })
    }

    /// Starts the unit with a process in it, and returns its group in every hierarchy.
    ///
    /// `extra` are further properties as pairs of a name and a value in GVariant's text form.
    ///
    /// # Errors
    /// systemd refuses, or a unit of that name runs already.
    pub fn start(
        &mut self,
        unit: &Unit,
        layout: &Layout,
        pid: Pid,
        resources: &Resources,
        extra: &[(String, String)],
    ) -> Result<Group> {
        let mut all = properties::of_unit(unit, pid.as_raw_nonzero().get().unsigned_abs());
        all.extend(limits(layout, resources, &Current::default())?);
        for (name, value) in extra {
            let value = properties::parse(value)
                .ok_or_else(|| Error::text("set unit property", name, "cannot read its value"))?;
            all.push((name.clone(), value));
        }
        let text = |text: &str| Value::Text(text.to_owned());
        let arguments = [
            text(unit.name()),
            text("fail"),
            Value::Properties(all),
            Value::NoUnits,
        ];
        let answer = match self
            .connection
            .call(&MANAGER, "StartTransientUnit", &arguments)
        {
            Err(error) if error.is_about("org.freedesktop.systemd1.UnitExists") => {
                // Only one that failed can be reset; one that runs is still there afterwards.
                let reset = [text(unit.name())];
                let _ = self.connection.call(&MANAGER, "ResetFailedUnit", &reset);
                self.connection
                    .call(&MANAGER, "StartTransientUnit", &arguments)?
            }
            answer => answer?,
        };
        self.wait_job(unit, &answer.text(0).unwrap_or_default())?;
        self.join(unit, layout, pid).inspect_err(|_| {
            // The error that made us give up is the one to report.
            let _ = self.stop(unit);
        })
    }

    /// Makes the unit's group in the hierarchies that systemd does not look after.
    fn join(&mut self, unit: &Unit, layout: &Layout, pid: Pid) -> Result<Group> {
        let mut group = self.group(unit, layout)?;
        group.create()?;
        group.attach_v1(pid)?;
        Ok(group)
    }

    /// Where the unit's group is, in every hierarchy.
    ///
    /// # Errors
    /// systemd does not tell where its own group is.
    pub fn group(&mut self, unit: &Unit, layout: &Layout) -> Result<Group> {
        let property = ["org.freedesktop.systemd1.Manager", "ControlGroup"];
        let arguments = property.map(|text| Value::Text(text.to_owned()));
        let own = self
            .connection
            .call(&PROPERTIES, "Get", &arguments)?
            .text(0);
        Group::managed(
            layout,
            &unit.group_below(own.as_deref().unwrap_or_default()),
            self.user,
        )
    }

    /// Tells systemd other limits for a running unit.
    ///
    /// # Errors
    /// The unit does not run, or a value is refused.
    pub fn update(&mut self, unit: &Unit, layout: &Layout, resources: &Resources) -> Result<()> {
        let current = self
            .group(unit, layout)?
            .current(&layout.places(), resources)?;
        let limits = limits(layout, resources, &current)?;
        if limits.is_empty() {
            return Ok(());
        }
        let arguments = [
            Value::Text(unit.name().to_owned()),
            Value::Bool(true),
            Value::Properties(limits),
        ];
        self.connection
            .call(&MANAGER, "SetUnitProperties", &arguments)
            .map(drop)
    }

    /// Stops the unit, which ends what is left in it, and forgets its failure. One that is gone
    /// is stopped; one of the same name in another slice is somebody else's, and left alone.
    ///
    /// # Errors
    /// systemd refuses, or the unit does not stop.
    pub fn stop(&mut self, unit: &Unit) -> Result<()> {
        if self.is_foreign(unit)? {
            return Ok(());
        }
        let text = |text: &str| Value::Text(text.to_owned());
        let arguments = [text(unit.name()), text("replace")];
        let stopped = match self.connection.call(&MANAGER, "StopUnit", &arguments) {
            Err(error) if error.is_about("org.freedesktop.systemd1.NoSuchUnit") => Ok(()),
            Err(error) => Err(error),
            Ok(answer) => self.wait_job(unit, &answer.text(0).unwrap_or_default()),
        };
        // Refused where there is no failure to forget.
        let _ = self
            .connection
            .call(&MANAGER, "ResetFailedUnit", &[text(unit.name())]);
        stopped
    }

    /// Whether the loaded unit of this name lies elsewhere.
    fn is_foreign(&mut self, unit: &Unit) -> Result<bool> {
        if unit.is_slice() {
            // Its name says where it lies.
            return Ok(false);
        }
        let text = |text: &str| Value::Text(text.to_owned());
        let found = self
            .connection
            .call(&MANAGER, "GetUnit", &[text(unit.name())]);
        let path = match found {
            Err(error) if error.is_about("org.freedesktop.systemd1.NoSuchUnit") => {
                return Ok(false);
            }
            found => found?.text(0).unwrap_or_default(),
        };
        let target = Target {
            path: &path,
            ..PROPERTIES
        };
        let property = [text("org.freedesktop.systemd1.Scope"), text("Slice")];
        let slice = self.connection.call(&target, "Get", &property)?.text(0);
        Ok(slice.is_some_and(|slice| slice != unit.slice()))
    }

    /// The signal has: job number, job path, unit, result.
    fn wait_job(&mut self, unit: &Unit, job: &str) -> Result<()> {
        let what = format!("systemd's job for {}", unit.name());
        let result = self.connection.wait_signal(&what, |signal| {
            let ours = signal.member.as_deref() == Some("JobRemoved")
                && signal.text(1).as_deref() == Some(job);
            ours.then(|| signal.text(3).unwrap_or_default())
        })?;
        if result == "done" {
            return Ok(());
        }
        Err(Error::text(
            "change unit",
            unit.name(),
            &format!("its job ended as {result}"),
        ))
    }
}

fn limits(
    layout: &Layout,
    resources: &Resources,
    current: &Current,
) -> Result<Vec<(String, Value)>> {
    let plan = plan::plan(&layout.places(), resources, current)?;
    let mut all = properties::of_plan(&plan);
    if !resources.devices.is_empty() {
        let names = crate::file::read_optional(Path::new("/proc/devices"))?.unwrap_or_default();
        all.extend(properties::of_devices(&resources.devices, &names));
    }
    Ok(all)
}

/// The bus, and systemd's own socket.
fn addresses(user: bool) -> (String, String) {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if !user {
        let bus = variable("DBUS_SYSTEM_BUS_ADDRESS")
            .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned());
        return (bus, "unix:path=/run/systemd/private".to_owned());
    }
    let runtime = variable("XDG_RUNTIME_DIR")
        .unwrap_or_else(|| format!("/run/user/{}", rustix::process::getuid().as_raw()));
    let bus = variable("DBUS_SESSION_BUS_ADDRESS");
    let bus = bus.unwrap_or_else(|| format!("unix:path={runtime}/bus"));
    (bus, format!("unix:path={runtime}/systemd/private"))
}
