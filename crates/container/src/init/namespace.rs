//! Namespaces that are entered from inside, and what new ones need first.

use std::path::Path;

use rustix::thread::{Gid, Uid};
use sys::namespace::{self, Kind};

use super::Init;
use crate::error::{During, Error, Result};

/// Takes the ids that own the new user namespace; those of the host are not mapped in it.
pub(super) fn become_root(init: &mut Init<'_>) -> Result<()> {
    if !init.plan.user_namespace() {
        return Ok(());
    }
    // Groups of the caller would stay with the container's processes. Where setgroups is denied,
    // an unprivileged caller made the namespace, and dropping its groups is not allowed.
    match rustix::thread::set_thread_groups(&[]) {
        Ok(()) | Err(sys::Errno::PERM) => {}
        Err(errno) => return Err(errno).during(|| "drop supplementary groups"),
    }
    let gid = rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT);
    let uid = rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT);
    match gid.and(uid) {
        // Without a map for 0 the process stays who it is, and holds the capabilities all the same.
        Ok(()) | Err(sys::Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno).during(|| "take uid 0 and gid 0"),
    }
}

/// Makes the cgroup namespace. By now the process is in its own group of every hierarchy, so that
/// none of the host's groups is the namespace's root.
pub(super) fn enter_cgroup(init: &mut Init<'_>) -> Result<()> {
    if init.plan.namespaces.makes(Kind::Cgroup) {
        namespace::unshare(Kind::Cgroup.flag()).during(|| "unshare")?;
    }
    Ok(())
}

/// Makes the time namespace, sets its offsets while nobody is in it, then joins it. Comes before
/// [`become_root`]: `timens_offsets` belongs to the caller's ids, which that gives up.
pub(super) fn enter_time(init: &mut Init<'_>) -> Result<()> {
    if !init.plan.namespaces.makes(Kind::Time) {
        return Ok(());
    }
    namespace::unshare(Kind::Time.flag()).during(|| "unshare")?;
    let linux = init.plan.linux();
    let lines: String = linux
        .time_offsets
        .iter()
        .map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs))
        .collect();
    if !lines.is_empty() {
        // The private `/proc` does not exist yet: it shows the clocks' namespace it is mounted in.
        std::fs::write("/proc/self/timens_offsets", &lines)
            .during(|| format!("linux.timeOffsets: write {lines:?}"))?;
    }
    let path = Path::new("/proc/self/ns/time_for_children");
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let made = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).during(|| "open")?;
    namespace::join(std::os::fd::AsFd::as_fd(&made), Kind::Time).during(|| "join")
}

/// A new network namespace has a loopback device that is down.
pub(super) fn loopback(init: &mut Init<'_>) -> Result<()> {
    if init.plan.namespaces.makes(Kind::Network) {
        sys::netlink::loopback_up().during(|| "bring up")?;
    }
    Ok(())
}

/// Gives the devices that were moved in the addresses back that the move took from them, and brings
/// them up (config-linux.md, "Network Devices").
pub(super) fn devices(init: &mut Init<'_>) -> Result<()> {
    for (name, addresses) in &init.inherited.devices {
        for address in addresses {
            sys::netlink::add_address(name, address)
                .during(|| format!("linux.netDevices: give `{name}` its address"))?;
        }
        sys::netlink::device_up(name).during(|| format!("linux.netDevices: bring `{name}` up"))?;
    }
    Ok(())
}

/// Sets the host and domain name.
pub(super) fn names(init: &mut Init<'_>) -> Result<()> {
    let own = init.plan.namespaces.has(Kind::Uts);
    let refuse = |field: &str| {
        Error::plain(format!(
            "{field}: without a `uts` namespace this would rename the host"
        ))
    };
    if let Some(name) = &init.plan.spec.hostname {
        if !own {
            return Err(refuse("hostname"));
        }
        rustix::system::sethostname(name.as_bytes()).during(|| format!("set `{name}`"))?;
    }
    if let Some(name) = &init.plan.spec.domainname {
        if !own {
            return Err(refuse("domainname"));
        }
        rustix::system::setdomainname(name.as_bytes()).during(|| format!("set `{name}`"))?;
    }
    Ok(())
}
