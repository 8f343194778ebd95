//! Anonymous shared memory that can be handed on as a file descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::{Errno, Result};

/// Shared memory of `size` bytes that looks as if made by `mmap(MAP_SHARED | MAP_ANONYMOUS)`.
///
/// It is made just so, and opened again through `/proc/self/map_files`. `huge`: 0, or MAP_HUGETLB
/// with the size of its pages.
///
/// # Errors
/// EPERM: no CAP_CHECKPOINT_RESTORE (since Linux 5.9). ENOMEM: too large.
pub fn create(size: u64, huge: i32) -> Result<OwnedFd> {
    let length = size as usize;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | huge;
    // SAFETY: a new mapping at an address of the kernel's choice, unmapped below, never touched.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(last_errno());
    }
    let start = address as usize;
    let end = start + length.next_multiple_of(4096);
    let path = format!("/proc/self/map_files/{start:x}-{end:x}");
    let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    // SAFETY: the mapping made above; nothing points into it.
    unsafe { libc::munmap(address, length) };
    fd
}

/// Maps the first `size` bytes of `memory`, which must have that many, while `work` fills them.
///
/// hugetlbfs has no write(2); for the others this saves a copy.
///
/// # Errors
/// What mmap(2) or `work` answers. EINVAL: `size` is no multiple of the pages' size.
pub fn fill<E: From<Errno>>(
    memory: impl AsFd,
    size: u64,
    work: impl FnOnce(&mut [u8]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let length = size as usize;
    if length == 0 {
        return work(&mut []);
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let fd = memory.as_fd().as_raw_fd();
    // SAFETY: a new mapping at an address of the kernel's choice, unmapped below.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            protection,
            libc::MAP_SHARED,
            fd,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(last_errno().into());
    }
    // SAFETY: mapped above, as long as that, and named by nobody else in this process; the caller
    // has made the object, which nobody shrinks or maps yet.
    let bytes = unsafe { std::slice::from_raw_parts_mut(address.cast::<u8>(), length) };
    let result = work(bytes);
    // SAFETY: the mapping made above; the slice is not used any more.
    unsafe { libc::munmap(address, length) };
    result
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOMEM)
}
