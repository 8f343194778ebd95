//! Packet sockets (packet(7)): options, memberships, rings. What lies in a ring is lost.

use std::os::fd::OwnedFd;

use super::{Descriptor, new_entry, owner, socket};
use crate::error::{Context, Error, Result};
use crate::image::file::{FdTypes, FileEntry};
use crate::image::socket::{PacketMclist, PacketRing, PacketSockEntry};

const SOL_PACKET: i32 = 263;
const ADD_MEMBERSHIP: i32 = 1;
const RX_RING: i32 = 5;
const COPY_THRESH: i32 = 7;
const AUXDATA: i32 = 8;
const ORIGDEV: i32 = 9;
const VERSION: i32 = 10;
const RESERVE: i32 = 12;
const TX_RING: i32 = 13;
const LOSS: i32 = 14;
const VNET_HDR: i32 = 15;
const TIMESTAMP: i32 = 17;
const FANOUT: i32 = 18;
const V3: u32 = 2;
/// `SOCK_PACKET`, which the kernel still makes and binds by name.
const OLD_TYPE: u32 = 10;

/// What `packet_diag` answers, by the number of the attribute.
const DIAG_INFO: u16 = 0;
const DIAG_MCLIST: u16 = 1;
const DIAG_RX_RING: u16 = 2;
const DIAG_TX_RING: u16 = 3;
const SHOW_INFO_MCLIST_RINGS: u32 = 7;

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

pub(crate) fn dump(descriptor: &Descriptor) -> Result<FileEntry> {
    let file = &descriptor.file;
    let get = |level: i32, name: i32| -> Result<u32> {
        sys::socket::int_option(file, level, name)
            .map(|value| value as u32)
            .during("ask", &descriptor.link)
    };
    let answer = diagnose(descriptor.stat.st_ino as u32)?;
    let answer = answer.ok_or_else(|| {
        let cause = "sock_diag does not know it (needs CONFIG_PACKET_DIAG)";
        Error::because("dump packet socket", &descriptor.link, cause)
    })?;
    let mut entry = PacketSockEntry {
        id: descriptor.id,
        r#type: get(libc::SOL_SOCKET, libc::SO_TYPE)?,
        flags: descriptor.flags,
        fown: owner::dump(file),
        opts: socket::dump_options(file).unwrap_or_default(),
        ns_id: Some(2),
        ..PacketSockEntry::default()
    };
    // The old kind of socket knows no options.
    let option = |name: i32| get(SOL_PACKET, name).unwrap_or(0);
    entry.timestamp = option(TIMESTAMP);
    entry.fanout = Some(option(FANOUT)).filter(|fanout| *fanout != 0);
    fill(&mut entry, &answer);
    let mut file = new_entry(FdTypes::Packetsk, descriptor.id);
    file.psk = Some(entry);
    Ok(file)
}

fn diagnose(inode: u32) -> Result<Option<Vec<u8>>> {
    let mut request = vec![libc::AF_PACKET as u8, 0, 0, 0];
    for word in [inode, SHOW_INFO_MCLIST_RINGS, u32::MAX, u32::MAX] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    let answers = match sys::socket::diagnose(&request) {
        Err(sys::Errno::NOENT) => return Ok(None),
        other => other.during("list", "packet sockets")?,
    };
    // struct packet_diag_msg: family, type, protocol, inode, cookie.
    Ok(answers.into_iter().find(|answer| word(answer, 4) == inode))
}

fn fill(entry: &mut PacketSockEntry, answer: &[u8]) {
    let number = u16::from_ne_bytes([answer[2], answer[3]]);
    entry.protocol = number.to_be().into();
    let mut at = 16;
    while at + 4 <= answer.len() {
        let length = usize::from(u16::from_ne_bytes([answer[at], answer[at + 1]]));
        let kind = u16::from_ne_bytes([answer[at + 2], answer[at + 3]]);
        let value = answer.get(at + 4..at + length).unwrap_or_default();
        match kind {
            DIAG_INFO => information(entry, value),
            DIAG_MCLIST => entry.mclist = value.chunks_exact(44).map(membership).collect(),
            DIAG_RX_RING => entry.rx_ring = Some(ring(value)),
            DIAG_TX_RING => entry.tx_ring = Some(ring(value)),
            _ => {}
        }
        at += length.max(4).next_multiple_of(4);
    }
}

/// struct packet_diag_info: device, version, reserve, copy threshold, timestamps, flags.
fn information(entry: &mut PacketSockEntry, bytes: &[u8]) {
    let flag = |bit: u32| word(bytes, 20) & bit != 0;
    entry.ifindex = word(bytes, 0);
    entry.version = word(bytes, 4);
    entry.reserve = word(bytes, 8);
    entry.copy_thresh = word(bytes, 12);
    entry.aux_data = flag(2);
    entry.orig_dev = flag(4);
    entry.vnet_hdr = flag(8);
    entry.loss = flag(16);
}

/// struct packet_diag_mclist: index, count, type, address length, address.
fn membership(bytes: &[u8]) -> PacketMclist {
    let short = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let length = usize::from(short(10)).min(32);
    PacketMclist {
        index: word(bytes, 0),
        r#type: short(8).into(),
        addr: bytes[12..12 + length].to_vec(),
    }
}

fn ring(bytes: &[u8]) -> PacketRing {
    PacketRing {
        block_size: word(bytes, 0),
        block_nr: word(bytes, 4),
        frame_size: word(bytes, 8),
        frame_nr: word(bytes, 12),
        retire_tmo: word(bytes, 16),
        sizeof_priv: word(bytes, 20),
        features: word(bytes, 24),
    }
}

pub(crate) fn restore(entry: &PacketSockEntry) -> Result<OwnedFd> {
    let protocol = (entry.protocol as u16) as i32;
    let fd = sys::socket::create(libc::AF_PACKET, entry.r#type as i32, protocol)
        .during("create packet socket", entry.id)?;
    let set = |name: i32, bytes: &[u8]| {
        sys::socket::set_option(&fd, SOL_PACKET, name, bytes)
            .during("set option of packet socket", entry.id)
    };
    if entry.ifindex != 0 {
        bind(&fd, entry)?;
    }
    for (name, value) in [
        (VERSION, entry.version),
        (RESERVE, entry.reserve),
        (AUXDATA, entry.aux_data.into()),
        (ORIGDEV, entry.orig_dev.into()),
        (VNET_HDR, entry.vnet_hdr.into()),
        (LOSS, entry.loss.into()),
        (TIMESTAMP, entry.timestamp),
        (COPY_THRESH, entry.copy_thresh),
    ] {
        if value != 0 {
            set(name, &value.to_ne_bytes())?;
        }
    }
    for member in &entry.mclist {
        let mut request = member.index.to_ne_bytes().to_vec();
        request.extend_from_slice(&(member.r#type as u16).to_ne_bytes());
        request.extend_from_slice(&(member.addr.len() as u16).to_ne_bytes());
        request.extend_from_slice(&member.addr);
        request.resize(request.len().max(16), 0);
        set(ADD_MEMBERSHIP, &request)?;
    }
    for (name, ring) in [(RX_RING, &entry.rx_ring), (TX_RING, &entry.tx_ring)] {
        let Some(ring) = ring.as_ref().filter(|ring| ring.block_nr != 0) else {
            continue;
        };
        let mut words = vec![
            ring.block_size,
            ring.block_nr,
            ring.frame_size,
            ring.frame_nr,
        ];
        if entry.version == V3 {
            words.extend([ring.retire_tmo, ring.sizeof_priv, ring.features]);
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        set(name, &bytes)?;
    }
    if let Some(fanout) = entry.fanout.filter(|fanout| *fanout != u32::MAX) {
        set(FANOUT, &fanout.to_ne_bytes())?;
    }
    if entry.r#type != OLD_TYPE {
        socket::restore_options(&fd, &entry.opts)?;
    }
    super::set_status_flags(&fd, entry.flags)?;
    Ok(fd)
}

fn bind(fd: &OwnedFd, entry: &PacketSockEntry) -> Result<()> {
    let mut address = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
    if entry.r#type == OLD_TYPE {
        let name = super::inet_socket::interface_name(entry.ifindex).unwrap_or_default();
        address.extend_from_slice(name.as_bytes());
        address.resize(16, 0);
    } else {
        address.extend_from_slice(&(entry.protocol as u16).to_ne_bytes());
        address.extend_from_slice(&entry.ifindex.to_ne_bytes());
        address.resize(20, 0);
    }
    sys::socket::bind(fd, &address).during("bind packet socket to device", entry.ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_with_a_ring_and_a_membership() {
        let mut answer = vec![0; 16];
        answer[2..4].copy_from_slice(&3_u16.to_ne_bytes());
        let attribute = |kind: u16, words: &[u32]| {
            let mut bytes = (4 + words.len() as u16 * 4).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
            bytes
        };
        answer.extend(attribute(DIAG_INFO, &[1, 1, 8, 77, 0, 2]));
        let mut member = [0; 11];
        member[0] = 3;
        member[2] = 6 << 16 | 1;
        member[3] = u32::from_ne_bytes([1, 2, 3, 4]);
        answer.extend(attribute(DIAG_MCLIST, &member));
        answer.extend(attribute(DIAG_RX_RING, &[4096, 1, 1024, 4, 0, 0, 0]));
        let mut entry = PacketSockEntry::default();
        fill(&mut entry, &answer);
        assert_eq!((entry.ifindex, entry.version, entry.reserve), (1, 1, 8));
        assert_eq!((entry.copy_thresh, entry.aux_data), (77, true));
        assert_eq!(entry.protocol, u32::from(3_u16.to_be()));
        let member = &entry.mclist[0];
        assert_eq!((member.index, member.r#type), (3, 1));
        assert_eq!(member.addr, [1, 2, 3, 4, 0, 0]);
        assert_eq!(entry.rx_ring.unwrap().frame_nr, 4);
        assert_eq!(entry.tx_ring, None);
    }
}
