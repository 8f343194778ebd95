//! Programs started with `std::process::Command` by a program that blocks signals.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the program start with no signal blocked or ignored. `Command` alone hands the caller's mask on, and
/// a program that finds SIGTERM blocked cannot be asked to end.
pub fn unblock_signals(command: &mut Command) -> &mut Command {
    // SAFETY: the closure makes async-signal-safe calls only (signal, sigprocmask).
    unsafe { command.pre_exec(|| crate::signal::reset().map_err(Into::into)) }
}

/// Has the program be looked up and executed in another mount namespace, at its root.
pub fn in_mount_namespace(command: &mut Command, namespace: &'static OwnedFd) {
    let enter = move || {
        let enter = crate::namespace::join(namespace.as_fd(), crate::namespace::Kind::Mount);
        enter.map_err(Into::into)
    };
    // SAFETY: the closure makes one system call (setns).
    unsafe { command.pre_exec(enter) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_blocked_signal_is_not_blocked_in_the_program() {
        let _held = crate::signal::block_to_fd(Some(&[libc::SIGTERM])).unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "kill -TERM $$; exit 0"]);
        let status = super::unblock_signals(&mut command).status().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGTERM)
        );
    }
}
