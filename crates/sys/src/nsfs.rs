//! Questions to a namespace file (ioctl_ns(2)).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::{Result, result};

const NS_GET_USERNS: libc::c_ulong = 0xb701;
const NS_GET_PARENT: libc::c_ulong = 0xb702;
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// The user namespace that owns this namespace. Since Linux 4.9.
///
/// # Errors
/// EPERM if it lies outside the caller's own user namespace.
pub fn owner<Fd: AsFd>(namespace: Fd) -> Result<OwnedFd> {
    related(namespace, NS_GET_USERNS)
}

/// The parent of a pid or user namespace. Since Linux 4.9.
///
/// # Errors
/// EPERM for the first one and for one outside the caller's, EINVAL for other types.
pub fn parent<Fd: AsFd>(namespace: Fd) -> Result<OwnedFd> {
    related(namespace, NS_GET_PARENT)
}

/// The `CLONE_NEW*` flag of this namespace's type. Since Linux 4.11.
///
/// # Errors
/// ENOTTY if the file is not a namespace.
pub fn kind<Fd: AsFd>(namespace: Fd) -> Result<u32> {
    // SAFETY: NS_GET_NSTYPE takes no argument.
    let kind = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    result(kind.into()).map(|kind| u32::try_from(kind).unwrap_or_default())
}

/// The user id, in the caller's numbering, that made a user namespace. Since Linux 4.11.
///
/// # Errors
/// EINVAL if it is not a user namespace.
pub fn owner_uid<Fd: AsFd>(namespace: Fd) -> Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: NS_GET_OWNER_UID writes one uid_t through the pointer.
    let done = unsafe {
        libc::ioctl(
            namespace.as_fd().as_raw_fd(),
            NS_GET_OWNER_UID,
            &raw mut uid,
        )
    };
    result(done.into()).map(|_| uid)
}

fn related<Fd: AsFd>(namespace: Fd, request: libc::c_ulong) -> Result<OwnedFd> {
    // SAFETY: these requests take no argument and return a new descriptor, close-on-exec.
    let fd = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), request) };
    result(fd.into())?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
