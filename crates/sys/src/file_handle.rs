//! Files by handle: open_by_handle_at(2).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::{Errno, Result};

const MAX_HANDLE: usize = 128;

/// Opens (O_PATH) the file that `handle` names on the file system mounted at `mount`.
///
/// # Errors
/// ESTALE: no such file there. EPERM: no CAP_DAC_READ_SEARCH. EINVAL: the handle is too long.
pub fn open(mount: &str, kind: u32, handle: &[u8]) -> Result<OwnedFd> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        handle: [u8; MAX_HANDLE],
    }
    let mut request = Handle {
        bytes: handle.len() as u32,
        kind: kind as i32,
        handle: [0; MAX_HANDLE],
    };
    let Some(place) = request.handle.get_mut(..handle.len()) else {
        return Err(Errno::INVAL);
    };
    place.copy_from_slice(handle);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mount = match rustix::fs::open(mount, flags, Mode::empty()) {
        Err(Errno::NOTDIR) => {
            rustix::fs::open(mount, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        }
        other => other,
    }?;
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `request` has the layout of `struct file_handle` with room for its bytes.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut request,
            flags,
        )
    };
    if fd < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
