//! Who is at the other end of a Unix socket: SO_PEERCRED and SCM_CREDENTIALS (unix(7)).
//!
//! rustix has both, but its pid is never 0, and 0 is what the kernel says of a process that the
//! reader's pid namespace does not show.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use crate::{Errno, Result, result};

/// A process as the reader's namespaces number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// 0 = not visible.
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// Who connected, or listened, at the other end (`SO_PEERCRED`).
pub fn peer(socket: impl AsFd) -> Result<Credentials> {
    let mut found = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both outlive the call, and the length is that of the structure.
    result(libc::c_long::from(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    }))?;
    Ok(found.into())
}

/// Receives one message of one byte and who sent it; `None` when the other end is closed. The
/// socket must ask for credentials (`SO_PASSCRED`).
///
/// # Errors
/// `EPROTO`: the message carries none.
pub fn receive(socket: impl AsFd) -> Result<Option<Credentials>> {
    let mut byte = [0u8; 1];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: byte.len(),
    };
    let mut space = [0u64; 8]; // aligned, and more than one header and one ucred
    // SAFETY: all zero is an empty header.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = space.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&space) as _;
    // SAFETY: everything that the header points to outlives the call.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, 0) };
    if result(length as libc::c_long)? == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has set the control length to what it wrote.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    // SAFETY: it is null or points to a whole header within the space.
    let Some(found) = (unsafe { first.as_ref() }) else {
        return Err(Errno::PROTO);
    };
    if found.cmsg_level != libc::SOL_SOCKET || found.cmsg_type != libc::SCM_CREDENTIALS {
        return Err(Errno::PROTO);
    }
    // SAFETY: a message of this type carries one ucred right after its header.
    let data = unsafe { libc::CMSG_DATA(first) };
    // SAFETY: as above; the data need not be aligned for the structure.
    let credentials = unsafe { data.cast::<libc::ucred>().read_unaligned() };
    Ok(Some(credentials.into()))
}

impl From<libc::ucred> for Credentials {
    fn from(found: libc::ucred) -> Credentials {
        let libc::ucred { pid, uid, gid } = found;
        Credentials { pid, uid, gid }
    }
}

impl std::fmt::Display for Credentials {
    /// `PID UID GID`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {} {}", self.pid, self.uid, self.gid)
    }
}
