//! Small facts about other tasks that have a system call of their own.

use rustix::process::Pid;

use crate::{Errno, Result};

fn check(result: i64) -> Result<()> {
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
    }
    Ok(())
}

/// Address and length of a thread's list of robust futexes: get_robust_list(2).
///
/// # Errors
/// EPERM: no right to trace it.
pub fn robust_list(thread: Pid) -> Result<(u64, u32)> {
    let (mut head, mut length) = (0_u64, 0_u64);
    // SAFETY: both out-parameters outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_get_robust_list,
            thread.as_raw_nonzero().get(),
            &raw mut head,
            &raw mut length,
        )
    })?;
    Ok((head, length as u32))
}

/// A thread's scheduling policy, with SCHED_RESET_ON_FORK: sched_getscheduler(2).
///
/// # Errors
/// ESRCH: gone.
pub fn scheduling_policy(thread: Pid) -> Result<u32> {
    // SAFETY: integers only. (The C library's own function does not do what its name says.)
    let policy =
        unsafe { libc::syscall(libc::SYS_sched_getscheduler, thread.as_raw_nonzero().get()) };
    check(policy)?;
    Ok(policy as u32)
}
