//! Netlink sockets: protocol, port, groups. Messages that wait are lost, as on any overrun.

use std::os::fd::OwnedFd;

use super::{Descriptor, new_entry, owner, socket};
use crate::error::{Context, Error, Result};
use crate::image::file::{FdTypes, FileEntry};
use crate::image::socket::NetlinkSkEntry;

const CLOSED: u32 = 7;
const LEVEL: i32 = 270;
const LIST_MEMBERSHIPS: i32 = 9;
const ADD_MEMBERSHIP: i32 = 1;

fn parse(address: &[u8]) -> (u32, u32) {
    let word = |at: usize| {
        address
            .get(at..at + 4)
            .map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    };
    (word(4), word(8))
}

fn address_of(port: u32, groups: u32) -> Vec<u8> {
    let mut address = (libc::AF_NETLINK as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(&[0; 2]);
    address.extend_from_slice(&port.to_ne_bytes());
    address.extend_from_slice(&groups.to_ne_bytes());
    address
}

pub(crate) fn dump(descriptor: &Descriptor) -> Result<FileEntry> {
    let file = &descriptor.file;
    let protocol = sys::socket::int_option(file, libc::SOL_SOCKET, libc::SO_PROTOCOL)
        .during("ask", &descriptor.link)?;
    let local =
        sys::socket::local_address(file).during("ask for the address of", &descriptor.link)?;
    let (portid, _) = parse(&local);
    let (dst_portid, dst_group) = parse(&sys::socket::peer_address(file).unwrap_or_default());
    if sys::socket::int_request(file, 0x541b).is_ok_and(|waiting| waiting > 0) {
        return Err(Error::because(
            "dump netlink socket",
            &descriptor.link,
            "messages wait in it",
        ));
    }
    let mut groups = vec![0; 64];
    let length = sys::socket::option(file, LEVEL, LIST_MEMBERSHIPS, &mut groups)
        .unwrap_or(0)
        .min(64);
    let groups = groups[..length]
        .chunks_exact(4)
        .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let mut entry = new_entry(FdTypes::Netlinksk, descriptor.id);
    entry.nlsk = Some(NetlinkSkEntry {
        id: descriptor.id,
        ino: descriptor.stat.st_ino as u32,
        protocol: protocol as u32,
        state: CLOSED,
        flags: descriptor.flags,
        portid,
        groups,
        dst_portid,
        dst_group,
        fown: owner::dump(file),
        opts: socket::dump_options(file)?,
        ns_id: Some(2),
    });
    Ok(entry)
}

pub(crate) fn restore(entry: &NetlinkSkEntry) -> Result<OwnedFd> {
    let about = format!("netlink socket {}", entry.id);
    let fd = sys::socket::create(libc::AF_NETLINK, libc::SOCK_RAW, entry.protocol as i32)
        .during("create", &about)?;
    if entry.portid != 0 {
        let groups = entry.groups.first().copied().unwrap_or(0);
        sys::socket::bind(&fd, &address_of(entry.portid, groups)).during("bind", &about)?;
    }
    for (word, groups) in entry.groups.iter().enumerate() {
        for bit in (0..32).filter(|bit| groups & (1 << bit) != 0) {
            let group = word as i32 * 32 + bit + 1;
            sys::socket::set_int_option(&fd, LEVEL, ADD_MEMBERSHIP, group)
                .during("join a group with", &about)?;
        }
    }
    if entry.dst_portid != 0 || entry.dst_group != 0 {
        let address = address_of(entry.dst_portid, entry.dst_group);
        sys::socket::connect(&fd, &address).during("connect", &about)?;
    }
    socket::restore_options(&fd, &entry.opts)?;
    super::set_status_flags(&fd, entry.flags)?;
    Ok(fd)
}
