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

/// The caller's session keyring (`KEY_SPEC_SESSION_KEYRING`).
const SESSION: i32 = -3;

/// Adds a key of type `user` to the caller's session keyring (add_key(2)); its serial number.
pub fn add(name: &CStr, value: &[u8]) -> Result<i32> {
    // SAFETY: all three outlive the call, and the value's length is passed.
    let serial = result(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            name.as_ptr(),
            value.as_ptr(),
            value.len(),
            SESSION,
        )
    })?;
    Ok(i32::try_from(serial).unwrap_or_default())
}

/// Finds a key of type `user` in the caller's session keyring (`KEYCTL_SEARCH`).
///
/// # Errors
/// `ENOKEY`: it is not there.
pub fn search(name: &CStr) -> Result<i32> {
    // SAFETY: both texts outlive the call.
    let serial = result(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_SEARCH,
            SESSION,
            c"user".as_ptr(),
            name.as_ptr(),
            0,
        )
    })?;
    Ok(i32::try_from(serial).unwrap_or_default())
}

/// Reads the value of a key (`KEYCTL_READ`), at most `buffer.len()` bytes; how long it is.
///
/// # Errors
/// `EACCES`: the caller neither possesses it nor may read it as its owner.
pub fn read(serial: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the buffer outlives the call and its length is passed.
    result(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_READ,
            serial,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    })
}
