//! A process that only waits to be traced: the raw material of a restore.
//!
//! clone3(2) with `set_tid` (since Linux 5.5) gives it the wanted pid; it shares the caller's table
//! of file descriptors, so that the caller can open and place files for it with plain calls.

use rustix::process::Pid;

use crate::{Errno, Result};

/// `struct clone_args` of clone3(2), as far as `set_tid` (since Linux 5.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArguments {
    /// `CLONE_*`.
    pub flags: u64,
    /// Where to store a pidfd.
    pub pidfd: u64,
    /// Where the child finds its own task id cleared at exit.
    pub child_tid: u64,
    /// Where to store the child's task id.
    pub parent_tid: u64,
    /// The signal that the parent gets.
    pub exit_signal: u64,
    /// Lowest byte of the stack; 0: the parent's.
    pub stack: u64,
    /// Its size in bytes.
    pub stack_size: u64,
    /// Thread-local storage.
    pub tls: u64,
    /// Address of the wanted task ids, innermost namespace first.
    pub set_tid: u64,
    /// How many.
    pub set_tid_size: u64,
}

impl CloneArguments {
    /// As the kernel reads it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let fields = [
            self.flags,
            self.pidfd,
            self.child_tid,
            self.parent_tid,
            self.exit_signal,
            self.stack,
            self.stack_size,
            self.tls,
            self.set_tid,
            self.set_tid_size,
        ];
        fields
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .collect()
    }
}

/// Starts a child with this pid that sleeps until it is killed.
///
/// `flags` are added to clone3's (`CLONE_FILES`, namespaces).
///
/// # Errors
/// EEXIST: the pid is taken. EPERM: no CAP_CHECKPOINT_RESTORE. EINVAL: the pid exceeds `pid_max`.
pub fn spawn(pid: Pid, flags: u64) -> Result<Pid> {
    let wanted = [pid.as_raw_nonzero().get()];
    let exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 {
        libc::SIGCHLD as u64
    } else {
        0
    };
    clone(CloneArguments {
        flags,
        exit_signal,
        set_tid: wanted.as_ptr() as u64,
        set_tid_size: 1,
        ..CloneArguments::default()
    })
}

/// Starts a child with any pid that sleeps until it is killed.
///
/// # Errors
/// EAGAIN: too many processes.
pub fn spawn_anywhere() -> Result<Pid> {
    clone(CloneArguments {
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    })
}

fn clone(arguments: CloneArguments) -> Result<Pid> {
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of the caller's memory, and
    // below it makes only system calls. `arguments` and what it points at outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<CloneArguments>(),
        )
    };
    if result == 0 {
        sleep_forever();
    }
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
    }
    Pid::from_raw(result as i32).ok_or(Errno::INVAL)
}

fn sleep_forever() -> ! {
    loop {
        // SAFETY: integers only.
        unsafe { libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0) };
    }
}
