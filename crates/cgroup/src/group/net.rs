//! Network policies of a group: programs on its v2 directory.
//!
//! All programs of a policy share its maps. Each takes the place of its predecessor in one step,
//! so that at every moment a socket meets the old rules or the new ones. Programs of the groups
//! above are asked too, and each can refuse: a group below can only be tighter.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use sys::Errno;
use sys::bpf::{self, Attach, AttachType, ProgramType};
use sys::bpf_map;

use super::Group;
use crate::error::{Error, Result};
use crate::net::{Hook, Maps, Policy, Tables, assemble};

/// The hooks of the kernel for a hook of ours: the program's name, the kernel's hook, and whether
/// its sockets are IPv6's.
fn hooks(hook: Hook) -> &'static [(&'static str, AttachType, bool)] {
    match hook {
        Hook::Connect => &[
            ("floe_connect4", AttachType::CgroupInet4Connect, false),
            ("floe_connect6", AttachType::CgroupInet6Connect, true),
            ("floe_send4", AttachType::CgroupUdp4Sendmsg, false),
            ("floe_send6", AttachType::CgroupUdp6Sendmsg, true),
        ],
        Hook::Accept => &[("floe_accept", AttachType::CgroupInetIngress, false)],
        Hook::Bind => &[
            ("floe_bind4", AttachType::CgroupInet4Bind, false),
            ("floe_bind6", AttachType::CgroupInet6Bind, true),
        ],
    }
}

impl Group {
    /// Puts a policy in the place of an earlier one of the same hook. It stays with the group.
    /// Sockets are judged by the group that they were made in.
    ///
    /// # Errors
    /// The group has no v2 directory, or the kernel refuses the programs (`EPERM` without
    /// CAP_BPF and CAP_NET_ADMIN); the policies that were there stay.
    pub fn set_policy(&self, hook: Hook, policy: &Policy) -> Result<()> {
        let Some(path) = self.v2_path() else {
            return Err(self.describe_error("set network policy of", "no v2 group on this host"));
        };
        let fails = |what: &'static str| move |errno| Error::kernel(what, path, errno);
        let group = open_group(path).map_err(fails("open group"))?;
        if policy.is_open() {
            return take_off(&group, hook, path);
        }
        let maps = Maps::of(&Tables::of(policy));
        let addresses =
            bpf_map::longest_prefix(&maps.addresses).map_err(fails("make network tables for"))?;
        let ports =
            bpf_map::longest_prefix(&maps.ports).map_err(fails("make network tables for"))?;
        let numbers = [bpf_map::number(&addresses), bpf_map::number(&ports)];
        let mut programs = Vec::new();
        for (name, kernels, v6) in hooks(hook) {
            let code = assemble(hook, *v6, policy.allow, numbers);
            let kind = match hook {
                Hook::Connect | Hook::Bind => ProgramType::CgroupSockAddr,
                Hook::Accept => ProgramType::CgroupSkb,
            };
            let program = bpf::load_for(kind, *kernels, name, &code)
                .map_err(fails("load network program for"))?;
            programs.push((*name, *kernels, program));
        }
        for (name, kernels, program) in &programs {
            let old = own(&group, *kernels, name).map_err(fails("list network programs of"))?;
            let how = match &old {
                Some(old) => Attach::Replace(old.as_fd()),
                None => Attach::Beside,
            };
            bpf::attach(group.as_fd(), *kernels, program.as_fd(), how)
                .map_err(fails("attach network program to"))?;
        }
        Ok(())
    }

    /// Whether the group itself has a policy for the hook.
    #[must_use]
    pub fn has_policy(&self, hook: Hook) -> bool {
        let group = self.v2_path().and_then(|path| open_group(path).ok());
        group.is_some_and(|group| {
            let mut all = hooks(hook).iter();
            all.all(|(name, kernels, _)| matches!(own(&group, *kernels, name), Ok(Some(_))))
        })
    }
}

fn take_off(group: &OwnedFd, hook: Hook, path: &Path) -> Result<()> {
    let fails = |errno| Error::kernel("detach network program from", path, errno);
    for (name, kernels, _) in hooks(hook) {
        if let Some(program) = own(group, *kernels, name).map_err(fails)? {
            bpf::detach(group.as_fd(), *kernels, program.as_fd()).map_err(fails)?;
        }
    }
    Ok(())
}

/// Our program on a hook; others beside it are left alone.
fn own(group: &OwnedFd, hook: AttachType, name: &str) -> sys::Result<Option<OwnedFd>> {
    for id in bpf::attached(group.as_fd(), hook)? {
        match bpf::by_id(id) {
            Ok(program) if bpf::name(program.as_fd())? == name => return Ok(Some(program)),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

fn open_group(path: &Path) -> sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
}
