//! What the runtime does for the process from outside, because only it may.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::Pid;
use sys::clone::{Clone, Side, clone};
use sys::mount::{Attributes, Scope};
use sys::namespace::Kind;
use sys::process::Limit;

use crate::error::{During, Error, Result};
use crate::init::mount as steps;
use crate::plan::mount::{IdMap, MountStep, What};
use crate::plan::namespace::Namespaces;
use crate::plan::{Plan, process};
use crate::{capabilities, id_map, spec};

/// Opens the files of the namespaces to join.
pub(crate) fn namespace_files(namespaces: &Namespaces) -> Result<Vec<(Kind, OwnedFd)>> {
    let open = |(kind, path): &(Kind, std::path::PathBuf)| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let during = || format!("linux.namespaces: open `{}`", path.display());
        let file = rustix::fs::open(path, flags, Mode::empty()).during(during)?;
        Ok((*kind, file))
    };
    namespaces.join.iter().map(open).collect()
}

/// Prepares the bind mounts that the process could not make from inside its user namespace: their
/// sources may lie behind directories that it may not enter, and only the owner of a file system
/// may map its ids.
pub(crate) fn sources(plan: &Plan) -> Result<BTreeMap<usize, OwnedFd>> {
    let privileged = rustix::process::geteuid().is_root();
    let mut prepared = BTreeMap::new();
    for (index, step) in plan.mounts.iter().enumerate() {
        let What::Bind { source, scope } = &step.what else {
            continue;
        };
        let needed = step.id_map.is_some() || (privileged && plan.user_namespace());
        if needed {
            let mount = prepare_source(plan, step, source, *scope).map_err(|error| {
                error.within(format!("mounts[{index}]: `{}`", source.display()))
            })?;
            prepared.insert(index, mount);
        }
    }
    Ok(prepared)
}

fn prepare_source(
    plan: &Plan,
    step: &MountStep,
    source: &std::path::Path,
    scope: sys::mount::Scope,
) -> Result<OwnedFd> {
    let mount = steps::bind_source(source, scope)?;
    // The copy was made in the host's mount namespace, and is a peer of what it was made of: what
    // the container mounts below it would appear on the host.
    let slave = Attributes {
        propagation: crate::plan::mount::MS_SLAVE,
        ..Attributes::default()
    };
    sys::mount::set_attributes(&mount, &slave, Scope::Tree).during(|| "make it a slave")?;
    if let Some(map) = &step.id_map {
        let namespace = mapping_namespace(plan, map)?;
        sys::mount::set_id_map(&mount, namespace.as_fd(), map.scope).during(|| "map the ids")?;
    }
    steps::set_attributes(&mount, step)?;
    Ok(mount)
}

/// A user namespace with a mount's mappings, or the container's where it has none of its own.
fn mapping_namespace(plan: &Plan, map: &IdMap) -> Result<OwnedFd> {
    let joined = plan
        .namespaces
        .join
        .iter()
        .find(|(kind, _)| *kind == Kind::User);
    let linux = plan.linux();
    let (uids, gids) = match (map.uids.is_empty() && map.gids.is_empty(), joined) {
        (true, Some((_, path))) => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            return rustix::fs::open(path, flags, Mode::empty())
                .during(|| "open the user namespace");
        }
        (true, None) => (linux.uid_mappings.clone(), linux.gid_mappings.clone()),
        (false, _) => (map.uids.clone(), map.gids.clone()),
    };
    user_namespace(&spec::Linux {
        uid_mappings: uids,
        gid_mappings: gids,
        ..spec::Linux::default()
    })
}

/// Makes a user namespace that nobody lives in: a process holds it until its file is open.
fn user_namespace(maps: &spec::Linux) -> Result<OwnedFd> {
    let (ours, theirs) = sys::message::pair().during(|| "make a socket pair")?;
    let options = Clone {
        flags: Kind::User.flag(),
        ..Clone::default()
    };
    match clone(&options).during(|| "clone a user namespace")? {
        Side::Child => {
            drop(ours);
            // Ends when the runtime closes its end, or is gone.
            let _closed = sys::message::receive(&theirs, &mut [0]);
            sys::process::leave(0)
        }
        Side::Parent { pid, .. } => {
            drop(theirs);
            let path = format!("/proc/{pid}/ns/user");
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let opened = id_map::write(pid, maps).and_then(|()| {
                rustix::fs::open(&path, flags, Mode::empty()).during(|| format!("open `{path}`"))
            });
            drop(ours);
            let options = rustix::process::WaitOptions::empty();
            rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), options))
                .during(|| "wait for the namespace's process")?;
            opened
        }
    }
}

/// Writes `process.oomScoreAdj`; lowering it takes rights in the host's user namespace.
pub(crate) fn oom_score(plan: &Plan, pid: Pid) -> Result<()> {
    let wanted = plan
        .spec
        .process
        .as_ref()
        .and_then(|process| process.oom_score_adj);
    let Some(score) = wanted else { return Ok(()) };
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
        .during(|| format!("process.oomScoreAdj: set {score}"))
}

/// Makes room for limits above the present hard ones; the process sets them exactly, at its end.
///
/// # Errors
/// The hard limit would really grow and CAP_SYS_RESOURCE is missing.
pub(crate) fn raise_limits(process: &process::Plan, pid: Pid) -> Result<()> {
    for (number, name, wanted) in &process.limits {
        let during = || format!("process.rlimits: `{name}`");
        let now = sys::process::limit(Some(pid), *number, None).during(during)?;
        if wanted.hard > now.hard {
            let raised = Limit {
                soft: now.soft,
                hard: wanted.hard,
            };
            sys::process::limit(Some(pid), *number, Some(&raised)).during(|| {
                format!(
                    "process.rlimits: raise `{name}` from {} to {}",
                    now.hard, wanted.hard
                )
            })?;
        }
    }
    Ok(())
}

/// The addresses of `linux.netDevices`, by the names that the devices will have.
pub(crate) fn device_addresses(
    linux: &spec::Linux,
) -> Result<Vec<(String, Vec<sys::netlink::Address>)>> {
    let one = |(name, device): (&String, &spec::NetDevice)| {
        let addresses = sys::netlink::addresses(name)
            .during(|| format!("linux.netDevices: read the addresses of `{name}`"))?;
        Ok((
            device.name.clone().unwrap_or_else(|| name.clone()),
            addresses,
        ))
    };
    linux.net_devices.iter().map(one).collect()
}

/// Warns of capabilities that the runtime does not hold itself, and so cannot give.
pub(crate) fn missing_capabilities(plan: &Plan) -> Option<String> {
    let process = plan.spec.process.as_ref()?;
    if plan.user_namespace() {
        return None; // whoever makes one holds them all there
    }
    let held = rustix::thread::capabilities(None).ok()?.permitted.bits();
    let wanted = capabilities::sets(process.capabilities.as_ref()?);
    // The bounding set may name more than is ever held; nobody misses it.
    let lost = wanted.lost_in(&wanted.within(held));
    (!lost.is_empty()).then(|| {
        let names = lost.join(", ");
        format!("process.capabilities: the runtime lacks {names}: left out")
    })
}

/// Refuses to hand on descriptors that the caller did not give: what the runtime opened at such a
/// number is not meant for the container.
pub(crate) fn inherited_fds(process: &process::Plan) -> Result<()> {
    let count = process.inherited_fds;
    // No process has more than `fs.nr_open` of them, which is less than this.
    let last = i32::try_from(count.saturating_add(2)).unwrap_or(i32::MAX);
    match (3..=last).find(|number| !sys::fd::is_inherited(*number)) {
        Some(number) => {
            let operation = format!("--preserve-fds and LISTEN_FDS: hand {count} descriptors on");
            Err(Error::new(operation, format!("{number} is not open")))
        }
        None => Ok(()),
    }
}

/// Moves `linux.netDevices` into the process's network namespace.
pub(crate) fn move_devices(linux: &spec::Linux, pid: Pid) -> Result<()> {
    if linux.net_devices.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace =
        rustix::fs::open(&path, flags, Mode::empty()).during(|| format!("open `{path}`"))?;
    for (name, device) in &linux.net_devices {
        let inside = device.name.as_deref().unwrap_or(name);
        sys::netlink::move_device(name, &namespace, inside)
            .during(|| format!("linux.netDevices: move `{name}` as `{inside}`"))?;
    }
    Ok(())
}

/// Whether device access can be restricted: a user namespace's root may not, and needs not, for it
/// makes no device nodes that work.
pub(crate) fn may_restrict_devices() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let initial = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    initial && rustix::process::geteuid().is_root()
}

/// Connects to `linux.seccomp.listenerPath`; the process itself has no way there later.
pub(crate) fn seccomp_agent(plan: &Plan) -> Result<Option<OwnedFd>> {
    let linux = plan.linux();
    let Some(path) = linux
        .seccomp
        .as_ref()
        .and_then(|rules| rules.listener_path.as_ref())
    else {
        return Ok(None);
    };
    let during = || {
        format!(
            "linux.seccomp.listenerPath: connect to `{}`",
            path.display()
        )
    };
    let flags = SocketFlags::CLOEXEC;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).during(during)?;
    let address = SocketAddrUnix::new(path).during(during)?;
    connect(&socket, &address).during(during)?;
    Ok(Some(socket))
}

/// The host's ids of the root of the container's new user namespace.
pub(crate) fn host_root(plan: &Plan) -> Option<(u32, u32)> {
    let linux = plan.linux();
    let root = |maps: &[spec::IdMapping]| {
        maps.iter()
            .find(|map| map.container_id == 0)
            .map(|map| map.host_id)
    };
    Some((root(&linux.uid_mappings)?, root(&linux.gid_mappings)?))
}
