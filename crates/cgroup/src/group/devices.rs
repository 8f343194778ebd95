//! Device rules of a group: v1's files, or a program on the v2 group.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use sys::Errno;
use sys::bpf::{self, Attach, AttachType, ProgramType};

use super::{Directory, Group};
use crate::controller::Controller;
use crate::devices::{DeviceRule, Policy, program};
use crate::error::{Error, Result};
use crate::file;
use crate::plan::{Place, Places};

/// Our programs' name: others on the same group (systemd's) are left alone.
const PROGRAM: &str = "floe_devices";

impl Group {
    /// v1's files where v1 has the controller. The program takes over where it has not, and for
    /// rules that v1 cannot hold, if the group has a v2 directory.
    pub(super) fn apply_devices(
        &self,
        places: &Places,
        rules: &[DeviceRule],
        fresh: bool,
    ) -> Result<()> {
        if rules.is_empty() {
            return Ok(());
        }
        let v1 = places
            .of(Controller::Devices)
            .and_then(|place| match place {
                Place::V1(_) => self.at(place),
                Place::V2 => None,
            });
        match (v1, &self.v2) {
            (Some(v1), Some(v2)) => match Policy::of(rules) {
                Ok(policy) => {
                    if !fresh {
                        take_off_program(v2)?;
                    }
                    write_policy(v1, &policy, fresh)
                }
                Err(_) => {
                    put_on_program(v2, rules, fresh)?;
                    write_policy(v1, &Policy::everything(), fresh)
                }
            },
            (Some(v1), None) => write_policy(v1, &Policy::of(rules)?, fresh),
            (None, Some(v2)) => match put_on_program(v2, rules, fresh) {
                // Who cannot load it is in a user namespace, where devices can neither be made
                // nor opened beyond what the host's owner allows.
                Err(error) if self.rootless && error.errno() == Some(Errno::PERM) => Ok(()),
                result => result,
            },
            (None, None) if self.rootless => Ok(()),
            (None, None) if Policy::of(rules).is_ok_and(|policy| policy.is_everything()) => Ok(()),
            (None, None) => Err(Error::text(
                "set",
                "device rules",
                "no usable devices controller on this host",
            )),
        }
    }
}

fn write_policy(directory: &Directory, policy: &Policy, fresh: bool) -> Result<()> {
    let current = if fresh {
        Policy::everything()
    } else {
        Policy::parse(&file::read(&directory.path.join("devices.list"))?)
    };
    if fresh && policy.is_everything() {
        return Ok(());
    }
    for (allow, line) in policy.lines_from(&current) {
        let path = directory.path.join(if allow {
            "devices.allow"
        } else {
            "devices.deny"
        });
        file::write(&path, &line)
            .map_err(|errno| Error::kernel(&format!("write `{line}` to"), &path, errno))?;
    }
    Ok(())
}

/// Attaches the rules' program, in the place of an earlier one of ours. It stays with the group
/// when floe exits.
fn put_on_program(directory: &Directory, rules: &[DeviceRule], fresh: bool) -> Result<()> {
    if fresh && Policy::of(rules).is_ok_and(|policy| policy.is_everything()) {
        return Ok(());
    }
    let fails = |what: &'static str| move |errno| Error::kernel(what, &directory.path, errno);
    let group = open_group(&directory.path).map_err(fails("open group"))?;
    let code = program::assemble(rules);
    let program = bpf::load(ProgramType::CgroupDevice, PROGRAM, &code)
        .map_err(fails("load device program for"))?;
    let attach = |how: Attach<'_>| {
        bpf::attach(
            group.as_fd(),
            AttachType::CgroupDevice,
            program.as_fd(),
            how,
        )
        .map_err(fails("attach device program to"))
    };
    let old = if fresh {
        Vec::new()
    } else {
        own_programs(&group, &directory.path)?
    };
    match old.split_first() {
        None => attach(Attach::Beside),
        Some((first, rest)) => {
            attach(Attach::Replace(first.as_fd()))?;
            rest.iter()
                .try_for_each(|program| detach(group.as_fd(), program, &directory.path))
        }
    }
}

fn take_off_program(directory: &Directory) -> Result<()> {
    let fails = |errno| Error::kernel("open group", &directory.path, errno);
    let group = open_group(&directory.path).map_err(fails)?;
    let old = own_programs(&group, &directory.path)?;
    old.iter()
        .try_for_each(|program| detach(group.as_fd(), program, &directory.path))
}

fn open_group(path: &Path) -> sys::Result<OwnedFd> {
    open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn detach(group: BorrowedFd<'_>, program: &OwnedFd, path: &Path) -> Result<()> {
    bpf::detach(group, AttachType::CgroupDevice, program.as_fd())
        .map_err(|errno| Error::kernel("detach device program from", path, errno))
}

fn own_programs(group: &OwnedFd, path: &Path) -> Result<Vec<OwnedFd>> {
    let fails = |errno| Error::kernel("list device programs of", path, errno);
    let mut own = Vec::new();
    for id in bpf::attached(group.as_fd(), AttachType::CgroupDevice).map_err(fails)? {
        match bpf::by_id(id) {
            Ok(program) if bpf::name(program.as_fd()).map_err(fails)? == PROGRAM => {
                own.push(program);
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(fails(errno)),
        }
    }
    Ok(own)
}
