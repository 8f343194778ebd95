//! What criu and its callers say to each other: `criu swrk FD`.
//!
//! One protobuf message per packet of a `SOCK_SEQPACKET` pair. The caller sends a [`Request`]; criu
//! answers with [`Response`]s of the type NOTIFY, each of which the caller confirms, and ends with
//! one of the request's type.

mod message;

use std::os::fd::{BorrowedFd, OwnedFd};

pub use message::{
    CgroupRoot, Dumped, ExternalMount, Features, InheritFd, JoinNamespace, Notify, Options,
    PageServer, Request, RequestType, Response, Restored, UnixSocket, Version, VethPair,
};
use prost::Message;
use sys::{Errno, Result};

/// A longer message is refused.
const MAX_MESSAGE: usize = 1 << 20;

/// Stages of a dump or restore at which criu asks its caller.
pub mod script {
    /// Before anything of the tree is touched.
    pub const PRE_DUMP: &str = "pre-dump";
    /// All images are written; nothing of the tree runs.
    pub const POST_DUMP: &str = "post-dump";
    /// The tree's connections are to be cut off.
    pub const NETWORK_LOCK: &str = "network-lock";
    /// They are to be let go on.
    pub const NETWORK_UNLOCK: &str = "network-unlock";
    /// The root stands in its new namespaces.
    pub const SETUP_NAMESPACES: &str = "setup-namespaces";
    /// The namespaces are as they will be.
    pub const POST_SETUP_NAMESPACES: &str = "post-setup-namespaces";
    /// Before anything of the tree is made.
    pub const PRE_RESTORE: &str = "pre-restore";
    /// The tree is whole; nothing of it runs.
    pub const POST_RESTORE: &str = "post-restore";
    /// The tree runs.
    pub const POST_RESUME: &str = "post-resume";
    /// The master of a terminal whose other end was outside; it comes with the message.
    pub const ORPHAN_PTS_MASTER: &str = "orphan-pts-master";
    /// The page server listens.
    pub const STATUS_READY: &str = "status-ready";
}

/// One end of the line.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Connection {
    /// On a connected `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends one message.
    pub fn send<M: Message>(&self, message: &M) -> Result<()> {
        self.send_with_fds(message, &[])
    }

    /// Sends one message with descriptors.
    pub fn send_with_fds<M: Message>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<()> {
        sys::message::send_with_fds(&self.0, &message.encode_to_vec(), fds)
    }

    /// The next message and its descriptors; `None` if the other end is closed.
    ///
    /// # Errors
    /// `EPROTO`: it is no message of this type.
    pub fn receive<M: Message + Default>(&self) -> Result<Option<(M, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let (length, fds) = sys::message::receive(&self.0, &mut buffer)?;
        if length == 0 {
            return Ok(None);
        }
        let message = M::decode(&buffer[..length]).map_err(|_| Errno::PROTO)?;
        Ok(Some((message, fds)))
    }

    /// The socket.
    #[must_use]
    pub fn into_inner(self) -> OwnedFd {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        let (ours, theirs) = sys::message::pair().unwrap();
        let (ours, theirs) = (Connection::new(ours), Connection::new(theirs));
        let request = Request {
            r#type: RequestType::Dump as i32,
            opts: Some(Options {
                images_dir_fd: 7,
                pid: Some(42),
                root: Some("/x".to_owned()),
                external: vec!["mnt[/a]:a".to_owned()],
                ..Options::default()
            }),
            ..Request::default()
        };
        ours.send(&request).unwrap();
        let (received, fds) = theirs.receive::<Request>().unwrap().unwrap();
        assert_eq!((received, fds.len()), (request, 0));
        drop(ours);
        assert_eq!(
            theirs.receive::<Request>().unwrap().map(|(one, _)| one),
            None
        );
    }

    #[test]
    fn rubbish_is_an_error() {
        let (ours, theirs) = sys::message::pair().unwrap();
        sys::message::send(&ours, &[0xff; 20]).unwrap();
        let received = Connection::new(theirs).receive::<Request>();
        assert_eq!(received.map(|_| ()).unwrap_err(), Errno::PROTO);
    }

    /// Field numbers, from what pycriu 4.2.1 sends for a request of VERSION and of CHECK.
    #[test]
    fn the_bytes_of_the_wire() {
        let request = Request {
            r#type: RequestType::Version as i32,
            keep_open: Some(true),
            ..Request::default()
        };
        assert_eq!(request.encode_to_vec(), [0x08, 10, 0x20, 1]);
    }
}
