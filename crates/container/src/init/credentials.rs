//! Who the program runs as. The order is the kernel's: each step needs what the next gives up.

use std::path::Path;

use rustix::fs::Mode;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use super::Init;
use crate::capabilities::{self, Sets};
use crate::error::{During, Error, Result};

/// Takes the configured user, groups and capabilities, for good.
pub(super) fn set(init: &mut Init<'_>) -> Result<()> {
    let process = init.plan.spec.process.as_ref();
    let none = crate::spec::Capabilities::default();
    let wanted = process
        .and_then(|process| process.capabilities.as_ref())
        .unwrap_or(&none);
    let held = rustix::thread::capabilities(None).during(|| "read the own capabilities")?;
    // The kernel refuses all for one that we lack ourselves, as for root without
    // CAP_SYS_RESOURCE; less than what was asked for is safe to give.
    let sets = capabilities::sets(wanted).within(held.permitted.bits());
    drop_bounding(&sets).during(|| "drop capabilities from the bounding set")?;
    // setresuid would clear the permitted set of one who leaves uid 0.
    rustix::thread::set_keep_capabilities(true).during(|| "keep capabilities")?;
    become_user(init)?;
    rustix::thread::set_keep_capabilities(false).during(|| "stop keeping capabilities")?;
    apply(&sets).during(|| "set capabilities")?;
    rustix::process::umask(Mode::from_raw_mode(init.plan.process.umask));
    if process.is_some_and(|process| process.no_new_privileges) {
        rustix::thread::set_no_new_privs(true).during(|| "set no_new_privs")?;
    }
    enter_directory(init)
}

fn become_user(init: &Init<'_>) -> Result<()> {
    let user = &init.plan.process;
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        Ok(()) => {}
        // A user namespace of an unprivileged caller denies setgroups; its groups are its own.
        Err(sys::Errno::PERM) if groups.is_empty() && init.plan.user_namespace() => {}
        Err(errno) => return Err(errno).during(|| "process.user.additionalGids: set"),
    }
    let (gid, uid) = (Gid::from_raw(user.gid), Uid::from_raw(user.uid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .during(|| format!("process.user.gid: become {}", user.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .during(|| format!("process.user.uid: become {}", user.uid))
}

/// A directory that only the user may enter (0700 on a file system where root is nobody) could not
/// be entered before; one that only root may enter, is by now.
fn enter_directory(init: &Init<'_>) -> Result<()> {
    match rustix::process::chdir(cwd(init)) {
        Ok(()) => directory_is_inside(),
        Err(sys::Errno::ACCESS) if init.in_directory => Ok(()),
        Err(errno) => Err(errno)
            .during(|| format!("process.cwd: change directory to `{}`", cwd(init).display())),
    }
}

fn cwd<'a>(init: &'a Init<'_>) -> &'a Path {
    &init.plan.process.cwd
}

/// Refuses a working directory outside the root (CVE-2024-21626: `cwd` named a descriptor of a
/// directory of the host). The kernel marks such a path, and no path then leads from `/` to it.
pub(super) fn directory_is_inside() -> Result<()> {
    let path = rustix::process::getcwd(Vec::new()).during(|| "process.cwd: find its path")?;
    if path.as_bytes().first() == Some(&b'/') {
        Ok(())
    } else {
        Err(Error::plain(
            "process.cwd: is outside the container's root file system",
        ))
    }
}

fn set_of(bits: u64) -> CapabilitySet {
    CapabilitySet::from_bits_retain(bits)
}

/// Each capability of a set alone.
fn each(bits: u64) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|number| 1 << number)
        .filter(move |bit| bits & bit != 0)
        .map(set_of)
}

/// Drops all but those of the set, up to the last one that the kernel knows.
fn drop_bounding(sets: &Sets) -> sys::Result<()> {
    for one in each(!sets.bounding) {
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(sys::Errno::INVAL) => break,
            // Without CAP_SETPCAP nothing can be dropped; what is not there needs not be.
            Err(sys::Errno::PERM) if !rustix::thread::capability_is_in_bounding_set(one)? => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Ambient ones come last: they must be permitted and inheritable by then.
fn apply(sets: &Sets) -> sys::Result<()> {
    let wanted = CapabilitySets {
        effective: set_of(sets.effective),
        permitted: set_of(sets.permitted),
        inheritable: set_of(sets.inheritable),
    };
    rustix::thread::set_capabilities(None, wanted)?;
    rustix::thread::clear_ambient_capability_set()?;
    for one in each(sets.ambient) {
        rustix::thread::configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}
