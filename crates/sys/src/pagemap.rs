//! Which pages of a process hold data: `ioctl(PAGEMAP_SCAN)` on `/proc/pid/pagemap` (since Linux 6.7).

use std::os::fd::{AsFd, AsRawFd};

use crate::{Errno, Result};

/// The page was written while write tracking was on.
pub const IS_WRITTEN: u64 = 1 << 1;
/// The page belongs to a file or to shared memory.
pub const IS_FILE: u64 = 1 << 2;
/// The page is in memory.
pub const IS_PRESENT: u64 = 1 << 3;
/// The page is in swap.
pub const IS_SWAPPED: u64 = 1 << 4;
/// The page is the kernel's page of zeros.
pub const IS_PFN_ZERO: u64 = 1 << 5;
/// The page is a guard page (since Linux 6.14).
pub const IS_GUARD: u64 = 1 << 8;

/// A run of pages with the same categories.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// The `IS_*` bits that were asked for and hold.
    pub categories: u64,
}

/// What [`scan`] looks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query {
    /// Bits to invert before matching.
    pub inverted: u64,
    /// All of these must hold.
    pub all_of: u64,
    /// One of these must hold, unless 0.
    pub any_of: u64,
    /// The bits to report.
    pub report: u64,
}

#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

// _IOWR('f', 16, struct pm_scan_arg)
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// The runs of pages between `start` and `end` that match, in address order.
///
/// # Errors
/// ENOTTY: the kernel is older than 6.7. EINVAL: it does not know a category.
pub fn scan(pagemap: impl AsFd, start: u64, end: u64, query: Query) -> Result<Vec<Region>> {
    let mut all = Vec::new();
    let mut batch = vec![Region::default(); 512];
    let mut from = start;
    while from < end {
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            flags: 0,
            start: from,
            end,
            walk_end: 0,
            vec: batch.as_mut_ptr() as u64,
            vec_len: batch.len() as u64,
            max_pages: 0,
            category_inverted: query.inverted,
            category_mask: query.all_of,
            category_anyof_mask: query.any_of,
            return_mask: query.report,
        };
        // SAFETY: the kernel writes `walk_end` and at most `vec_len` regions into `batch`.
        let got = unsafe {
            libc::ioctl(
                pagemap.as_fd().as_raw_fd(),
                PAGEMAP_SCAN,
                &raw mut arguments,
            )
        };
        if got < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
        }
        all.extend_from_slice(&batch[..got as usize]);
        if arguments.walk_end <= from {
            break;
        }
        from = arguments.walk_end;
    }
    Ok(all)
}

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
    crate::result(answer.into()) != Err(crate::Errno::NOTTY)
}
