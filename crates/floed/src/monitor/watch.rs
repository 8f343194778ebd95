//! A descriptor and what epoll is to report of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};

/// A descriptor that is in the epoll set exactly while it has an interest.
///
/// It is taken out, not given an empty interest, because epoll reports a hang-up always: a pipe
/// that nobody may read yet would keep the loop spinning.
#[derive(Debug)]
pub(super) struct Watch {
    fd: OwnedFd,
    token: u64,
    interest: EventFlags,
}

impl Watch {
    pub(super) fn new(fd: OwnedFd, token: u64) -> Self {
        Self {
            fd,
            token,
            interest: EventFlags::empty(),
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn set(&mut self, epoll: &OwnedFd, interest: EventFlags) -> sys::Result<()> {
        if interest == self.interest {
            return Ok(());
        }
        let data = EventData::new_u64(self.token);
        if self.interest.is_empty() {
            epoll::add(epoll, &self.fd, data, interest)?;
        } else if interest.is_empty() {
            epoll::delete(epoll, &self.fd)?;
        } else {
            epoll::modify(epoll, &self.fd, data, interest)?;
        }
        self.interest = interest;
        Ok(())
    }
}
