//! Plain processes, dumped and restored on this machine. Each test owns its process and directory.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and skip aloud"
)]

mod images;
mod objects;
mod process;
mod program;
mod refusals;
mod seccomp;
