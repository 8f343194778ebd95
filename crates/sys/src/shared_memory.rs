//! Anonymous shared memory that can be handed on as a file descriptor.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::{Errno, Result};

/// Shared memory of `size` bytes that looks as if made by `mmap(MAP_SHARED | MAP_ANONYMOUS)`.
///
/// It is made just so, and opened again through `/proc/self/map_files`.
///
/// # Errors
/// EPERM: no CAP_CHECKPOINT_RESTORE (since Linux 5.9). ENOMEM: too large.
pub fn create(size: u64) -> Result<OwnedFd> {
    let length = size as usize;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice, unmapped below, never touched.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOMEM));
    }
    let start = address as usize;
    let end = start + length.next_multiple_of(4096);
    let path = format!("/proc/self/map_files/{start:x}-{end:x}");
    let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    // SAFETY: the mapping made above; nothing points into it.
    unsafe { libc::munmap(address, length) };
    fd
}
