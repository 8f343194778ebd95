//! Kernel keyrings: keyctl(2).

use std::ffi::CStr;

use crate::{Result, result};

/// Joins a new session keyring of this name and returns its serial number (keyctl(2),
/// `KEYCTL_JOIN_SESSION_KEYRING`).
///
/// # Errors
/// `ENOSYS`: the kernel has no keyrings. `EDQUOT`: the user's key quota is used up.
pub fn join_session(name: &CStr) -> Result<i32> {
    // SAFETY: the name outlives the call.
    let serial = result(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            name.as_ptr(),
        )
    })?;
    Ok(i32::try_from(serial).unwrap_or_default())
}

/// Lets the possessor and the owning user see and search a keyring (`KEYCTL_SETPERM`).
///
/// A joined session keyring lacks the user's search right, and without it a process of the same
/// container that was started later cannot find its keys.
pub fn allow_user_search(serial: i32) -> Result<()> {
    const POSSESSOR_ALL: u32 = 0x3f00_0000;
    const USER_VIEW_READ_SEARCH: u32 = 0x000b_0000;
    // SAFETY: no pointers.
    result(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_SETPERM,
            serial,
            POSSESSOR_ALL | USER_VIEW_READ_SEARCH,
        )
    })
    .map(drop)
}
