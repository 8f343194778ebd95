//! Files that deliver events, as far as rustix lacks them: signalfd(2), the ticks of a timerfd.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::{Errno, Result};

// _IOW('T', 0, __u64), since Linux 3.17 with CONFIG_CHECKPOINT_RESTORE.
const TFD_IOC_SET_TICKS: libc::c_ulong = 0x4008_5400;

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// A descriptor that delivers the signals of `mask` (bit 0: signal 1).
///
/// # Errors
/// EMFILE: no more descriptors.
pub fn signalfd(mask: u64, nonblocking: bool) -> Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | if nonblocking { libc::SFD_NONBLOCK } else { 0 };
    // SAFETY: `mask` outlives the call and is as long as the kernel is told.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, flags) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sets how often a timerfd has expired.
///
/// # Errors
/// ENOTTY: the kernel lacks checkpoint support. EINVAL: zero ticks.
pub fn set_timerfd_ticks(timerfd: impl AsFd, ticks: u64) -> Result<()> {
    // SAFETY: `ticks` outlives the call.
    let result = unsafe {
        libc::ioctl(
            timerfd.as_fd().as_raw_fd(),
            TFD_IOC_SET_TICKS,
            &raw const ticks,
        )
    };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}
