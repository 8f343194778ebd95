//! What `floe` and `floed monitor` agree on: the files of a container's runtime directory, the
//! messages on its socket, the format of its log, and when it is started again.
//!
//! A crate of its own because two executables share it. Formats are plain lines, so that the
//! monitor, of which one exists per running container, needs no parser of size.

pub mod account;
pub mod clock;
pub mod events;
pub mod files;
pub mod log;
pub mod restart;
pub mod text;
pub mod wire;
