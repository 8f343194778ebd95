//! Replacing the program: execveat(2).

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Errno, result};

/// Executes `path` relative to `directory`, or the file behind `directory` itself where `path` is
/// empty (execveat(2), since Linux 3.19). Returns only on failure.
#[must_use]
pub fn execveat(
    directory: BorrowedFd<'_>,
    path: &CStr,
    arguments: &[CString],
    environment: &[CString],
) -> Errno {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    let flags = if path.is_empty() {
        libc::AT_EMPTY_PATH
    } else {
        0
    };
    // SAFETY: both arrays end with NULL and their strings outlive the call.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            directory.as_raw_fd(),
            path.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            flags,
        )
    };
    result(returned).err().unwrap_or(Errno::IO)
}

/// Executes the program at an absolute path (execve(2)). Returns only on failure.
#[must_use]
pub fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    execveat(rustix::fs::CWD, path, arguments, environment)
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}
