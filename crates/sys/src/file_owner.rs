//! Who gets the signals of an open file: F_GETOWN_EX, F_GETOWNER_UIDS, F_GETSIG of fcntl(2).

use std::os::fd::{AsFd, AsRawFd};

use crate::{Errno, Result};

const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;
const F_SETOWN_EX: libc::c_int = 15;
const F_GETOWN_EX: libc::c_int = 16;
const F_GETOWNER_UIDS: libc::c_int = 17;

/// The owner of an open file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// `F_OWNER_TID` 0, `F_OWNER_PID` 1, `F_OWNER_PGRP` 2.
    pub kind: u32,
    /// The task or group; 0: nobody.
    pub id: u32,
    /// The signal sent; 0: SIGIO.
    pub signal: u32,
    /// Real user of whoever set it.
    pub uid: u32,
    /// Effective user of whoever set it.
    pub euid: u32,
}

#[repr(C)]
#[derive(Default)]
struct OwnerEx {
    kind: i32,
    id: i32,
}

fn check(result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    Ok(result)
}

/// Reads the owner.
///
/// # Errors
/// EBADF: the file was opened with O_PATH.
pub fn get(file: impl AsFd) -> Result<Owner> {
    let fd = file.as_fd().as_raw_fd();
    let mut owner = OwnerEx::default();
    // SAFETY: `owner` has the layout of `struct f_owner_ex` and outlives the call.
    check(unsafe { libc::fcntl(fd, F_GETOWN_EX, &raw mut owner) })?;
    let mut users = [0_u32; 2];
    // SAFETY: the kernel writes two ids; `users` outlives the call.
    check(unsafe { libc::fcntl(fd, F_GETOWNER_UIDS, users.as_mut_ptr()) })?;
    // SAFETY: no pointers.
    let signal = check(unsafe { libc::fcntl(fd, F_GETSIG) })?;
    let [uid, euid] = users;
    Ok(Owner {
        kind: owner.kind as u32,
        id: owner.id as u32,
        signal: signal as u32,
        uid,
        euid,
    })
}

/// Sets owner and signal; the user ids become the caller's.
///
/// # Errors
/// ESRCH: no such task. EPERM: not allowed to signal it.
pub fn set(file: impl AsFd, owner: Owner) -> Result<()> {
    let fd = file.as_fd().as_raw_fd();
    let value = OwnerEx {
        kind: owner.kind as i32,
        id: owner.id as i32,
    };
    // SAFETY: `value` has the layout of `struct f_owner_ex` and outlives the call.
    check(unsafe { libc::fcntl(fd, F_SETOWN_EX, &raw const value) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, F_SETSIG, owner.signal) }).map(drop)
}
