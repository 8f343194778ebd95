//! rtnetlink(7): lists of links, addresses, routes and rules, and requests to make them.

use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::{Errno, Result};

/// Bytes of `struct nlmsghdr`.
pub const HEADER: usize = 16;
pub const RTM_NEWLINK: u16 = 16;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_SETLINK: u16 = 19;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_GETADDR: u16 = 22;
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_GETROUTE: u16 = 26;
pub const RTM_NEWRULE: u16 = 32;
pub const RTM_DELRULE: u16 = 33;
pub const RTM_GETRULE: u16 = 34;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// Replace what is there, or create it.
pub const REPLACE_OR_CREATE: u16 = 0x500;
/// Create it; it must not be there.
pub const CREATE: u16 = 0x600;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The name of the device with this number in the caller's network namespace.
///
/// # Errors
/// ENODEV: there is none.
pub fn name_of(index: u32) -> Result<String> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    rustix::net::netdevice::index_to_name(&socket, index)
}

/// A socket to the network namespace in which it was made.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// In the caller's network namespace.
    ///
    /// # Errors
    /// EMFILE: too many open files.
    pub fn open() -> Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        // NETLINK_ROUTE is protocol 0.
        socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).map(Self)
    }

    /// All messages that answer request `kind`, each whole, with its header.
    ///
    /// # Errors
    /// EOPNOTSUPP: the kernel has no such list.
    pub fn list(&self, kind: u16, body: &[u8]) -> Result<Vec<Vec<u8>>> {
        let request = message(kind, NLM_F_REQUEST | NLM_F_DUMP, body);
        send(&self.0, &request, SendFlags::empty())?;
        let mut found = Vec::new();
        let mut reply = vec![0; 256 << 10];
        loop {
            let (length, _) = recv(&self.0, &mut reply[..], RecvFlags::empty())?;
            let mut rest = &reply[..length];
            while let Some((kind, whole, after)) = split(rest) {
                match kind {
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => return acknowledged(whole).map(|()| found),
                    _ => found.push(whole.to_vec()),
                }
                rest = after;
            }
        }
    }

    /// Makes one request and waits for its acknowledgement. `flags`: besides those of a request.
    ///
    /// # Errors
    /// EEXIST, ENODEV and others, as the kernel answers.
    pub fn request(&self, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
        let request = message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body);
        send(&self.0, &request, SendFlags::empty())?;
        let mut reply = vec![0; 16 << 10];
        let (length, _) = recv(&self.0, &mut reply[..], RecvFlags::empty())?;
        acknowledged(&reply[..length])
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend_from_slice(body);
    message
}

/// The first message's type, all of it, and what follows.
#[must_use]
pub fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let whole = bytes.get(..length).filter(|whole| whole.len() >= HEADER)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, whole, after))
}

fn acknowledged(reply: &[u8]) -> Result<()> {
    let kind = reply.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let code = reply.get(HEADER..HEADER + 4);
    let code = code.map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(Errno::from_raw_os_error(-code)),
        _ => Err(Errno::PROTO),
    }
}

/// The attributes in the tail of a message: type (without flags) and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE, value))
    })
}

/// Appends an attribute.
pub fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((value.len() + 4) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_the_round_trip() {
        let mut body = Vec::new();
        push_attribute(&mut body, 3, b"lo\0");
        push_attribute(&mut body, 0x8012, &[1, 2, 3, 4]);
        let found: Vec<_> = attributes(&body).collect();
        assert_eq!(found, [(3, &b"lo\0"[..]), (0x12, &[1, 2, 3, 4])]);
        for cut in 0..body.len() {
            assert!(attributes(&body[..cut]).count() < 2);
        }
    }

    #[test]
    fn messages_are_split_and_cut_ones_are_not() {
        let mut bytes = message(16, 0, &[1, 2, 3]);
        bytes.resize(20, 0);
        bytes.extend(message(20, 0, &[]));
        let (kind, whole, after) = split(&bytes).unwrap();
        assert_eq!((kind, whole.len(), after.len()), (16, 19, 16));
        assert_eq!(split(&after[..15]), None);
        assert_eq!(split(&[4, 0, 0, 0, 1, 0, 0, 0]), None);
    }
}
