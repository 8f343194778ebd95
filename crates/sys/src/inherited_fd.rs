//! Descriptors that a parent process left open for us, by the numbers that a protocol names.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use crate::{Errno, Result};

/// A copy of the descriptor with this number, close-on-exec. The number itself stays open.
///
/// # Errors
/// `EBADF` where no such descriptor is open.
pub fn duplicate(number: RawFd) -> Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the borrow ends with this call, in which nothing else runs; a number that is not open
    // makes fcntl fail and is used for nothing else.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn only_open_numbers_are_copied() {
        let copy = duplicate(0).unwrap();
        assert!(copy.as_raw_fd() >= 3);
        assert_eq!(duplicate(-1).unwrap_err(), Errno::BADF);
        assert_eq!(duplicate(1 << 20).unwrap_err(), Errno::BADF);
    }
}
