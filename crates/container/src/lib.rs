//! From an OCI bundle to a running container.

pub mod capabilities;
pub mod seccomp;
pub mod spec;
