//! Questions to `/proc/PID/pagemap`.

use std::os::fd::AsRawFd;

use crate::result;

/// `_IOWR('f', 16, struct pm_scan_arg)`: the argument has 96 bytes.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// Whether the kernel can scan and reset page states in one call (PAGEMAP_SCAN, since Linux 6.7).
#[must_use]
pub fn has_scan() -> bool {
    let Ok(pagemap) = std::fs::File::open("/proc/self/pagemap") else {
        return false;
    };
    // An argument of size 0 is refused with EINVAL by a kernel that knows the request, and the
    // request itself with ENOTTY by one that does not.
    let mut argument = [0_u64; 12];
    // SAFETY: the argument has the size that the request's number tells and outlives the call.
    let answer = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, argument.as_mut_ptr()) };
    result(answer.into()) != Err(crate::Errno::NOTTY)
}
