//! Unix sockets: names, peers, queues.
//!
//! Dump: sock_diag tells names and peers, the descriptor itself the options and the queue.
//! Restore: pairs without names by socketpair(2); an accepted socket by a real connect and accept,
//! so that both ends know the right names; datagram sockets by bind and connect. Queues are filled
//! from the other end once every file exists that may travel in them.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::socket::{self, Packet};
use super::{Descriptor, new_entry, owner};
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::file::{FdTypes, FileEntry};
use crate::image::socket::{FilePermsEntry, UnixSkEntry};

const LISTEN: u32 = 10;
const SIOCOUTQ: libc::c_ulong = 0x5411;
/// In `uflags`: a socket outside the tree, which is there at the restore or not.
const EXTERNAL: u32 = 1;

/// What sock_diag says of one socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Info {
    kind: u32,
    state: u32,
    name: Vec<u8>,
    /// Inode and device of the name's file.
    file: Option<(u32, u32)>,
    peer: u32,
    /// Connections that nobody has accepted yet.
    waiting: Vec<u32>,
    backlog: u32,
    shutdown: u32,
    /// Bytes that the other end has not read.
    sent: u32,
}

/// Asks for all unix sockets of the network namespace, by inode.
pub(crate) fn diagnose() -> Result<HashMap<u32, Info>> {
    const SHOW_NAME_VFS_PEER_ICONS_RQLEN: u32 = 0x1f;
    let mut request = vec![libc::AF_UNIX as u8, 0, 0, 0];
    for word in [
        u32::MAX,
        0,
        SHOW_NAME_VFS_PEER_ICONS_RQLEN,
        u32::MAX,
        u32::MAX,
    ] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    let answers = sys::socket::diagnose(&request).during("list", "unix sockets")?;
    Ok(answers.iter().filter_map(|answer| parse(answer)).collect())
}

fn parse(answer: &[u8]) -> Option<(u32, Info)> {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        bytes
            .get(at..at + 4)
            .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    };
    let inode = word(answer, 4)?;
    let mut info = Info {
        kind: u32::from(*answer.get(1)?),
        state: u32::from(*answer.get(2)?),
        ..Info::default()
    };
    let mut at = 16;
    while at + 4 <= answer.len() {
        let length = u16::from_ne_bytes([answer[at], answer[at + 1]]) as usize;
        let kind = u16::from_ne_bytes([answer[at + 2], answer[at + 3]]);
        let value = answer.get(at + 4..at + length)?;
        match kind {
            0 => info.name = value.to_vec(),
            1 => info.file = Some((word(value, 0)?, word(value, 4)?)),
            2 => info.peer = word(value, 0)?,
            3 => {
                info.waiting = value
                    .chunks_exact(4)
                    .filter_map(|bytes| word(bytes, 0))
                    .collect();
            }
            4 => info.backlog = word(value, 4)?,
            6 => info.shutdown = u32::from(*value.first()?),
            _ => {}
        }
        at += length.max(4).next_multiple_of(4);
    }
    Some((inode, info))
}

/// Dumps a unix socket; [`resolve_peers`] finishes the entry.
pub(crate) fn dump(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    let inode = descriptor.stat.st_ino as u32;
    if dump.unix_sockets.is_none() {
        dump.unix_sockets = Some(diagnose()?);
    }
    let known = dump
        .unix_sockets
        .as_ref()
        .and_then(|sockets| sockets.get(&inode));
    let Some(mut info) = known.cloned() else {
        let cause = "sock_diag does not know it: is it of another network namespace?";
        return Err(Error::because("dump unix socket", &descriptor.link, cause));
    };
    info.sent = sys::socket::int_request(&descriptor.file, SIOCOUTQ).unwrap_or(0) as u32;
    if let Some(sockets) = &mut dump.unix_sockets {
        sockets.insert(inode, info.clone());
    }
    let mut entry = UnixSkEntry {
        id: descriptor.id,
        ino: inode,
        r#type: info.kind,
        state: info.state,
        flags: descriptor.flags,
        backlog: if info.state == LISTEN {
            info.backlog
        } else {
            0
        },
        peer: info.peer,
        fown: owner::dump(&descriptor.file),
        opts: socket::dump_options(&descriptor.file)?,
        name: info.name.clone(),
        shutdown: Some(info.shutdown as i32).filter(|how| *how != 0),
        ns_id: Some(2),
        ..UnixSkEntry::default()
    };
    if info.name.first().is_some_and(|byte| *byte != 0) {
        name_on_disk(descriptor, &info, &mut entry)?;
    }
    if info.state != LISTEN {
        let stream = info.kind == libc::SOCK_STREAM as u32;
        socket::dump_queue(&descriptor.file, descriptor.id, stream, dump)?;
    }
    let mut file = new_entry(FdTypes::Unixsk, descriptor.id);
    file.usk = Some(entry);
    Ok(file)
}

fn text_of(name: &[u8]) -> String {
    String::from_utf8_lossy(name)
        .trim_end_matches('\0')
        .to_owned()
}

/// Where the name lies, whose it is, and whether it still leads here.
fn name_on_disk(descriptor: &Descriptor, info: &Info, entry: &mut UnixSkEntry) -> Result<()> {
    let name = text_of(&info.name);
    let file = sys::socket::unix_file(&descriptor.file);
    let Ok(file) = file else {
        entry.deleted = Some(true);
        return Ok(());
    };
    let stat = rustix::fs::fstat(&file).during("stat", &name)?;
    entry.file_perms = Some(FilePermsEntry {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
    });
    let link = std::fs::read_link(format!(
        "{}/self/fd/{}",
        crate::procfs::root(),
        file.as_raw_fd()
    ))
    .during("read link", &name)?;
    let link = link
        .to_string_lossy()
        .trim_end_matches(" (deleted)")
        .to_owned();
    let mut path = name.clone();
    if !name.starts_with('/') {
        let directory = link
            .strip_suffix(name.trim_start_matches("./"))
            .unwrap_or("/");
        entry.name_dir = Some(directory.to_owned());
        path = format!("{directory}/{name}");
    }
    let leads_here = rustix::fs::lstat(&path)
        .is_ok_and(|found| (found.st_dev, found.st_ino) == (stat.st_dev, stat.st_ino));
    entry.deleted = (!leads_here).then_some(true);
    Ok(())
}

/// Says for each peer whether it is in the dump, waits to be accepted, is gone, or is outside.
pub(crate) fn resolve_peers(dump: &mut Dump<'_>) -> Result<()> {
    let Some(known) = dump.unix_sockets.take() else {
        return Ok(());
    };
    let sockets = dump
        .files
        .entries
        .iter()
        .filter_map(|entry| entry.usk.as_ref());
    let dumped: HashSet<u32> = sockets.clone().map(|socket| socket.ino).collect();
    let mut accepting = HashMap::new();
    for listener in sockets.filter(|socket| socket.state == LISTEN) {
        let info = known.get(&listener.ino);
        for waiting in info.into_iter().flat_map(|info| &info.waiting) {
            if !dump.options.skip_in_flight {
                check_waiting(listener, known.get(waiting), dumped.contains(waiting))?;
            }
            // The icon's number is that of the client.
            accepting.insert(*waiting, listener.ino);
        }
    }
    let mut outside = Vec::new();
    for entry in dump
        .files
        .entries
        .iter_mut()
        .filter_map(|entry| entry.usk.as_mut())
    {
        // The other end of a connection that waits has no inode yet.
        if let Some(listener) = accepting.get(&entry.ino) {
            entry.peer = if dump.options.skip_in_flight {
                0
            } else {
                *listener
            };
            continue;
        }
        if entry.peer == 0 || dumped.contains(&entry.peer) {
            continue;
        }
        let Some(peer) = known.get(&entry.peer) else {
            entry.peer = 0;
            continue;
        };
        let reachable = entry.r#type == libc::SOCK_DGRAM as u32 && !peer.name.is_empty();
        if !(dump.options.external_unix_sockets && reachable) {
            let object = format!("unix socket {} {}", entry.ino, readable(&entry.name));
            let cause = "its peer is outside the tree";
            return Err(Error::because("dump", object, cause));
        }
        outside.push((entry.peer, peer.clone()));
    }
    outside.sort_by_key(|(inode, _)| *inode);
    outside.dedup_by_key(|(inode, _)| *inode);
    for (inode, info) in outside {
        let id = dump.files.new_id();
        let mut entry = new_entry(FdTypes::Unixsk, id);
        entry.usk = Some(external(id, inode, &info));
        dump.files.entries.push(entry);
    }
    Ok(())
}

/// What waits in a connection that nobody has accepted can be read by nobody else.
fn check_waiting(listener: &UnixSkEntry, client: Option<&Info>, dumped: bool) -> Result<()> {
    let reason = match client {
        Some(info) if dumped && info.sent == 0 => return Ok(()),
        Some(_) if dumped => "a connection that it has not accepted holds data",
        _ => "a connection that it has not accepted has its other end outside the tree",
    };
    let object = format!("unix socket {} {}", listener.ino, readable(&listener.name));
    let cause = format!("{reason}; let it accept that first, or drop it (--skip-in-flight)");
    Err(Error::because("dump", object, cause))
}

fn external(id: u32, inode: u32, info: &Info) -> UnixSkEntry {
    UnixSkEntry {
        id,
        ino: inode,
        r#type: info.kind,
        state: info.state,
        name: info.name.clone(),
        uflags: EXTERNAL,
        ..UnixSkEntry::default()
    }
}

fn readable(name: &[u8]) -> String {
    text_of(name).replace('\0', "@")
}

/// The unix sockets of a restore.
#[derive(Debug)]
pub(crate) struct UnixSockets<'a> {
    entries: Vec<&'a UnixSkEntry>,
    by_inode: HashMap<u32, &'a UnixSkEntry>,
    made: HashMap<u32, OwnedFd>,
    /// Sockets that stand for a peer that was gone; closed once the queues are full.
    stand_ins: HashMap<u32, OwnedFd>,
}

impl<'a> UnixSockets<'a> {
    pub(crate) fn new(entries: impl Iterator<Item = &'a UnixSkEntry>) -> Self {
        let all: Vec<&UnixSkEntry> = entries.collect();
        let by_inode = all.iter().map(|entry| (entry.ino, *entry)).collect();
        let own = |entry: &&UnixSkEntry| entry.uflags & EXTERNAL == 0;
        let mut entries: Vec<&UnixSkEntry> = all.into_iter().filter(own).collect();
        // A name that is gone may have been taken again: the later socket keeps the file.
        entries.sort_by_key(|entry| (entry.deleted != Some(true), entry.id));
        Self {
            entries,
            by_inode,
            made: HashMap::new(),
            stand_ins: HashMap::new(),
        }
    }

    /// Makes all sockets with their connections; returns them by file id.
    pub(crate) fn create_all(&mut self) -> Result<()> {
        let entries = self.entries.clone();
        for entry in entries.iter().filter(|entry| entry.state == LISTEN) {
            let fd = create(entry)?;
            bind(entry, &fd)?;
            sys::socket::listen(&fd, (entry.backlog as i32).max(1))
                .during("listen on", text_of(&entry.name))?;
            self.made.insert(entry.ino, fd);
        }
        for entry in entries.iter().filter(|entry| is_alone(entry)) {
            let fd = if is_datagram(entry) && entry.name.is_empty() && entry.peer == 0 {
                // Whoever sent what lies in its queue can only have been the other end of a pair.
                let about = format!("unix socket {}", entry.ino);
                let (own, other) = sys::socket::pair(libc::AF_UNIX, entry.r#type as i32, 0)
                    .during("create", about)?;
                self.stand_ins.insert(entry.ino, other);
                own
            } else {
                create(entry)?
            };
            bind(entry, &fd)?;
            self.made.insert(entry.ino, fd);
        }
        // Connections that nobody has accepted come last, or the wrong ones would be.
        let waits = |entry: &&UnixSkEntry| self_waits(&self.by_inode, entry);
        let (waiting, connected): (Vec<_>, Vec<_>) = entries.iter().copied().partition(waits);
        for entry in connected.into_iter().chain(waiting) {
            if !self.made.contains_key(&entry.ino) {
                self.connect_stream(entry)?;
            }
        }
        for entry in entries
            .iter()
            .filter(|entry| is_datagram(entry) && entry.peer != 0)
        {
            self.connect_datagram(entry)?;
        }
        for entry in &entries {
            socket::restore_options(&self.made[&entry.ino], &entry.opts)?;
            rename_deleted(entry, &self.made[&entry.ino])?;
        }
        Ok(())
    }

    fn connect_stream(&mut self, entry: &UnixSkEntry) -> Result<()> {
        match self.by_inode.get(&entry.peer).copied() {
            Some(listener) if listener.state == LISTEN => {
                // Nobody had accepted it yet.
                let fd = create(entry)?;
                bind(entry, &fd)?;
                self.connect(&fd, listener)?;
                self.made.insert(entry.ino, fd);
            }
            Some(peer) if !entry.name.is_empty() || !peer.name.is_empty() => {
                let (server, client) = if entry.name.is_empty() {
                    (peer, entry)
                } else {
                    (entry, peer)
                };
                let (server, client) = match self.listener_of(server) {
                    None if self.listener_of(client).is_some() => (client, server),
                    _ => (server, client),
                };
                self.accept(server, client)?;
            }
            peer => {
                let about = format!("unix socket {}", entry.ino);
                let (own, other) = sys::socket::pair(libc::AF_UNIX, entry.r#type as i32, 0)
                    .during("create", about)?;
                self.made.insert(entry.ino, own);
                match peer {
                    Some(peer) => self.made.insert(peer.ino, other),
                    None => self.stand_ins.insert(entry.ino, other),
                };
            }
        }
        Ok(())
    }

    /// Connects to a socket of this restore, or to one outside.
    fn connect(&self, socket: &OwnedFd, target: &UnixSkEntry) -> Result<()> {
        connect(socket, self.made.get(&target.ino), target)
    }

    fn listener_of(&self, server: &UnixSkEntry) -> Option<&'a UnixSkEntry> {
        let listeners = self.entries.iter().filter(|entry| entry.state == LISTEN);
        listeners
            .copied()
            .find(|entry| !entry.name.is_empty() && entry.name == server.name)
    }

    /// `server` was accepted from a listener of its name, which may be gone.
    fn accept(&mut self, server: &UnixSkEntry, client: &UnixSkEntry) -> Result<()> {
        let fd = create(client)?;
        bind(client, &fd)?;
        let about = || format!("unix socket {}", server.ino);
        let accepted = match self.listener_of(server) {
            Some(listener) => {
                self.connect(&fd, listener)?;
                sys::socket::accept(&self.made[&listener.ino]).during("accept", about())?
            }
            None => {
                let temporary = create(server)?;
                bind(server, &temporary)?;
                sys::socket::listen(&temporary, 1).during("listen on", about())?;
                connect(&fd, Some(&temporary), server)?;
                sys::socket::accept(&temporary).during("accept", about())?
            }
        };
        self.made.insert(client.ino, fd);
        self.made.insert(server.ino, accepted);
        Ok(())
    }

    fn connect_datagram(&mut self, entry: &UnixSkEntry) -> Result<()> {
        let Some(peer) = self.by_inode.get(&entry.peer).copied() else {
            return Ok(());
        };
        if !peer.name.is_empty() {
            return self.connect(&self.made[&entry.ino], peer);
        }
        // Only a pair can be connected without names.
        if entry.name.is_empty() && peer.peer == entry.ino {
            let about = format!("unix socket {}", entry.ino);
            let (own, other) =
                sys::socket::pair(libc::AF_UNIX, entry.r#type as i32, 0).during("create", about)?;
            if self.made.contains_key(&peer.ino) && entry.ino < peer.ino {
                self.made.insert(entry.ino, own);
                self.made.insert(peer.ino, other);
            }
            return Ok(());
        }
        // The peer gets a name for as long as the connection takes.
        let temporary = format!("\0floe.{}.{}", std::process::id(), peer.ino);
        let address = address_of(temporary.as_bytes());
        let target = &self.made[&peer.ino];
        sys::socket::bind(target, &address).during("name", "unix socket")?;
        sys::socket::connect(&self.made[&entry.ino], &address).during("connect", "unix socket")
    }

    /// The socket that sends into the queue of `entry`, and the address to send to.
    fn sender(&self, entry: &UnixSkEntry) -> Option<(&OwnedFd, Vec<u8>)> {
        if let Some(stand_in) = self.stand_ins.get(&entry.ino) {
            return Some((stand_in, Vec::new()));
        }
        let peer = self.by_inode.get(&entry.peer)?;
        (peer.peer == entry.ino).then(|| (&self.made[&peer.ino], Vec::new()))
    }

    /// Fills the queues. `number` tells where a file that travels along is open.
    pub(crate) fn refill(
        &self,
        packets: &[Packet],
        mut number: impl FnMut(u32) -> Result<i32>,
    ) -> Result<()> {
        for packet in packets {
            let Some(entry) = self.entries.iter().find(|entry| entry.id == packet.socket) else {
                continue;
            };
            let mut rights = Vec::new();
            for id in &packet.rights {
                rights.push(number(*id)?);
            }
            match self.sender(entry) {
                Some((sender, address)) => {
                    socket::refill(sender, &packet.bytes, &rights, &address)?;
                }
                None => self.refill_from_anywhere(entry, &packet.bytes, &rights)?,
            }
        }
        Ok(())
    }

    /// The sender of a datagram has gone or is connected to somebody else.
    fn refill_from_anywhere(
        &self,
        entry: &UnixSkEntry,
        bytes: &[u8],
        rights: &[i32],
    ) -> Result<()> {
        let others = self.entries.iter().filter(|other| other.peer == entry.ino);
        if let Some(sender) = others.map(|other| &self.made[&other.ino]).next() {
            return socket::refill(sender, bytes, rights, &[]);
        }
        let temporary = create(entry)?;
        if entry.name.first() == Some(&0) {
            return socket::refill(&temporary, bytes, rights, &address_of(&entry.name));
        }
        // The name may be gone; the file that it was leads there all the same.
        let file = sys::socket::unix_file(&self.made[&entry.ino])
            .during("find the name of", "unix socket")?;
        let path = format!("{}/self/fd/{}", crate::procfs::root(), file.as_raw_fd());
        socket::refill(&temporary, bytes, rights, &address_of(path.as_bytes()))
    }

    /// After the queues: what was shut down, non-blocking mode, and the peers that are gone.
    pub(crate) fn finish(mut self) -> Result<HashMap<u32, OwnedFd>> {
        for entry in &self.entries {
            let fd = &self.made[&entry.ino];
            let how = entry.shutdown.unwrap_or(0);
            if (1..=3).contains(&how) {
                sys::socket::shutdown(fd, how - 1).during("shut down unix socket", entry.ino)?;
            }
        }
        let mut by_id = HashMap::new();
        for entry in &self.entries {
            if let Some(fd) = self.made.remove(&entry.ino) {
                super::set_status_flags(&fd, entry.flags)?;
                by_id.insert(entry.id, fd);
            }
        }
        Ok(by_id)
    }

    pub(crate) fn descriptor(&self, id: u32) -> Option<&OwnedFd> {
        let entry = self.entries.iter().find(|entry| entry.id == id)?;
        self.made.get(&entry.ino)
    }
}

/// Whether nobody has accepted its connection yet.
fn self_waits(by_inode: &HashMap<u32, &UnixSkEntry>, entry: &UnixSkEntry) -> bool {
    by_inode
        .get(&entry.peer)
        .is_some_and(|peer| peer.state == LISTEN)
}

fn is_datagram(entry: &UnixSkEntry) -> bool {
    entry.r#type == libc::SOCK_DGRAM as u32
}

/// Made without a peer: datagram sockets are connected afterwards, closed ones never.
fn is_alone(entry: &UnixSkEntry) -> bool {
    const CLOSED: u32 = 7;
    entry.state == CLOSED || is_datagram(entry)
}

fn create(entry: &UnixSkEntry) -> Result<OwnedFd> {
    sys::socket::create(libc::AF_UNIX, entry.r#type as i32, 0)
        .during("create unix socket", entry.ino)
}

fn address_of(name: &[u8]) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(name);
    address
}

/// Runs `work` in the directory that a relative name starts from.
fn in_directory<T>(entry: &UnixSkEntry, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(directory) = &entry.name_dir else {
        return work();
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let here = rustix::fs::open(".", flags, Mode::empty()).during("open", ".")?;
    rustix::process::chdir(directory.as_str()).during("enter", directory)?;
    let result = work();
    rustix::process::fchdir(&here).during("enter", "the former directory")?;
    result
}

/// `made`: the target, whose name may be gone or lead to another socket by now.
fn connect(socket: &OwnedFd, made: Option<&OwnedFd>, target: &UnixSkEntry) -> Result<()> {
    let about = readable(&target.name);
    let file = made.and_then(|made| sys::socket::unix_file(made).ok());
    if let Some(file) = file {
        let path = format!("{}/self/fd/{}", crate::procfs::root(), file.as_raw_fd());
        return sys::socket::connect(socket, &address_of(path.as_bytes()))
            .during("connect to", about);
    }
    in_directory(target, || {
        sys::socket::connect(socket, &address_of(&target.name)).during("connect to", about)
    })
}

/// Gives a socket its name; a file of that name is a leftover of the dumped socket.
fn bind(entry: &UnixSkEntry, socket: &OwnedFd) -> Result<()> {
    if entry.name.is_empty() {
        return Ok(());
    }
    let text = text_of(&entry.name);
    let about = text.replace('\0', "@");
    if entry.name[0] == 0 {
        return sys::socket::bind(socket, &address_of(&entry.name)).during("bind", about);
    }
    in_directory(entry, || {
        let made = make_parents(&text)?;
        set_aside(&text)?;
        sys::socket::bind(socket, &address_of(&entry.name)).during("bind", &about)?;
        if let Some(perms) = &entry.file_perms {
            let mode = Mode::from_raw_mode(perms.mode & 0o7777);
            rustix::fs::chmod(&text, mode).during("change mode of", &about)?;
            let (user, group) = (
                rustix::fs::Uid::from_raw(perms.uid),
                rustix::fs::Gid::from_raw(perms.gid),
            );
            rustix::fs::chownat(CWD, &text, Some(user), Some(group), AtFlags::empty())
                .during("change owner of", &about)?;
        }
        if !made.is_empty() {
            let _ = std::fs::remove_file(&text);
        }
        for directory in made.iter().rev() {
            let _ = std::fs::remove_dir(directory);
        }
        Ok(())
    })
}

/// Directories that were removed after the bind; they go again at once.
fn make_parents(path: &str) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let mut parent = path;
    while let Some((head, _)) = parent.rsplit_once('/') {
        if head.is_empty() || std::fs::symlink_metadata(head).is_ok() {
            break;
        }
        missing.push(head.to_owned());
        parent = head;
    }
    missing.reverse();
    for directory in &missing {
        std::fs::create_dir(directory).during("create directory", directory)?;
    }
    Ok(missing)
}

fn aside(path: &str) -> String {
    format!("{path}.floe-aside")
}

/// A socket file at the wanted place is removed; anything else is moved away for the moment.
fn set_aside(path: &str) -> Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if found.file_type().is_socket() {
        return std::fs::remove_file(path).during("remove", path);
    }
    std::fs::rename(path, aside(path)).during("move aside", path)
}

/// Takes the name away again if it was gone, and puts back what stood in its place.
fn rename_deleted(entry: &UnixSkEntry, socket: &OwnedFd) -> Result<()> {
    if entry.name.first().is_none_or(|byte| *byte == 0) {
        return Ok(());
    }
    let text = text_of(&entry.name);
    in_directory(entry, || {
        let own = sys::socket::unix_file(socket).and_then(rustix::fs::fstat);
        let there = rustix::fs::lstat(&text);
        let leads_here = matches!((own, there), (Ok(own), Ok(there)) if own.st_ino == there.st_ino);
        if entry.deleted == Some(true) && leads_here {
            let _ = std::fs::remove_file(&text);
        }
        if std::fs::symlink_metadata(aside(&text)).is_ok() {
            std::fs::rename(aside(&text), &text).during("move back", &text)?;
        }
        Ok(())
    })
}
