//! rtnetlink: the few requests that a container's network namespace needs.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::{Errno, Result};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_NEW: u16 = 0x600;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u8 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
const HEADER: usize = 16;

/// Brings the loopback device of the caller's network namespace up.
pub fn loopback_up() -> Result<()> {
    // The loopback device has index 1 in every namespace: it is the first one registered.
    set_link(1, Some(IFF_UP), &[])
}

/// Moves a device of the caller's network namespace to another one, under a name.
pub fn move_device(name: &str, namespace: impl AsFd, new_name: &str) -> Result<()> {
    let fd = namespace.as_fd().as_raw_fd().unsigned_abs().to_ne_bytes();
    let mut terminated = new_name.as_bytes().to_vec();
    terminated.push(0);
    set_link(
        index_of(name)?,
        None,
        &[(IFLA_NET_NS_FD, &fd), (IFLA_IFNAME, &terminated)],
    )
}

/// Brings a device of the caller's network namespace up.
pub fn device_up(name: &str) -> Result<()> {
    set_link(index_of(name)?, Some(IFF_UP), &[])
}

/// The index of a device in the caller's network namespace.
pub fn index_of(name: &str) -> Result<u32> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::netdevice::name_to_index(&socket, name)
}

/// An address of a device, as the kernel describes it (rtnetlink(7), `struct ifaddrmsg`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u8,
    scope: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// The addresses that somebody gave to a device of the caller's network namespace: permanent and
/// of global scope. Those that the kernel made itself it makes again wherever the device is.
pub fn addresses(name: &str) -> Result<Vec<Address>> {
    let index = index_of(name)?;
    let socket = open()?;
    let kind = (RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP);
    send(&socket, &message(kind, &[0; 8])?, SendFlags::empty())?;
    let mut found = Vec::new();
    let mut reply = vec![0u8; 64 * 1024];
    loop {
        let (length, _) = recv(&socket, &mut reply[..], RecvFlags::empty())?;
        let mut rest = &reply[..length];
        while let Some((kind, body, after)) = split_message(rest) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return acknowledged(rest).map(|()| found),
                RTM_NEWADDR => found.extend(parse_address(body, index)),
                _ => {}
            }
            rest = after;
        }
    }
}

/// Gives an address to a device of the caller's network namespace. One that it has is no error.
pub fn add_address(name: &str, address: &Address) -> Result<()> {
    let mut body = vec![
        address.family,
        address.prefix,
        address.flags & !IFA_F_PERMANENT,
        address.scope,
    ];
    body.extend(index_of(name)?.to_ne_bytes());
    for (kind, value) in &address.attributes {
        push_attribute(&mut body, *kind, value)?;
    }
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE_NEW;
    match exchange(&open()?, (RTM_NEWADDR, flags), &body) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The address in a message's body, if it is of this device and one that somebody gave to it.
fn parse_address(body: &[u8], device: u32) -> Option<Address> {
    let (head, mut rest) = body.split_at_checked(8)?;
    let index = u32::from_ne_bytes(head[4..8].try_into().ok()?);
    let (flags, scope) = (head[2], head[3]);
    if index != device || flags & IFA_F_PERMANENT == 0 || scope != RT_SCOPE_UNIVERSE {
        return None;
    }
    let mut attributes = Vec::new();
    while let Some((length, kind)) = two_numbers(rest) {
        let value = rest.get(4..usize::from(length))?;
        // A label begins with the device's name, which may change; the long flags repeat the
        // short ones; lifetimes of a permanent address are for ever.
        if ![IFA_LABEL, IFA_FLAGS, IFA_CACHEINFO].contains(&kind) {
            attributes.push((kind, value.to_vec()));
        }
        rest = rest
            .get(usize::from(length).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Some(Address {
        family: head[0],
        prefix: head[1],
        flags,
        scope,
        attributes,
    })
}

fn two_numbers(bytes: &[u8]) -> Option<(u16, u16)> {
    let number = |at: usize| {
        bytes
            .get(at..at + 2)?
            .try_into()
            .ok()
            .map(u16::from_ne_bytes)
    };
    Some((number(0)?, number(2)?))
}

/// The first message's type and body, and the messages after it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, after))
}

fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<()> {
    let length = u16::try_from(value.len() + 4).map_err(|_| Errno::TOOBIG)?;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
    Ok(())
}

fn set_link(index: u32, up: Option<u32>, attributes: &[(u16, &[u8])]) -> Result<()> {
    let flags = up.unwrap_or_default();
    let mut body = vec![0u8; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    for (kind, value) in attributes {
        push_attribute(&mut body, *kind, value)?;
    }
    exchange(&open()?, (RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK), &body)
}

fn open() -> Result<OwnedFd> {
    socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is protocol 0
    )
}

/// Sends one request, of a type and with flags, and waits for its acknowledgement.
fn exchange(socket: &OwnedFd, kind: (u16, u16), body: &[u8]) -> Result<()> {
    send(socket, &message(kind, body)?, SendFlags::empty())?;
    let mut reply = [0u8; 1024];
    let (length, _) = recv(socket, &mut reply, RecvFlags::empty())?;
    acknowledged(&reply[..length])
}

fn message((kind, flags): (u16, u16), body: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::TOOBIG)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend_from_slice(body);
    Ok(message)
}

/// Reads the error number out of an acknowledgement.
fn acknowledged(reply: &[u8]) -> Result<()> {
    let kind = reply
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes);
    let code = reply
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok());
    match (kind, code.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(Errno::from_raw_os_error(-code)),
        _ => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `10.0.0.2/24` of device 7 as the kernel sends it, with flags and scope.
    fn sent(flags: u8, scope: u8) -> Vec<u8> {
        let mut body = vec![2, 24, flags, scope, 7, 0, 0, 0];
        for (kind, value) in [
            (1, &[10, 0, 0, 2][..]),
            (IFA_LABEL, b"eth0\0"),
            (IFA_FLAGS, &[0x80, 0, 0, 0]),
        ] {
            push_attribute(&mut body, kind, value).unwrap();
        }
        body
    }

    #[test]
    fn only_what_somebody_gave_is_kept() {
        for (flags, scope, device, kept) in [
            (IFA_F_PERMANENT, 0, 7, true),
            (IFA_F_PERMANENT, 0, 8, false),
            (0, 0, 7, false),
            (IFA_F_PERMANENT, 253, 7, false), // link-local
        ] {
            let found = parse_address(&sent(flags, scope), device);
            assert_eq!(found.is_some(), kept, "{flags} {scope} {device}");
        }
        let found = parse_address(&sent(IFA_F_PERMANENT, 0), 7).unwrap();
        assert_eq!(found.attributes, [(1, vec![10, 0, 0, 2])]);
        assert_eq!(parse_address(&[2, 24], 7), None);
    }
}
