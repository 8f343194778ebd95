//! Sockets of IPv4 and IPv6: UDP, raw, ping, and TCP that is not connected ([`super::tcp`] is).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use super::{Descriptor, new_entry, owner, socket, tcp};
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::file::{FdTypes, FileEntry};
use crate::image::socket::{InetSkEntry, IpOptsEntry, IpOptsRawEntry, SkShutdown};

pub(crate) const LISTEN: u32 = 10;
pub(crate) const CLOSED: u32 = 7;
pub(crate) const ESTABLISHED: u32 = 1;

/// Address words as the kernel stores them, and the port.
fn parse_address(bytes: &[u8]) -> (Vec<u32>, u32, u32) {
    let port = |at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let words = |from: usize, to: usize| {
        bytes[from..to]
            .chunks_exact(4)
            .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    };
    match bytes.len() {
        16 => (words(4, 8), port(2), 0),
        28 => {
            let scope = u32::from_ne_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
            (words(8, 24), port(2), scope)
        }
        _ => (Vec::new(), 0, 0),
    }
}

/// The `sockaddr` of an image's address.
pub(crate) fn address_of(family: u32, words: &[u32], port: u32, scope: u32) -> Vec<u8> {
    let mut address = (family as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(&(port as u16).to_be_bytes());
    let bytes = |count: usize| {
        let mut bytes: Vec<u8> = words
            .iter()
            .take(count)
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        bytes.resize(count * 4, 0);
        bytes
    };
    if family == libc::AF_INET6 as u32 {
        address.extend_from_slice(&[0; 4]);
        address.extend_from_slice(&bytes(4));
        address.extend_from_slice(&scope.to_ne_bytes());
    } else {
        address.extend_from_slice(&bytes(1));
        address.extend_from_slice(&[0; 8]);
    }
    address
}

pub(crate) fn dump(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    let file = &descriptor.file;
    let get = |name: i32| {
        sys::socket::int_option(file, libc::SOL_SOCKET, name)
            .during("ask", &descriptor.link)
            .map(|value| value as u32)
    };
    let (family, kind, proto) = (
        get(libc::SO_DOMAIN)?,
        get(libc::SO_TYPE)?,
        get(libc::SO_PROTOCOL)?,
    );
    let local =
        sys::socket::local_address(file).during("ask for the address of", &descriptor.link)?;
    let (src_addr, src_port, scope) = parse_address(&local);
    let peer = sys::socket::peer_address(file).unwrap_or_default();
    let (dst_addr, dst_port, _) = parse_address(&peer);
    let is_tcp = proto == libc::IPPROTO_TCP as u32;
    let mut entry = InetSkEntry {
        id: descriptor.id,
        ino: descriptor.stat.st_ino as u32,
        family,
        r#type: kind,
        proto,
        state: if peer.is_empty() { CLOSED } else { ESTABLISHED },
        src_port,
        dst_port,
        flags: descriptor.flags,
        src_addr,
        dst_addr,
        fown: owner::dump(file),
        opts: socket::dump_options(file)?,
        v6only: v6only(file, family),
        ip_opts: Some(ip_options(file, family, kind, proto)),
        ifname: interface_name(scope),
        ns_id: Some(2),
        ..InetSkEntry::default()
    };
    if is_tcp {
        tcp::dump(file, &mut entry, dump)?;
    } else {
        check_cork(file, &entry)?;
        entry.shutdown = datagram_shutdown(&entry)?;
    }
    if entry.dst_addr.is_empty() {
        entry.dst_addr = vec![0; entry.src_addr.len()];
    }
    let mut file = new_entry(FdTypes::Inetsk, descriptor.id);
    file.isk = Some(entry);
    Ok(file)
}

/// What a corked socket has gathered cannot be read out.
fn check_cork(file: &OwnedFd, entry: &InetSkEntry) -> Result<()> {
    const UDP_CORK: i32 = 1;
    let udp = [libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE].contains(&(entry.proto as i32));
    let level = libc::IPPROTO_UDP;
    if udp && sys::socket::int_option(file, level, UDP_CORK).is_ok_and(|corked| corked != 0) {
        let object = format!("UDP socket of port {}", entry.src_port);
        let cause = "it is corked (UDP_CORK); let it send what it gathers first";
        return Err(Error::because("dump", object, cause));
    }
    Ok(())
}

fn v6only(file: &OwnedFd, family: u32) -> Option<bool> {
    let value = sys::socket::int_option(file, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
    value
        .ok()
        .filter(|_| family == libc::AF_INET6 as u32)
        .map(|value| value != 0)
}

pub(crate) fn interface_name(scope: u32) -> Option<String> {
    if scope == 0 {
        return None;
    }
    sys::rtnetlink::name_of(scope).ok()
}

fn interface_index(name: &str) -> u32 {
    sys::netlink::index_of(name).unwrap_or(0)
}

const ICMP_FILTER: i32 = 1;
const SOL_RAW: i32 = 255;
const ICMPV6_FILTER: i32 = 1;
const SOL_ICMPV6: i32 = 58;

/// The options of level IP or IPv6: name in the image, and its number in each.
fn ip_options(file: &OwnedFd, family: u32, kind: u32, proto: u32) -> IpOptsEntry {
    let v6 = family == libc::AF_INET6 as u32;
    let level = if v6 {
        libc::IPPROTO_IPV6
    } else {
        libc::IPPROTO_IP
    };
    let get = |v4: i32, six: i32| {
        let name = if v6 { six } else { v4 };
        sys::socket::int_option(file, level, name).ok()
    };
    let flag = |v4: i32, six: i32| get(v4, six).filter(|value| *value != 0).map(|_| true);
    let raw = (kind == libc::SOCK_RAW as u32).then(|| IpOptsRawEntry {
        hdrincl: flag(libc::IP_HDRINCL, libc::IPV6_HDRINCL),
        nodefrag: if v6 { None } else { flag(libc::IP_NODEFRAG, 0) },
        checksum: None,
        icmpv_filter: icmp_filter(file, v6, proto),
    });
    IpOptsEntry {
        freebind: flag(libc::IP_FREEBIND, libc::IPV6_FREEBIND),
        raw,
        pktinfo: flag(libc::IP_PKTINFO, libc::IPV6_RECVPKTINFO),
        tos: get(libc::IP_TOS, libc::IPV6_TCLASS)
            .filter(|value| *value > 0)
            .map(|value| value as u32),
        ttl: get(libc::IP_TTL, libc::IPV6_UNICAST_HOPS)
            .filter(|value| *value > 0)
            .map(|value| value as u32),
    }
}

fn icmp_filter(file: &OwnedFd, v6: bool, proto: u32) -> Vec<u32> {
    let (level, name, size, own) = if v6 {
        (SOL_ICMPV6, ICMPV6_FILTER, 32, libc::IPPROTO_ICMPV6)
    } else {
        (SOL_RAW, ICMP_FILTER, 4, libc::IPPROTO_ICMP)
    };
    let mut bytes = vec![0; size];
    if proto != own as u32 || sys::socket::option(file, level, name, &mut bytes).is_err() {
        return Vec::new();
    }
    bytes
        .chunks_exact(4)
        .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

/// No call tells whether a datagram socket is shut down; sock_diag does.
fn datagram_shutdown(entry: &InetSkEntry) -> Result<Option<i32>> {
    const INET_DIAG_SHUTDOWN: u16 = 8;
    let Some(answer) = diagnose(entry, 1 << (INET_DIAG_SHUTDOWN - 1))? else {
        return Ok(None);
    };
    // struct inet_diag_msg has 72 bytes.
    let mut at = 72;
    while at + 5 <= answer.len() {
        let length = u16::from_ne_bytes([answer[at], answer[at + 1]]) as usize;
        let kind = u16::from_ne_bytes([answer[at + 2], answer[at + 3]]);
        if kind == INET_DIAG_SHUTDOWN {
            return Ok(Some(i32::from(answer[at + 4] & 3)).filter(|how| *how != 0));
        }
        at += length.max(4).next_multiple_of(4);
    }
    Ok(None)
}

fn diagnose(entry: &InetSkEntry, extensions: u8) -> Result<Option<Vec<u8>>> {
    let mut request = vec![entry.family as u8, entry.proto as u8, extensions, 0];
    request.extend_from_slice(&u32::MAX.to_ne_bytes());
    request.extend_from_slice(&[0; 40]);
    request.extend_from_slice(&[0xff; 8]);
    let answers = match sys::socket::diagnose(&request) {
        // Without a module for this protocol there is nothing to learn.
        Err(sys::Errno::NOENT) => return Ok(None),
        other => other.during("list", "sockets")?,
    };
    let inode = |answer: &Vec<u8>| {
        answer
            .get(68..72)
            .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    };
    Ok(answers
        .into_iter()
        .find(|answer| inode(answer) == Some(entry.ino)))
}

pub(crate) fn local_address(entry: &InetSkEntry) -> Vec<u8> {
    let scope = entry.ifname.as_deref().map_or(0, interface_index);
    address_of(entry.family, &entry.src_addr, entry.src_port, scope)
}

pub(crate) fn peer_address(entry: &InetSkEntry) -> Vec<u8> {
    let scope = entry.ifname.as_deref().map_or(0, interface_index);
    address_of(entry.family, &entry.dst_addr, entry.dst_port, scope)
}

fn is_bound(entry: &InetSkEntry) -> bool {
    entry.src_port != 0 || entry.src_addr.iter().any(|word| *word != 0)
}

/// A socket of this kind with the options that must be there before it is bound.
pub(crate) fn create(entry: &InetSkEntry) -> Result<OwnedFd> {
    let fd = sys::socket::create(entry.family as i32, entry.r#type as i32, entry.proto as i32)
        .during("create socket", entry.id)?;
    // Others of the same port are restored as well; the true values are set afterwards.
    let set = |level, name, value| {
        sys::socket::set_int_option(&fd, level, name, value).during("prepare socket", entry.id)
    };
    set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if entry.opts.so_reuseport == Some(true) || is_tcp(entry) {
        set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    // A raw socket counts as bound from birth, and then this option cannot be set.
    if let Some(only) = entry
        .v6only
        .filter(|_| entry.r#type != libc::SOCK_RAW as u32)
    {
        set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(only))?;
    }
    // It may have been set at the bind and not any more.
    set_freebind(&fd, entry, true)?;
    Ok(fd)
}

/// One bit of the socket, whatever its family.
fn set_freebind(fd: &OwnedFd, entry: &InetSkEntry, on: bool) -> Result<()> {
    let (level, name) = if entry.family == libc::AF_INET6 as u32 {
        (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND)
    } else {
        (libc::IPPROTO_IP, libc::IP_FREEBIND)
    };
    sys::socket::set_int_option(fd, level, name, i32::from(on))
        .during("set free binding of socket", entry.id)
}

/// Makes any socket but a connected TCP one.
pub(crate) fn restore(entry: &InetSkEntry) -> Result<OwnedFd> {
    let fd = create(entry)?;
    let raw = entry.r#type == libc::SOCK_RAW as u32;
    if is_bound(entry) && !(raw && entry.src_addr.iter().all(|word| *word == 0)) {
        let mut address = local_address(entry);
        if raw {
            address[2..4].fill(0);
        }
        sys::socket::bind(&fd, &address).during("bind socket to port", entry.src_port)?;
    }
    let tcp = entry.proto == libc::IPPROTO_TCP as u32;
    if entry.state == LISTEN && tcp {
        sys::socket::listen(&fd, entry.backlog as i32).during("listen on port", entry.src_port)?;
    }
    let connected = entry.state == ESTABLISHED && entry.dst_addr.iter().any(|word| *word != 0);
    if connected && !tcp {
        sys::socket::connect(&fd, &peer_address(entry))
            .during("connect to port", entry.dst_port)?;
    }
    if let Some(how @ 1..=3) = entry.shutdown.filter(|_| !tcp || entry.state == CLOSED) {
        match sys::socket::shutdown(&fd, how - 1) {
            // It is told so and shut down nevertheless.
            Ok(()) | Err(sys::Errno::NOTCONN) => {}
            Err(errno) => return Err(Error::kernel("shut down socket", entry.id, errno)),
        }
    }
    restore_options(&fd, entry)?;
    super::set_status_flags(&fd, entry.flags)?;
    Ok(fd)
}

/// All options, once the socket is bound.
pub(crate) fn restore_options(fd: &OwnedFd, entry: &InetSkEntry) -> Result<()> {
    socket::restore_options(fd, &entry.opts)?;
    let v6 = entry.family == libc::AF_INET6 as u32;
    let set = |v4: (i32, i32), six: (i32, i32), value: i32| {
        let (level, name) = if v6 { six } else { v4 };
        sys::socket::set_int_option(fd, level, name, value).during("set option of socket", entry.id)
    };
    let (ip, ipv6) = (libc::IPPROTO_IP, libc::IPPROTO_IPV6);
    let free = entry.ip_opts.as_ref().and_then(|options| options.freebind);
    set_freebind(fd, entry, free == Some(true))?;
    if let Some(options) = &entry.ip_opts {
        if options.pktinfo == Some(true) {
            set((ip, libc::IP_PKTINFO), (ipv6, libc::IPV6_RECVPKTINFO), 1)?;
        }
        if let Some(tos) = options.tos {
            set((ip, libc::IP_TOS), (ipv6, libc::IPV6_TCLASS), tos as i32)?;
        }
        if let Some(ttl) = options.ttl {
            set(
                (ip, libc::IP_TTL),
                (ipv6, libc::IPV6_UNICAST_HOPS),
                ttl as i32,
            )?;
        }
        if let Some(raw) = &options.raw {
            restore_raw(fd, raw, v6, entry.id)?;
        }
    }
    tcp::restore_options(fd, entry)?;
    Ok(())
}

fn is_tcp(entry: &InetSkEntry) -> bool {
    entry.proto == libc::IPPROTO_TCP as u32
}

/// SO_REUSEADDR and SO_REUSEPORT as they were, when nothing is bound any more.
pub(crate) fn restore_reuse(fd: &OwnedFd, entry: &InetSkEntry) -> Result<()> {
    if is_tcp(entry) {
        let value = i32::from(entry.opts.so_reuseport == Some(true));
        sys::socket::set_int_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, value)
            .during("set SO_REUSEPORT of socket", entry.id)?;
    }
    let value = i32::from(entry.opts.reuseaddr == Some(true));
    sys::socket::set_int_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, value)
        .during("set SO_REUSEADDR of socket", entry.id)
}

fn restore_raw(fd: &OwnedFd, raw: &IpOptsRawEntry, v6: bool, id: u32) -> Result<()> {
    let set = |level, name, bytes: &[u8]| {
        sys::socket::set_option(fd, level, name, bytes).during("set option of socket", id)
    };
    let one = 1_i32.to_ne_bytes();
    if raw.hdrincl == Some(true) {
        let (level, name) = if v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_HDRINCL)
        } else {
            (libc::IPPROTO_IP, libc::IP_HDRINCL)
        };
        set(level, name, &one)?;
    }
    if raw.nodefrag == Some(true) {
        set(libc::IPPROTO_IP, libc::IP_NODEFRAG, &one)?;
    }
    if !raw.icmpv_filter.is_empty() {
        let bytes: Vec<u8> = raw
            .icmpv_filter
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let (level, name) = if v6 {
            (SOL_ICMPV6, ICMPV6_FILTER)
        } else {
            (SOL_RAW, ICMP_FILTER)
        };
        set(level, name, &bytes)?;
    }
    Ok(())
}

/// Turns a connection into a socket that never had one.
pub(crate) fn close(entry: &mut InetSkEntry) {
    if is_connected_tcp(entry) {
        entry.state = CLOSED;
        forget_connection(entry);
    }
}

/// What is left of a connection that is over.
pub(crate) fn forget_connection(entry: &mut InetSkEntry) {
    entry.src_port = 0;
    entry.src_addr.fill(0);
    // Reads see the end, writes a broken pipe.
    entry.shutdown = Some(SkShutdown::Both as i32);
}

/// The address that words of an image stand for; IPv4 inside IPv6 is IPv4 on the wire.
pub(crate) fn ip_address(words: &[u32]) -> Option<IpAddr> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(sixteen)).to_canonical())
}

/// Whether it waits for connections.
pub(crate) fn is_listening(entry: &InetSkEntry) -> bool {
    entry.proto == libc::IPPROTO_TCP as u32 && entry.state == LISTEN
}

/// Whether it needs repair mode: a TCP socket with a connection.
pub(crate) fn is_connected_tcp(entry: &InetSkEntry) -> bool {
    entry.proto == libc::IPPROTO_TCP as u32 && ![LISTEN, CLOSED].contains(&entry.state)
}

/// Refuses what cannot be asked for.
pub(crate) fn check_family(descriptor: &Descriptor) -> Result<i32> {
    sys::socket::int_option(&descriptor.file, libc::SOL_SOCKET, libc::SO_DOMAIN)
        .map_err(|errno| Error::kernel("ask for the family of", &descriptor.link, errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for (family, words) in [
            (libc::AF_INET, vec![0x0100_007f]),
            (libc::AF_INET6, vec![1, 2, 3, 4]),
        ] {
            let bytes = address_of(family as u32, &words, 8080, 0);
            assert_eq!(parse_address(&bytes), (words, 8080, 0));
        }
    }
}
