//! rtnetlink: the few requests that a container's network namespace needs.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::{Errno, Result};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
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

fn set_link(index: u32, up: Option<u32>, attributes: &[(u16, &[u8])]) -> Result<()> {
    let flags = up.unwrap_or_default();
    let mut body = vec![0u8; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    for (kind, value) in attributes {
        let length = u16::try_from(value.len() + 4).map_err(|_| Errno::TOOBIG)?;
        body.extend(length.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    request(&open()?, RTM_NEWLINK, &body)
}

fn open() -> Result<OwnedFd> {
    socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is protocol 0
    )
}

/// Sends one request and waits for its acknowledgement.
fn request(socket: &OwnedFd, kind: u16, body: &[u8]) -> Result<()> {
    let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::TOOBIG)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]);
    message.extend_from_slice(body);
    send(socket, &message, SendFlags::empty())?;
    let mut reply = [0u8; 1024];
    let (length, _) = recv(socket, &mut reply, RecvFlags::empty())?;
    acknowledged(&reply[..length])
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
