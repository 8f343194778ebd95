//! What all sockets have in common: options, and the messages in a queue.

use std::os::fd::{AsFd, OwnedFd};

use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::socket::{ScmEntry, SkOptsEntry, SkPacketEntry};
use crate::image::{Directory, Kind, Writer};

const SOL: i32 = libc::SOL_SOCKET;
const MAX_MESSAGE: usize = 4 << 20;

/// Reads the options of `SOL_SOCKET`.
pub(crate) fn dump_options(socket: &OwnedFd) -> Result<SkOptsEntry> {
    let get = |name: i32| sys::socket::int_option(socket, SOL, name).unwrap_or(0) as u32;
    let flag = |name: i32| Some(get(name) != 0);
    let timeout = |name: i32| -> Result<(u64, u64)> {
        let mut bytes = [0; 16];
        sys::socket::option(socket, SOL, name, &mut bytes).during("read a timeout of", "socket")?;
        let (seconds, micros) = bytes.split_at(8);
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Ok((word(seconds), word(micros)))
    };
    let (so_snd_tmo_sec, so_snd_tmo_usec) = timeout(libc::SO_SNDTIMEO)?;
    let (so_rcv_tmo_sec, so_rcv_tmo_usec) = timeout(libc::SO_RCVTIMEO)?;
    let some = |value: u32| Some(value).filter(|value| *value != 0);
    Ok(SkOptsEntry {
        so_sndbuf: get(libc::SO_SNDBUF),
        so_rcvbuf: get(libc::SO_RCVBUF),
        so_snd_tmo_sec,
        so_snd_tmo_usec,
        so_rcv_tmo_sec,
        so_rcv_tmo_usec,
        reuseaddr: flag(libc::SO_REUSEADDR),
        so_priority: Some(get(libc::SO_PRIORITY)),
        so_rcvlowat: Some(get(libc::SO_RCVLOWAT)),
        so_mark: Some(get(libc::SO_MARK)),
        so_passcred: flag(libc::SO_PASSCRED),
        so_passsec: flag(libc::SO_PASSSEC),
        so_dontroute: flag(libc::SO_DONTROUTE),
        so_no_check: flag(libc::SO_NO_CHECK),
        so_reuseport: flag(libc::SO_REUSEPORT),
        so_broadcast: flag(libc::SO_BROADCAST),
        so_keepalive: flag(libc::SO_KEEPALIVE),
        so_oobinline: some(get(libc::SO_OOBINLINE)),
        so_linger: linger(socket),
        so_bound_dev: bound_device(socket),
        so_filter: filter(socket),
        so_buf_lock: Some(get(SO_BUF_LOCK)),
        ..SkOptsEntry::default()
    })
}

/// Since Linux 5.14.
const SO_BUF_LOCK: i32 = 72;
const SO_GET_FILTER: i32 = libc::SO_ATTACH_FILTER;

fn linger(socket: &OwnedFd) -> Option<u32> {
    let mut bytes = [0; 8];
    sys::socket::option(socket, SOL, libc::SO_LINGER, &mut bytes).ok()?;
    let [a, b, c, d, seconds @ ..] = bytes;
    (u32::from_ne_bytes([a, b, c, d]) != 0).then_some(u32::from_ne_bytes(seconds))
}

fn bound_device(socket: &OwnedFd) -> Option<String> {
    let mut name = [0; 16];
    let length = sys::socket::option(socket, SOL, libc::SO_BINDTODEVICE, &mut name).ok()?;
    let text = String::from_utf8_lossy(&name[..length])
        .trim_end_matches('\0')
        .to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// The classic BPF program that is attached, one instruction per word.
fn filter(socket: &OwnedFd) -> Vec<u64> {
    // This option's length counts instructions; asked with none it tells how many there are.
    let Ok(count @ 1..) = sys::socket::option(socket, SOL, SO_GET_FILTER, &mut []) else {
        return Vec::new();
    };
    let mut program = vec![0; count * 8];
    match sys::socket::option_of_items(socket, SOL, SO_GET_FILTER, &mut program, 8) {
        Ok(_) => program
            .chunks_exact(8)
            .map(|bytes| {
                let [c0, c1, jt, jf, k0, k1, k2, k3] =
                    [0, 1, 2, 3, 4, 5, 6, 7].map(|at| u64::from(bytes[at]));
                let code = c0 | c1 << 8;
                let k = k0 | k1 << 8 | k2 << 16 | k3 << 24;
                code << 48 | jt << 40 | jf << 32 | k
            })
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// Sets the options; those that a bind needs are set before by its caller.
pub(crate) fn restore_options(socket: &OwnedFd, options: &SkOptsEntry) -> Result<()> {
    let set = |name: i32, value: u32, what: &str| {
        sys::socket::set_int_option(socket, SOL, name, value as i32)
            .during("set socket option", what)
    };
    restore_buffers(socket, options)?;
    for (name, value, what) in [
        (libc::SO_PRIORITY, options.so_priority, "SO_PRIORITY"),
        (libc::SO_RCVLOWAT, options.so_rcvlowat, "SO_RCVLOWAT"),
        (libc::SO_MARK, options.so_mark, "SO_MARK"),
        (libc::SO_OOBINLINE, options.so_oobinline, "SO_OOBINLINE"),
    ] {
        if let Some(value) = value.filter(|value| *value != 0) {
            set(name, value, what)?;
        }
    }
    for (name, value, what) in [
        (libc::SO_PASSCRED, options.so_passcred, "SO_PASSCRED"),
        (libc::SO_PASSSEC, options.so_passsec, "SO_PASSSEC"),
        (libc::SO_DONTROUTE, options.so_dontroute, "SO_DONTROUTE"),
        (libc::SO_NO_CHECK, options.so_no_check, "SO_NO_CHECK"),
        (libc::SO_BROADCAST, options.so_broadcast, "SO_BROADCAST"),
        (libc::SO_KEEPALIVE, options.so_keepalive, "SO_KEEPALIVE"),
    ] {
        if value == Some(true) {
            set(name, 1, what)?;
        }
    }
    if let Some(seconds) = options.so_linger {
        let value = [1_u32.to_ne_bytes(), seconds.to_ne_bytes()].concat();
        sys::socket::set_option(socket, SOL, libc::SO_LINGER, &value)
            .during("set socket option", "SO_LINGER")?;
    }
    for (name, seconds, micros) in [
        (
            libc::SO_SNDTIMEO,
            options.so_snd_tmo_sec,
            options.so_snd_tmo_usec,
        ),
        (
            libc::SO_RCVTIMEO,
            options.so_rcv_tmo_sec,
            options.so_rcv_tmo_usec,
        ),
    ] {
        if (seconds, micros) != (0, 0) {
            let value = [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat();
            sys::socket::set_option(socket, SOL, name, &value)
                .during("set socket option", "timeout")?;
        }
    }
    if let Some(device) = &options.so_bound_dev {
        sys::socket::set_option(socket, SOL, libc::SO_BINDTODEVICE, device.as_bytes())
            .during("bind socket to device", device)?;
    }
    attach_filter(socket, &options.so_filter)
}

/// Makes room for any queue, until [`restore_buffers`].
pub(crate) fn widen_buffers(socket: &OwnedFd) -> Result<()> {
    const PLENTY: i32 = 256 << 20;
    for name in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
        sys::socket::set_int_option(socket, SOL, name, PLENTY)
            .during("widen the buffers of", "socket")?;
    }
    Ok(())
}

/// The sizes of the buffers.
pub(crate) fn restore_buffers(socket: &OwnedFd, options: &SkOptsEntry) -> Result<()> {
    // The kernel doubles what it is given.
    for (name, value) in [
        (libc::SO_SNDBUFFORCE, options.so_sndbuf),
        (libc::SO_RCVBUFFORCE, options.so_rcvbuf),
    ] {
        sys::socket::set_int_option(socket, SOL, name, (value / 2) as i32)
            .during("set the buffers of", "socket")?;
    }
    // Without it (before Linux 5.14) buffers that grew by themselves grow no more.
    if let Some(lock) = options.so_buf_lock {
        let _ = sys::socket::set_int_option(socket, SOL, SO_BUF_LOCK, lock as i32);
    }
    Ok(())
}

fn attach_filter(socket: &OwnedFd, program: &[u64]) -> Result<()> {
    if program.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    for word in program {
        bytes.extend_from_slice(&((word >> 48) as u16).to_ne_bytes());
        bytes.extend_from_slice(&[(word >> 40) as u8, (word >> 32) as u8]);
        bytes.extend_from_slice(&(*word as u32).to_ne_bytes());
    }
    sys::socket::attach_filter(socket, &bytes).during("attach filter to", "socket")
}

/// The queues of a dump.
#[derive(Debug)]
pub(crate) struct Queues(Writer);

impl Default for Queues {
    fn default() -> Self {
        Self(Writer::new("sk-queues.img", Kind::SkQueues))
    }
}

impl Queues {
    pub(crate) fn save(self, images: &Directory) -> Result<()> {
        self.0.save(images)
    }
}

/// Copies all messages that wait in a socket, without taking them out.
///
/// A stream glues what was sent before to the bytes that files travel with, and no peek tells where
/// they begin: after a restore the files come with the first of the glued bytes.
pub(crate) fn dump_queue(
    socket: &OwnedFd,
    id: u32,
    stream: bool,
    dump: &mut Dump<'_>,
) -> Result<()> {
    let before =
        sys::socket::int_option(socket, SOL, libc::SO_PEEK_OFF).during("peek into", "socket")?;
    let set = |value| {
        sys::socket::set_int_option(socket, SOL, libc::SO_PEEK_OFF, value)
            .during("peek into", "socket")
    };
    set(0)?;
    let result = peek_all(socket, id, stream, dump);
    set(before)?;
    result
}

fn peek_all(socket: &OwnedFd, id: u32, stream: bool, dump: &mut Dump<'_>) -> Result<()> {
    let mut buffer = vec![0; if stream { 64 << 10 } else { 256 << 10 }];
    loop {
        match sys::socket::receive(socket, &mut buffer, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
            Ok(message) if message.length == 0 && message.rights.is_empty() => return Ok(()),
            Ok(message) => {
                if message.truncated {
                    return Err(Error::because(
                        "peek into",
                        "socket",
                        "a message is too long",
                    ));
                }
                let mut rights = Vec::new();
                for file in message.rights {
                    rights.push(super::dump_in_flight(file, dump)?);
                }
                let scm = if rights.is_empty() {
                    Vec::new()
                } else {
                    vec![ScmEntry {
                        r#type: libc::SCM_RIGHTS as u32,
                        rights,
                    }]
                };
                let entry = SkPacketEntry {
                    id_for: id,
                    length: message.length as u32,
                    scm,
                };
                dump.queues.0.entry(&entry);
                dump.queues.0.raw(&buffer[..message.length]);
            }
            // EINVAL, ENOTCONN: one that was never connected.
            Err(sys::Errno::AGAIN | sys::Errno::INVAL | sys::Errno::NOTCONN) => return Ok(()),
            Err(errno) => return Err(Error::kernel("peek into", "socket", errno)),
        }
    }
}

/// A message of the images.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) socket: u32,
    pub(crate) bytes: Vec<u8>,
    /// Ids of the files that travel along.
    pub(crate) rights: Vec<u32>,
}

/// All messages of the images, in order.
pub(crate) fn load_queues(images: &Directory) -> Result<Vec<Packet>> {
    let mut packets = Vec::new();
    let Some(mut reader) = images.reader("sk-queues.img", Kind::SkQueues)? else {
        return Ok(packets);
    };
    while let Some(entry) = reader.entry::<SkPacketEntry>()? {
        if entry.length as usize > MAX_MESSAGE {
            return Err(Error::because(
                "read image",
                "sk-queues.img",
                "a message is too long",
            ));
        }
        let bytes = reader.raw(entry.length as usize)?.to_vec();
        let rights = entry
            .scm
            .iter()
            .flat_map(|scm| scm.rights.iter().copied())
            .collect();
        packets.push(Packet {
            socket: entry.id_for,
            bytes,
            rights,
        });
    }
    Ok(packets)
}

/// Sends a message so that it waits in the queue of whoever is at the other end.
pub(crate) fn refill(
    sender: impl AsFd,
    bytes: &[u8],
    rights: &[i32],
    address: &[u8],
) -> Result<()> {
    let mut left = bytes;
    let mut rights = rights;
    loop {
        let sent = sys::socket::send(&sender, left, rights, address, libc::MSG_DONTWAIT)
            .during("refill the queue of", "socket")?;
        left = &left[sent..];
        rights = &[];
        if left.is_empty() {
            return Ok(());
        }
    }
}
