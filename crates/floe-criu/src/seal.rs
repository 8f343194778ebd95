//! Entering a container as a program that nobody can write.
//!
//! A process that enters a container shows its executable there as `/proc/PID/exe`, through which a
//! hostile container could write the host's binary (CVE-2019-5736). So we run from a read-only copy,
//! as `floe-oci` does (`crates/floe-oci/src/seal.rs` has the whole story).

use std::os::fd::AsFd;

use anyhow::{Context, Result};

/// Moves the running program to a file that cannot be written.
///
/// # Errors
/// It cannot be moved: then nothing may be entered.
pub(crate) fn own_program() -> Result<()> {
    if sys::sealed::is_sealed().context("look at the own program")? {
        return Ok(());
    }
    let program = sys::sealed::open().context("seal the own program")?;
    sys::own_program::move_to(program.as_fd()).context("move to the sealed program")
}
