//! Who is connected to the monitor: `floe run`, `attach`, `wait`, `stop`.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use monitor::wire::Reply;
use rustix::event::epoll::EventFlags;
use rustix::net::{SendFlags, send};

use super::watch::Watch;

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: Watch,
    /// Whether it wants the container's output.
    pub(super) attached: bool,
    /// Messages that its socket had no room for.
    unsent: VecDeque<Vec<u8>>,
    /// Input that the container has not taken yet; no more is read from the client meanwhile.
    pub(super) unwritten: Vec<u8>,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, token: u64) -> Self {
        Self {
            socket: Watch::new(socket, token),
            attached: false,
            unsent: VecDeque::new(),
            unwritten: Vec::new(),
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends a message now or queues it. Whether the client is still there.
    pub(super) fn tell(&mut self, reply: &Reply<'_>) -> bool {
        self.unsent.push_back(reply.encode());
        self.flush()
    }

    /// Sends what is queued, as far as there is room. Whether the client is still there.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(message) = self.unsent.front() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(self.socket.fd(), message, flags) {
                Ok(_) => drop(self.unsent.pop_front()),
                Err(sys::Errno::AGAIN | sys::Errno::NOBUFS) => return true,
                Err(sys::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// What to wait for on its socket.
    pub(super) fn interest(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        if self.unwritten.is_empty() {
            flags |= EventFlags::IN;
        }
        if self.is_behind() {
            flags |= EventFlags::OUT;
        }
        flags
    }
}
