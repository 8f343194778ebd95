//! Messages over Unix sockets, with descriptors (SCM_RIGHTS).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::Result;

/// The most descriptors that one received message may carry.
const MAX_FDS: usize = 8;

/// A connected pair that keeps message borders (`SOCK_SEQPACKET`), close-on-exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Sends one message; a peer that is gone is an error (`EPIPE`), not a signal.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> Result<()> {
    send_with_fds(socket, bytes, &[])
}

/// Sends one message with descriptors.
pub fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(crate::Errno::TOOBIG);
    }
    let parts = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL))
        .map(drop)
}

/// Receives one message of at most `buffer.len()` bytes and the descriptors it carries.
///
/// Zero bytes mean that the other end is closed.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(
            &socket,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_border_and_its_descriptor() {
        let (left, right) = pair().unwrap();
        send(&left, b"one").unwrap();
        send_with_fds(&left, b"two", &[left.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(receive(&right, &mut buffer).unwrap().0, 3);
        let (length, fds) = receive(&right, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], fds.len()), (&b"two"[..], 1));
        drop((left, fds));
        assert_eq!(receive(&right, &mut buffer).unwrap().0, 0);
    }
}
