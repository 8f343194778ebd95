//! Connected TCP sockets: repair mode (since Linux 3.5).
//!
//! In repair mode a socket tells and takes its sequence numbers, options and queues, connects
//! without a packet, and closes in silence. Dump leaves it on until the tree is killed; restore
//! turns it off last, when all sockets of the tree exist.

use std::os::fd::OwnedFd;

use super::inet_socket::{self, CLOSED, LISTEN};
use super::socket;
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::socket::{InetSkEntry, TcpOptsEntry, TcpStreamEntry};
use crate::image::{Directory, Kind, Writer};
use crate::network_lock::{Ends, Held, MARK};

const LEVEL: i32 = libc::IPPROTO_TCP;
const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_REPAIR_OPTIONS: i32 = 22;
const TCP_TIMESTAMP: i32 = 24;
const TCP_REPAIR_WINDOW: i32 = 29;
const TCP_ULP: i32 = 31;
const NO_QUEUE: i32 = 0;
const RECEIVE_QUEUE: i32 = 1;
const SEND_QUEUE: i32 = 2;
const SIOCINQ: libc::c_ulong = 0x541b;
const SIOCOUTQ: libc::c_ulong = 0x5411;
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

const OPTION_TIMESTAMPS: u32 = 1;
const OPTION_SACK: u32 = 2;
const OPTION_WSCALE: u32 = 4;

const SYN_SENT: u32 = 2;
const SYN_RECV: u32 = 3;
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
const TIME_WAIT: u32 = 6;
const CLOSE_WAIT: u32 = 8;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

fn set(socket: &OwnedFd, name: i32, value: i32) -> Result<()> {
    sys::socket::set_int_option(socket, LEVEL, name, value).during("repair", "TCP socket")
}

fn get(socket: &OwnedFd, name: i32) -> Result<u32> {
    sys::socket::int_option(socket, LEVEL, name)
        .map(|value| value as u32)
        .during("ask", "TCP socket")
}

fn ask(socket: &OwnedFd, request: libc::c_ulong) -> Result<u32> {
    sys::socket::int_request(socket, request)
        .map(|value| value as u32)
        .during("ask", "TCP socket")
}

/// Fills in the state; [`dump_connections`] does the rest.
pub(crate) fn dump(socket: &OwnedFd, entry: &mut InetSkEntry, dump: &mut Dump<'_>) -> Result<()> {
    let info = information(socket)?;
    entry.state = u32::from(info[0]);
    if entry.state == LISTEN {
        // tcpi_sacked
        entry.backlog = u32::from_ne_bytes([info[28], info[29], info[30], info[31]]);
    }
    entry.tcp_opts = Some(options(socket)?);
    let about = |cause: String| {
        let object = format!("TCP socket of port {}", entry.src_port);
        Error::because("dump", object, cause)
    };
    let mut protocol = [0; 16];
    if sys::socket::option(socket, LEVEL, TCP_ULP, &mut protocol).is_ok_and(|length| length > 0) {
        let name = String::from_utf8_lossy(&protocol);
        let name = name.trim_end_matches('\0');
        return Err(about(format!("the kernel runs `{name}` on it")));
    }
    match entry.state {
        CLOSED if had_connection(socket) => {
            // Its port may belong to somebody else by now.
            inet_socket::forget_connection(entry);
            return Ok(());
        }
        LISTEN | CLOSED => return Ok(()),
        SYN_RECV | TIME_WAIT => return Err(about(format!("it is in state {}", entry.state))),
        _ => {}
    }
    if dump.options.tcp_close {
        inet_socket::close(entry);
        return Ok(());
    }
    if !dump.options.tcp_established {
        let cause = "it is connected; allow that (--tcp-established), or close the connection";
        return Err(about(cause.to_owned()));
    }
    if entry.state == SYN_SENT {
        entry.state = CLOSED;
        return Ok(());
    }
    let socket = super::duplicate(socket, "TCP socket")?;
    dump.connections.push((entry.id, socket));
    Ok(())
}

/// Whether a closed socket was connected once: one that never was has nothing to read.
fn had_connection(socket: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut polled, Some(&now)).is_ok()
        && polled[0].revents().contains(PollFlags::RDHUP)
}

fn information(socket: &OwnedFd) -> Result<[u8; 64]> {
    let mut info = [0_u8; 64];
    sys::socket::option(socket, LEVEL, libc::TCP_INFO, &mut info).during("ask", "TCP socket")?;
    Ok(info)
}

/// Locks all connections that were met, then reads them: what arrives in between would be
/// acknowledged and lost.
pub(crate) fn dump_connections(dump: &mut Dump<'_>) -> Result<()> {
    let connections = std::mem::take(&mut dump.connections);
    let ids: Vec<u32> = connections.iter().map(|(id, _)| *id).collect();
    let entries = dump.files.entries.iter();
    let ends = entries
        .filter(|entry| ids.contains(&entry.id))
        .filter_map(|entry| Ends::of(entry.isk.as_ref()?))
        .collect();
    let lock = Held::lock(dump.options.network_lock, ends)?;
    dump.network_lock = Some(lock);
    for (id, socket) in connections {
        let info = information(&socket)?;
        let entries = dump.files.entries.iter_mut();
        let mut entries = entries.filter(|entry| entry.id == id);
        let Some(entry) = entries.find_map(|entry| entry.isk.as_mut()) else {
            continue;
        };
        // It may have gone on since it was met.
        entry.state = u32::from(info[0]);
        if entry.state == CLOSED {
            continue;
        }
        let inode = entry.ino;
        set(&socket, TCP_REPAIR, 1)?;
        dump.repaired.push(super::duplicate(&socket, "TCP socket")?);
        dump_stream(&socket, inode, &info, dump.images)?;
    }
    Ok(())
}

/// Leaves repair mode after a dump whose tree runs on.
pub(crate) fn resume(socket: &OwnedFd) {
    // Off without the window probe that follows a restore.
    if set(socket, TCP_REPAIR, -1).is_err() {
        let _ = set(socket, TCP_REPAIR, 0);
    }
}

fn options(socket: &OwnedFd) -> Result<TcpOptsEntry> {
    Ok(TcpOptsEntry {
        cork: Some(get(socket, libc::TCP_CORK)? != 0),
        nodelay: Some(get(socket, libc::TCP_NODELAY)? != 0),
        keepcnt: Some(get(socket, libc::TCP_KEEPCNT)?),
        keepidle: Some(get(socket, libc::TCP_KEEPIDLE)?),
        keepintvl: Some(get(socket, libc::TCP_KEEPINTVL)?),
    })
}

fn dump_stream(socket: &OwnedFd, inode: u32, info: &[u8; 64], images: &Directory) -> Result<()> {
    let mut window = [0_u8; 20];
    sys::socket::option(socket, LEVEL, TCP_REPAIR_WINDOW, &mut window)
        .during("ask", "TCP window")?;
    let word = |at: usize| {
        u32::from_ne_bytes([window[at], window[at + 1], window[at + 2], window[at + 3]])
    };
    let opt_mask = u32::from(info[5]);
    let scales = info[6];
    let inq_len = ask(socket, SIOCINQ)?;
    let outq_len = ask(socket, SIOCOUTQ)?;
    let unsq_len = ask(socket, SIOCOUTQNSD)?;
    let (inq_seq, received) = queue(socket, RECEIVE_QUEUE, inq_len)?;
    let (outq_seq, sent) = queue(socket, SEND_QUEUE, outq_len)?;
    set(socket, TCP_REPAIR_QUEUE, NO_QUEUE)?;
    let mut writer = Writer::new(&format!("tcp-stream-{inode:x}.img"), Kind::TcpStream);
    writer.entry(&TcpStreamEntry {
        inq_len: received.len() as u32,
        inq_seq,
        outq_len: sent.len() as u32,
        outq_seq,
        opt_mask,
        snd_wscale: u32::from(scales & 15),
        rcv_wscale: Some(u32::from(scales >> 4)).filter(|_| opt_mask & OPTION_WSCALE != 0),
        mss_clamp: get(socket, libc::TCP_MAXSEG)?,
        timestamp: if opt_mask & OPTION_TIMESTAMPS != 0 {
            Some(get(socket, TCP_TIMESTAMP)?)
        } else {
            None
        },
        unsq_len: Some(unsq_len),
        snd_wl1: Some(word(0)),
        snd_wnd: Some(word(4)),
        max_window: Some(word(8)),
        rcv_wnd: Some(word(12)),
        rcv_wup: Some(word(16)),
        ..TcpStreamEntry::default()
    });
    writer.raw(&received);
    writer.raw(&sent);
    writer.save(images)
}

/// The number after the queue's last byte, and its bytes.
fn queue(socket: &OwnedFd, which: i32, length: u32) -> Result<(u32, Vec<u8>)> {
    set(socket, TCP_REPAIR_QUEUE, which)?;
    let sequence = get(socket, TCP_QUEUE_SEQ)?;
    let mut bytes = vec![0; length as usize];
    if length == 0 {
        return Ok((sequence, bytes));
    }
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let got = match sys::socket::receive(socket, &mut bytes, flags) {
        Ok(message) => message.length,
        // Only a FIN is there.
        Err(sys::Errno::AGAIN) => 0,
        Err(errno) => return Err(Error::kernel("copy a queue of", "TCP socket", errno)),
    };
    bytes.truncate(got);
    Ok((sequence, bytes))
}

/// A connection in the making; dropped in repair mode it vanishes without a packet.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) fd: OwnedFd,
    entry: InetSkEntry,
    stream: TcpStreamEntry,
    /// What was written and not yet sent.
    unsent: Vec<u8>,
}

/// Makes a connected socket, silent until [`Connection::go`].
pub(crate) fn restore(images: &Directory, entry: &InetSkEntry) -> Result<Connection> {
    let name = format!("tcp-stream-{:x}.img", entry.ino);
    let damaged = |cause: &str| Error::because("read image", &name, cause);
    let mut reader = images
        .reader(&name, Kind::TcpStream)?
        .ok_or_else(|| damaged("it is missing"))?;
    let stream: TcpStreamEntry = reader.entry()?.ok_or_else(|| damaged("it has no entry"))?;
    let received = reader.raw(stream.inq_len as usize)?.to_vec();
    let mut sent = reader.raw(stream.outq_len as usize)?.to_vec();
    // Behind a FIN nothing can be written: all of it counts as sent, and is sent again.
    let fin_is_last = FIN_SENT.contains(&entry.state);
    let unsent_length = stream.unsq_len.filter(|_| !fin_is_last).unwrap_or(0);
    let unsent_length = unsent_length.min(stream.outq_len) as usize;
    let unsent = sent.split_off(sent.len() - unsent_length);
    let fd = inet_socket::create(entry)?;
    set(&fd, TCP_REPAIR, 1)?;
    let port = entry.src_port;
    sys::socket::bind(&fd, &inet_socket::local_address(entry))
        .during("bind socket to port", port)?;
    let fin_received = u32::from(FIN_RECEIVED.contains(&entry.state));
    let fin_sent = u32::from(FIN_SENT.contains(&entry.state));
    let starts = [
        (
            RECEIVE_QUEUE,
            stream
                .inq_seq
                .wrapping_sub(stream.inq_len)
                .wrapping_sub(fin_received),
        ),
        (
            SEND_QUEUE,
            stream
                .outq_seq
                .wrapping_sub(stream.outq_len)
                .wrapping_sub(fin_sent),
        ),
    ];
    for (queue, sequence) in starts {
        set(&fd, TCP_REPAIR_QUEUE, queue)?;
        set(&fd, TCP_QUEUE_SEQ, sequence as i32)?;
    }
    sys::socket::connect(&fd, &inet_socket::peer_address(entry))
        .during("connect to port", entry.dst_port)?;
    negotiate(&fd, &stream)?;
    inet_socket::restore_options(&fd, entry)?;
    socket::widen_buffers(&fd)?;
    for (queue, bytes) in [(RECEIVE_QUEUE, &received), (SEND_QUEUE, &sent)] {
        set(&fd, TCP_REPAIR_QUEUE, queue)?;
        let mut left = &bytes[..];
        while !left.is_empty() {
            // One segment each, as large as the kernel's limit for one buffer lets it be.
            let part = &left[..left.len().min(32 << 10)];
            let put = sys::socket::send(&fd, part, &[], &[], 0)
                .during("refill a queue of", "TCP socket")?;
            left = &left[put..];
        }
    }
    set(&fd, TCP_REPAIR_QUEUE, NO_QUEUE)?;
    restore_window(&fd, &stream, stream.inq_seq.wrapping_sub(fin_received))?;
    Ok(Connection {
        fd,
        entry: entry.clone(),
        stream,
        unsent,
    })
}

const FIN_RECEIVED: [u32; 4] = [CLOSE_WAIT, LAST_ACK, CLOSING, TIME_WAIT];
const FIN_SENT: [u32; 5] = [FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING, TIME_WAIT];

/// The options that both sides agreed on while connecting.
fn negotiate(fd: &OwnedFd, stream: &TcpStreamEntry) -> Result<()> {
    let mut agreed = vec![(2_u32, stream.mss_clamp)];
    if stream.opt_mask & OPTION_SACK != 0 {
        agreed.push((4, 0));
    }
    if stream.opt_mask & OPTION_WSCALE != 0 {
        agreed.push((3, stream.snd_wscale | stream.rcv_wscale.unwrap_or(0) << 16));
    }
    if stream.opt_mask & OPTION_TIMESTAMPS != 0 {
        agreed.push((8, 0));
    }
    let bytes: Vec<u8> = agreed
        .iter()
        .flat_map(|(code, value)| [code.to_ne_bytes(), value.to_ne_bytes()].concat())
        .collect();
    sys::socket::set_option(fd, LEVEL, TCP_REPAIR_OPTIONS, &bytes)
        .during("set options of", "TCP socket")?;
    if let Some(timestamp) = stream.timestamp {
        set(fd, TCP_TIMESTAMP, timestamp as i32)?;
    }
    Ok(())
}

/// `next`: the number of the next byte to come, before any FIN.
fn restore_window(fd: &OwnedFd, stream: &TcpStreamEntry, next: u32) -> Result<()> {
    let Some(snd_wl1) = stream.snd_wl1 else {
        return Ok(());
    };
    let rcv_wup = stream.rcv_wup.unwrap_or(0);
    // Both may count a FIN that has not come again yet.
    let before = |number: u32| {
        if next.wrapping_sub(number) as i32 >= 0 {
            number
        } else {
            next
        }
    };
    let words = [
        before(snd_wl1),
        stream.snd_wnd.unwrap_or(0),
        stream.max_window.unwrap_or(0),
        stream.rcv_wnd.unwrap_or(0),
        before(rcv_wup),
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    sys::socket::set_option(fd, LEVEL, TCP_REPAIR_WINDOW, &bytes)
        .during("set window of", "TCP socket")
}

impl Connection {
    /// Brings a connection that is being closed to where it was. All sockets of the tree exist, and
    /// all are silent still.
    pub(crate) fn close_halves(&self) -> Result<()> {
        let state = self.entry.state;
        let peer = Peer { entry: &self.entry };
        let received = self.stream.inq_seq.wrapping_sub(1);
        let fin_sent = u32::from(FIN_SENT.contains(&state));
        let acknowledged = self
            .stream
            .outq_seq
            .wrapping_sub(self.stream.outq_len)
            .wrapping_sub(fin_sent);
        let receive_fin = || peer.send(received, acknowledged, FIN | ACK);
        match state {
            CLOSE_WAIT => receive_fin(),
            FIN_WAIT1 => self.send_fin(),
            FIN_WAIT2 => {
                self.send_fin()?;
                peer.send(self.stream.inq_seq, self.stream.outq_seq, ACK)
            }
            CLOSING => {
                self.send_fin()?;
                receive_fin()
            }
            LAST_ACK => {
                receive_fin()?;
                self.send_fin()
            }
            _ => Ok(()),
        }
    }

    /// In repair mode what goes into the send queue counts as sent.
    fn send_fin(&self) -> Result<()> {
        set(&self.fd, TCP_REPAIR_QUEUE, SEND_QUEUE)?;
        sys::socket::shutdown(&self.fd, libc::SHUT_WR).during("shut down", "TCP socket")?;
        set(&self.fd, TCP_REPAIR_QUEUE, NO_QUEUE)
    }

    /// Lets the connection speak.
    pub(crate) fn go(self) -> Result<OwnedFd> {
        set(&self.fd, TCP_REPAIR, 0)?;
        let mut left = &self.unsent[..];
        while !left.is_empty() {
            let put = sys::socket::send(&self.fd, left, &[], &[], libc::MSG_DONTWAIT)
                .during("refill the queue of", "TCP socket")?;
            left = &left[put..];
        }
        socket::restore_buffers(&self.fd, &self.entry.opts)?;
        super::set_status_flags(&self.fd, self.entry.flags)?;
        inet_socket::restore_reuse(&self.fd, &self.entry)?;
        Ok(self.fd)
    }
}

const FIN: u8 = 1;
const ACK: u8 = 16;

/// The other end, for which a bare segment is made up.
struct Peer<'a> {
    entry: &'a InetSkEntry,
}

impl Peer<'_> {
    fn send(&self, sequence: u32, acknowledged: u32, flags: u8) -> Result<()> {
        let entry = self.entry;
        let mut segment = Vec::new();
        segment.extend_from_slice(&(entry.dst_port as u16).to_be_bytes());
        segment.extend_from_slice(&(entry.src_port as u16).to_be_bytes());
        segment.extend_from_slice(&sequence.to_be_bytes());
        segment.extend_from_slice(&acknowledged.to_be_bytes());
        // Five words of header, the flags, a window of one segment, no checksum yet.
        segment.extend_from_slice(&[5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let (v6, from, to) = self.addresses();
        let length = segment.len() as u16;
        let pseudo = if v6 {
            [
                &from[..],
                &to,
                &u32::from(length).to_be_bytes(),
                &[0, 0, 0, TCP],
            ]
            .concat()
        } else {
            [&from[..], &to, &[0, TCP], &length.to_be_bytes()].concat()
        };
        let sum = checksum(&[&pseudo[..], &segment].concat());
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let header = if v6 {
            [
                &[6 << 4, 0, 0, 0][..],
                &length.to_be_bytes(),
                &[TCP, 64],
                &from,
                &to,
            ]
            .concat()
        } else {
            let total = (20 + length).to_be_bytes();
            // The kernel fills in the header's checksum.
            [
                &[0x45, 0][..],
                &total,
                &[0, 0, 0, 0, 64, TCP, 0, 0],
                &from,
                &to,
            ]
            .concat()
        };
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let raw = sys::socket::create(family, libc::SOCK_RAW, libc::IPPROTO_RAW)
            .during("create", "raw socket")?;
        sys::socket::set_int_option(&raw, libc::SOL_SOCKET, libc::SO_MARK, MARK as i32)
            .during("mark", "raw socket")?;
        let words: Vec<u32> = to
            .chunks_exact(4)
            .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let address = inet_socket::address_of(family as u32, &words, 0, 0);
        let packet = [header, segment].concat();
        sys::socket::send(&raw, &packet, &[], &address, 0)
            .map(drop)
            .during("make up a segment for", "TCP socket")
    }

    /// Whether they are of IPv6, the peer's and ours; IPv4 in IPv6's clothes is IPv4.
    fn addresses(&self) -> (bool, Vec<u8>, Vec<u8>) {
        let bytes = |words: &[u32]| {
            words
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect::<Vec<u8>>()
        };
        let (from, to) = (bytes(&self.entry.dst_addr), bytes(&self.entry.src_addr));
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        if from.len() == 16 && from.starts_with(&mapped) && to.len() == 16 {
            return (false, from[12..].to_vec(), to[12..].to_vec());
        }
        (from.len() == 16, from, to)
    }
}

const TCP: u8 = 6;

/// The Internet checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// The options of level TCP.
pub(crate) fn restore_options(fd: &OwnedFd, entry: &InetSkEntry) -> Result<()> {
    let Some(options) = &entry.tcp_opts else {
        return Ok(());
    };
    for (name, value) in [
        (libc::TCP_CORK, options.cork.map(u32::from)),
        (libc::TCP_NODELAY, options.nodelay.map(u32::from)),
        (libc::TCP_KEEPCNT, options.keepcnt),
        (libc::TCP_KEEPIDLE, options.keepidle),
        (libc::TCP_KEEPINTVL, options.keepintvl),
    ] {
        if let Some(value) = value.filter(|value| *value != 0) {
            set(fd, name, value as i32)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_a_known_header() {
        // The example of RFC 1071's successors: an IPv4 header with its checksum field zeroed.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00,
            0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(checksum(&header), 0xb861);
    }
}
