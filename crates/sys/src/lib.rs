//! The Linux kernel, safely.
//!
//! One module per kernel subject, one wrapper per system call that rustix lacks. Mechanism only:
//! nothing here knows what a container is, logs, or decides. The only crate with `unsafe` code.
//!
//! Every wrapper returns [`Errno`]; callers add the operation and the object. In a wrapper around
//! `libc::syscall` the SAFETY argument is uniform: every pointer comes from a reference that
//! outlives the call, and every length is that reference's own.

pub mod errno;

pub use rustix::io::{Errno, Result};
