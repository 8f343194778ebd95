//! Pseudo-terminals.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::termios::Winsize;

use crate::{Result, result};

/// Unlocks a freshly opened multiplexer, which is the master of a new pseudo-terminal, and gives its
/// slave, opened by ioctl and not by a path (TIOCGPTPEER, since Linux 4.13).
pub fn slave_of(master: impl AsFd) -> Result<OwnedFd> {
    rustix::pty::unlockpt(&master)?;
    let flags = rustix::pty::OpenptFlags::RDWR
        | rustix::pty::OpenptFlags::NOCTTY
        | rustix::pty::OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(&master, flags)
}

/// Opens a new terminal's master in the devpts instance of the caller's `/dev`.
pub fn open_master() -> Result<OwnedFd> {
    rustix::fs::open(
        "/dev/ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Makes a terminal the controlling one of the calling session leader (TIOCSCTTY).
pub fn make_controlling(terminal: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal)
}

/// Sets a terminal's size in characters.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size)
}

/// The path of a terminal's slave, `/dev/pts/N` (TIOCGPTN).
pub fn name(master: impl AsFd) -> Result<String> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the number outlives the call.
    let returned =
        unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    result(returned.into())?;
    Ok(format!("/dev/pts/{number}"))
}
