//! Typing into a terminal from a program, which is how a hostile one leaves it: `TIOCSTI`
//! (ioctl_tty(2)).

use std::os::fd::{AsFd, AsRawFd};

use crate::{Result, result};

/// Puts a byte into the terminal's input, as if it had been typed.
///
/// # Errors
/// `EPERM`: it is not the caller's controlling terminal. `EIO`: the kernel allows it to nobody
/// without CAP_SYS_ADMIN (since Linux 6.2, `dev.tty.legacy_tiocsti`).
pub fn push(terminal: impl AsFd, byte: u8) -> Result<()> {
    // SAFETY: the byte outlives the call, which only reads it.
    let returned = unsafe {
        libc::ioctl(
            terminal.as_fd().as_raw_fd(),
            libc::TIOCSTI,
            std::ptr::from_ref(&byte),
        )
    };
    result(returned.into()).map(drop)
}
