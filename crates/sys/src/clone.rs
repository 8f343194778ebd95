//! Making processes: clone3(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

use crate::{Result, result};

/// What a new process shares with us and where it is put; the fields of `struct clone_args`.
#[derive(Debug, Default, Clone, Copy)]
pub struct Clone<'a> {
    /// `CLONE_NEW*` and `CLONE_PARENT` bits. Bits that share memory, threads or file tables are
    /// refused, for the child runs on a copy of our stack.
    pub flags: u64,
    /// The pids to take, from the innermost pid namespace outwards (Linux 5.5).
    pub set_tid: &'a [i32],
    /// The v2 group to be born in (Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which side of a clone we are on.
#[derive(Debug)]
pub enum Side {
    /// The new process.
    Child,
    /// The caller, with the child's number in the caller's pid namespace and its pidfd.
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// `struct clone_args` of linux/sched.h, version 2 (88 bytes).
#[repr(C, align(8))]
#[derive(Default)]
struct Arguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `CLONE_PARENT`: the new process is the caller's sibling.
pub const PARENT: u64 = libc::CLONE_PARENT as u64;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SHARING: u64 = (libc::CLONE_VM
    | libc::CLONE_THREAD
    | libc::CLONE_FILES
    | libc::CLONE_VFORK
    | libc::CLONE_SIGHAND
    | libc::CLONE_SETTLS) as u64;

/// Makes a process that goes on from here on a copy of our memory (clone3(2), since Linux 5.3).
///
/// The caller must be single-threaded, as all of floe's programs are until exec: then the copy of
/// the heap is consistent and the child may allocate.
///
/// # Errors
/// `EPERM`: a namespace or pid was asked for without the capability. `EEXIST`: a pid of `set_tid`
/// is taken. `EINVAL`: a sharing flag, or a flag that the kernel does not know. `EBUSY`, `EOPNOTSUPP`:
/// the group cannot hold processes.
pub fn clone(options: &Clone<'_>) -> Result<Side> {
    if options.flags & SHARING != 0 {
        return Err(crate::Errno::INVAL);
    }
    let mut pidfd: libc::c_int = -1;
    let parent = options.flags & PARENT != 0;
    let mut arguments = Arguments {
        flags: options.flags | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        // With CLONE_PARENT the kernel takes our own exit signal and refuses another.
        exit_signal: if parent { 0 } else { libc::SIGCHLD as u64 },
        set_tid: if options.set_tid.is_empty() {
            0
        } else {
            options.set_tid.as_ptr() as u64
        },
        set_tid_size: options.set_tid.len() as u64,
        ..Arguments::default()
    };
    if let Some(group) = options.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: the arguments outlive the call; no memory is shared with the child (checked above), so
    // it has its own copy of this stack frame.
    let pid = result(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<Arguments>())
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
