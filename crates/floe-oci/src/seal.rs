//! Entering a container as a program that nobody can write.
//!
//! Problem: a process that enters a container shows its executable there as `/proc/PID/exe`. A
//! hostile container executes or opens that link and, once the process has gone, writes the host's
//! binary through it (CVE-2019-5736).
//! Solution: before anything is entered, the program moves to a file of the same content in a
//! read-only mount of its own that is attached nowhere (an overlay above its directory), or where
//! that cannot be, to a sealed copy in memory. Neither can be written, whatever rights the container
//! has. It moves by mapping itself anew, which takes a seventh of a start less than to execute itself
//! again; where that is not allowed (rootless), it does the latter.
//! Rejected: a bind mount made read-only, for the inode behind it is the host's and another mount
//! of it can be found; a check on each start whether the binary changed, for that is too late.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Context, bail};

/// The commands that enter a container. `restore` does not: it has criu do that.
const ENTERING: &[&str] = &["create", "run", "exec"];

/// Seals the running program, if this command line may enter a container.
///
/// It looks for the command's name anywhere: a container called `run` costs a little time, no more.
pub(crate) fn before_entering(arguments: &[OsString]) -> anyhow::Result<()> {
    let enters = arguments
        .iter()
        .skip(1)
        .any(|word| ENTERING.iter().any(|name| word == name));
    if !enters || sys::sealed::is_sealed().context("look at the own program")? {
        return Ok(());
    }
    let program = sys::sealed::open().context("seal the own program")?;
    if sys::own_program::move_to(program.as_fd()).is_ok() {
        return Ok(());
    }
    execute(program.as_fd(), arguments)
}

fn execute(program: BorrowedFd<'_>, arguments: &[OsString]) -> anyhow::Result<()> {
    let strings = |list: Vec<Vec<u8>>| list.into_iter().map(CString::new).collect::<Result<_, _>>();
    let arguments: Vec<CString> = strings(
        arguments
            .iter()
            .map(|word| word.as_bytes().to_vec())
            .collect(),
    )?;
    let line = |(name, value): (OsString, OsString)| {
        [name.into_vec(), b"=".to_vec(), value.into_vec()].concat()
    };
    let environment: Vec<CString> = strings(std::env::vars_os().map(line).collect())?;
    let errno = sys::exec::execveat(program, c"", &arguments, &environment);
    bail!(
        "execute the sealed program: {}",
        sys::errno::describe(errno)
    )
}
