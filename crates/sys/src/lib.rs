//! The Linux kernel, safely.
//!
//! One module per kernel subject, one wrapper per system call that rustix lacks. Mechanism only:
//! nothing here knows what a container is, logs, or decides. The only crate with `unsafe` code.
//!
//! Every wrapper returns [`Errno`]; callers add the operation and the object. In a wrapper around
//! `libc::syscall` the SAFETY argument is uniform: every pointer comes from a reference that
//! outlives the call, and every length is that reference's own.

pub mod bpf;
pub mod bpf_map;
pub mod child;
pub mod clone;
pub mod cpu;
pub mod credentials;
pub mod errno;
pub mod event_files;
pub mod exec;
pub mod fanotify;
pub mod fd;
pub mod file_handle;
pub mod file_owner;
pub mod in_root;
pub mod inherited_fd;
pub mod inner_process;
pub mod kcmp;
pub mod keyring;
pub mod message;
pub mod mount;
pub mod mount_group;
pub mod mountinfo;
pub mod namespace;
pub mod netlink;
pub mod nsfs;
pub mod own_program;
pub mod pagemap;
pub mod process;
pub mod process_memory;
pub mod procfs;
pub mod ptrace;
pub mod resident;
pub mod rtnetlink;
pub mod scheduling;
pub mod sealed;
pub mod seccomp;
pub mod shared_memory;
pub mod signal;
pub mod socket;
pub mod stub_process;
pub mod syscall_stops;
pub mod sysv_ipc;
pub mod sysv_shm;
pub mod tape;
pub mod task;
pub mod terminal;
pub mod terminal_input;
pub mod terminal_state;

pub use rustix::io::{Errno, Result};

/// Turns a raw system call's return value into a result.
pub(crate) fn result(value: libc::c_long) -> Result<usize> {
    usize::try_from(value)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
