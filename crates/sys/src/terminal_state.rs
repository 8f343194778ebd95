//! Everything that a terminal remembers: ioctl_tty(2).
//!
//! SAFETY, once for the module: each request reads or writes exactly the size of the buffer that it
//! is given here.

use std::os::fd::{AsFd, AsRawFd};

use crate::{Errno, Result};

/// Bytes of `struct termios2`: four words of flags, the line discipline, 19 control characters,
/// two speeds.
pub const ATTRIBUTES_SIZE: usize = 44;

const TCGETS2: libc::c_ulong = 0x802c_542a;
const TCSETS2: libc::c_ulong = 0x402c_542b;
const TIOCGPKT: libc::c_ulong = 0x8004_5438;
const TIOCGPTLCK: libc::c_ulong = 0x8004_5439;
const TIOCGEXCL: libc::c_ulong = 0x8004_5440;
const TIOCGPTN: libc::c_ulong = 0x8004_5430;
const TIOCSPTLCK: libc::c_ulong = 0x4004_5431;
const TIOCPKT: libc::c_ulong = 0x5420;
const TIOCEXCL: libc::c_ulong = 0x540c;
const TIOCGWINSZ: libc::c_ulong = 0x5413;
const TIOCSWINSZ: libc::c_ulong = 0x5414;

fn request(terminal: impl AsFd, request: libc::c_ulong, argument: *mut u8) -> Result<()> {
    // SAFETY: module header.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), request, argument) };
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    Ok(())
}

fn get_int(terminal: impl AsFd, name: libc::c_ulong) -> Result<i32> {
    let mut bytes = [0; 4];
    request(terminal, name, bytes.as_mut_ptr())?;
    Ok(i32::from_ne_bytes(bytes))
}

fn set_int(terminal: impl AsFd, name: libc::c_ulong, value: i32) -> Result<()> {
    let mut bytes = value.to_ne_bytes();
    request(terminal, name, bytes.as_mut_ptr())
}

/// Flags, control characters, speeds.
///
/// # Errors
/// EIO: the terminal is hung up. ENOTTY: it is none.
pub fn attributes(terminal: impl AsFd) -> Result<[u8; ATTRIBUTES_SIZE]> {
    let mut bytes = [0; ATTRIBUTES_SIZE];
    request(terminal, TCGETS2, bytes.as_mut_ptr())?;
    Ok(bytes)
}

/// Sets what [`attributes`] reads.
///
/// # Errors
/// As [`attributes`].
pub fn set_attributes(terminal: impl AsFd, attributes: &[u8; ATTRIBUTES_SIZE]) -> Result<()> {
    let mut bytes = *attributes;
    request(terminal, TCSETS2, bytes.as_mut_ptr())
}

/// Rows, columns, width and height in pixels.
///
/// # Errors
/// As [`attributes`].
pub fn window(terminal: impl AsFd) -> Result<[u16; 4]> {
    let mut bytes = [0; 8];
    request(terminal, TIOCGWINSZ, bytes.as_mut_ptr())?;
    Ok([0, 2, 4, 6].map(|at| u16::from_ne_bytes([bytes[at], bytes[at + 1]])))
}

/// Sets what [`window`] reads.
///
/// # Errors
/// As [`attributes`].
pub fn set_window(terminal: impl AsFd, window: [u16; 4]) -> Result<()> {
    let mut bytes = [0; 8];
    for (place, value) in bytes.chunks_exact_mut(2).zip(window) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
    request(terminal, TIOCSWINSZ, bytes.as_mut_ptr())
}

/// The number of a pty, asked at its master.
///
/// # Errors
/// ENOTTY: it is no master.
pub fn pty_number(master: impl AsFd) -> Result<u32> {
    get_int(master, TIOCGPTN).map(|number| number as u32)
}

/// Whether the master is in packet mode (since Linux 3.8).
///
/// # Errors
/// ENOTTY: it is no master.
pub fn packet_mode(master: impl AsFd) -> Result<bool> {
    get_int(master, TIOCGPKT).map(|value| value != 0)
}

/// Sets packet mode.
///
/// # Errors
/// ENOTTY: it is no master.
pub fn set_packet_mode(master: impl AsFd, on: bool) -> Result<()> {
    set_int(master, TIOCPKT, i32::from(on))
}

/// Whether the slave cannot be opened (since Linux 3.8).
///
/// # Errors
/// ENOTTY: it is no master.
pub fn locked(master: impl AsFd) -> Result<bool> {
    get_int(master, TIOCGPTLCK).map(|value| value != 0)
}

/// Forbids or allows to open the slave.
///
/// # Errors
/// ENOTTY: it is no master.
pub fn set_locked(master: impl AsFd, on: bool) -> Result<()> {
    set_int(master, TIOCSPTLCK, i32::from(on))
}

/// Whether the terminal refuses further opens (since Linux 3.8).
///
/// # Errors
/// As [`attributes`].
pub fn exclusive(terminal: impl AsFd) -> Result<bool> {
    get_int(terminal, TIOCGEXCL).map(|value| value != 0)
}

/// Makes the terminal refuse further opens.
///
/// # Errors
/// As [`attributes`].
pub fn set_exclusive(terminal: impl AsFd) -> Result<()> {
    request(terminal, TIOCEXCL, std::ptr::null_mut())
}
