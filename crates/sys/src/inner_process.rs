//! A process that goes on from here on a copy of our memory, with the same table of descriptors.
//!
//! A restore does its work inside the namespaces that it makes; what it opens there is seen by the
//! caller and by the processes in the making at once.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::Pid;

use crate::clone::Side;
use crate::stub_process::CloneArguments;
use crate::{Result, result};

/// Makes the process (clone3(2) with `CLONE_FILES`, since Linux 5.3). `set_tid`: its ids, from the
/// innermost pid namespace outwards (since Linux 5.5).
///
/// The caller must be single-threaded: then the copy of the heap is consistent. Closing a descriptor
/// on one side closes it for both, so the child must end with [`crate::process::leave`] and drop no
/// value that the caller owns.
///
/// # Errors
/// `EEXIST`: a pid of `set_tid` is taken. `EINVAL`: one is larger than `pid_max`.
pub fn clone_sharing_files(set_tid: &[i32]) -> Result<Side> {
    let mut pidfd: libc::c_int = -1;
    let arguments = CloneArguments {
        flags: (libc::CLONE_PIDFD | libc::CLONE_FILES) as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        set_tid: if set_tid.is_empty() {
            0
        } else {
            set_tid.as_ptr() as u64
        },
        set_tid_size: set_tid.len() as u64,
        ..CloneArguments::default()
    };
    // SAFETY: the arguments and what they point at outlive the call; memory is not shared with the
    // child, so it has its own copy of this stack frame.
    let pid = result(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<CloneArguments>(),
        )
    })?;
    match Pid::from_raw(i32::try_from(pid).unwrap_or_default()) {
        None => Ok(Side::Child),
        Some(pid) => {
            // SAFETY: on success the kernel stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent { pid, pidfd })
        }
    }
}
