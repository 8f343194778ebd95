//! Terminals: pty masters and slaves, and `/dev/tty`.
//!
//! A pty gets its old number by opening masters until it comes. Which session it controls is set
//! from inside the session's leader, through the table of descriptors that it shares with us.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{Descriptor, new_entry, owner, regular};
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::Directory;
use crate::image::file::{FdTypes, FileEntry};
use crate::image::tty::{
    TermiosEntry, TtyFileEntry, TtyInfoEntry, TtyPtyEntry, TtyType, WinsizeEntry,
};
use crate::inject::Injector;
use crate::procfs::Stat;

const TTY_MAJOR: u32 = 5;
const PTY_SLAVE_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;
const MAX_PTYS: u32 = 4096;
const TIOCSCTTY: u64 = 0x540e;
const TIOCSPGRP: u64 = 0x5410;

/// What a terminal device is, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Master,
    Slave(u32),
    /// `/dev/tty`: the process's own terminal.
    Controlling,
}

fn role(rdev: u64) -> Option<Role> {
    match (rustix::fs::major(rdev), rustix::fs::minor(rdev)) {
        (TTY_MAJOR, 0) => Some(Role::Controlling),
        (TTY_MAJOR, 2) => Some(Role::Master),
        (major, minor) if PTY_SLAVE_MAJORS.contains(&major) => {
            Some(Role::Slave((major - 136) * 256 + minor))
        }
        _ => None,
    }
}

/// Whether this device is a terminal that is dumped here.
pub(crate) fn is_terminal(rdev: u64) -> bool {
    role(rdev).is_some()
}

pub(crate) fn dump(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    let id = descriptor.id;
    let Some(role) = role(descriptor.stat.st_rdev) else {
        return Err(Error::because(
            "dump terminal",
            &descriptor.link,
            "unknown kind",
        ));
    };
    let mut path = regular::dump_by_path(descriptor, dump)?;
    let regf_id = dump.files.new_id();
    path.id = regf_id;
    if let Some(reg) = &mut path.reg {
        reg.id = regf_id;
    }
    dump.remaps.retain(|remap| remap.orig_id != id);
    dump.files.entries.push(path);
    let tty_info_id = dump_info(descriptor, role, dump)?;
    let mut entry = new_entry(FdTypes::Tty, id);
    entry.tty = Some(TtyFileEntry {
        id,
        tty_info_id,
        flags: descriptor.flags,
        fown: owner::dump(&descriptor.file),
        regf_id: Some(regf_id),
    });
    Ok(entry)
}

fn dump_info(descriptor: &Descriptor, role: Role, dump: &mut Dump<'_>) -> Result<u32> {
    let file = &descriptor.file;
    let (kind, index) = match role {
        Role::Master => {
            let index = sys::terminal_state::pty_number(file)
                .during("ask for the number of", &descriptor.link)?;
            (TtyType::Pty, Some(index))
        }
        Role::Slave(index) => (TtyType::Pty, Some(index)),
        Role::Controlling => (TtyType::Ctty, None),
    };
    let stat = &descriptor.stat;
    let rdev = rustix::fs::major(stat.st_rdev) << 8 | rustix::fs::minor(stat.st_rdev);
    let pty = index.map(|index| TtyPtyEntry { index });
    let known = |info: &&TtyInfoEntry| info.rdev == rdev && info.pty == pty;
    if let Some(info) = dump.terminals.iter().find(known) {
        return Ok(info.id);
    }
    let master = role == Role::Master;
    let (sid, pgrp) = index.map_or((0, 0), |index| session_of(index, dump));
    let window = sys::terminal_state::window(file).ok();
    let id = dump.terminals.len() as u32 + 1;
    if let (true, Some(index)) = (master, index) {
        dump.masters.push((index, super::duplicate(file, "pty")?));
    }
    dump.terminals.push(TtyInfoEntry {
        id,
        r#type: kind as i32,
        locked: master && sys::terminal_state::locked(file).unwrap_or(false),
        exclusive: sys::terminal_state::exclusive(file).unwrap_or(false),
        packet_mode: master && sys::terminal_state::packet_mode(file).unwrap_or(false),
        sid,
        pgrp,
        rdev,
        termios: sys::terminal_state::attributes(file)
            .ok()
            .map(|bytes| termios(&bytes)),
        termios_locked: None,
        winsize: window.map(|[ws_row, ws_col, ws_xpixel, ws_ypixel]| WinsizeEntry {
            ws_row: ws_row.into(),
            ws_col: ws_col.into(),
            ws_xpixel: ws_xpixel.into(),
            ws_ypixel: ws_ypixel.into(),
        }),
        pty,
        dev: None,
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
    });
    Ok(id)
}

/// Session and foreground group of a pty, as its processes know them.
fn session_of(index: u32, dump: &Dump<'_>) -> (u32, u32) {
    let number = (((136 + index / 256) << 8) | (index % 256)) as i32;
    let with = dump.stats.iter().find(|stat| stat.tty == number);
    with.map_or((0, 0), |stat: &Stat| {
        (stat.sid as u32, stat.tty_group.max(0) as u32)
    })
}

fn termios(bytes: &[u8; sys::terminal_state::ATTRIBUTES_SIZE]) -> TermiosEntry {
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    TermiosEntry {
        c_iflag: word(0),
        c_oflag: word(4),
        c_cflag: word(8),
        c_lflag: word(12),
        c_line: bytes[16].into(),
        c_cc: bytes[17..36].iter().map(|byte| u32::from(*byte)).collect(),
        c_ispeed: word(36),
        c_ospeed: word(40),
    }
}

fn attributes(entry: &TermiosEntry) -> [u8; sys::terminal_state::ATTRIBUTES_SIZE] {
    let mut bytes = [0; sys::terminal_state::ATTRIBUTES_SIZE];
    let words = [entry.c_iflag, entry.c_oflag, entry.c_cflag, entry.c_lflag];
    for (place, word) in bytes[..16].chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes[16] = entry.c_line as u8;
    for (place, value) in bytes[17..36].iter_mut().zip(&entry.c_cc) {
        *place = *value as u8;
    }
    bytes[36..40].copy_from_slice(&entry.c_ispeed.to_ne_bytes());
    bytes[40..44].copy_from_slice(&entry.c_ospeed.to_ne_bytes());
    bytes
}

/// Copies what lies in the ptys whose both ends stand still.
pub(crate) fn dump_data(dump: &mut Dump<'_>) -> Result<()> {
    let mut data = Vec::new();
    for (index, master) in std::mem::take(&mut dump.masters) {
        let own = |info: &&TtyInfoEntry| info.pty.as_ref().is_some_and(|pty| pty.index == index);
        let infos: Vec<&TtyInfoEntry> = dump.terminals.iter().filter(own).collect();
        super::tty_data::dump(&master, &infos, &mut data)?;
    }
    if data.is_empty() {
        return Ok(());
    }
    dump.images
        .write("tty-data.img", crate::image::Kind::TtyData, &data)
}

/// Whether it is the terminal of a master.
pub(crate) fn is_master(info: &TtyInfoEntry) -> bool {
    info.pty.is_some() && info.rdev == TTY_MAJOR << 8 | 2
}

/// Whether it is `/dev/tty`.
pub(crate) fn is_controlling(info: &TtyInfoEntry) -> bool {
    info.r#type == TtyType::Ctty as i32
}

/// The ptys of a restore.
#[derive(Debug, Default)]
pub(crate) struct Terminals {
    /// Masters by number, with whether their own description has been handed out.
    masters: HashMap<u32, (OwnedFd, bool)>,
    /// A slave by number.
    slaves: HashMap<u32, OwnedFd>,
    /// Whether ptys are the tree's own, so that a new master can stand in for one outside.
    own: bool,
}

impl Terminals {
    /// A description of the terminal. `path` is the name that it had.
    pub(crate) fn open(
        &mut self,
        entry: &TtyFileEntry,
        info: &TtyInfoEntry,
        path: &str,
    ) -> Result<OwnedFd> {
        let Some(pty) = &info.pty else {
            return Err(Error::because(
                "open terminal",
                path,
                "only pseudo-terminals can be restored",
            ));
        };
        let index = pty.index;
        let is_master = is_master(info);
        // One that was hung up has no settings: its master was closed before the dump.
        let hung_up = info.termios.is_none();
        if !is_master && !hung_up && !self.masters.contains_key(&index) && !self.own {
            return from_caller(path);
        }
        self.master(index)?;
        if is_master {
            let made = self.masters.get_mut(&index).filter(|(_, given)| !given);
            let Some((master, given)) = made else {
                let cause = "it was opened twice, which cannot be done again";
                return Err(Error::because("open terminal", path, cause));
            };
            *given = true;
            let fd = super::duplicate(&*master, path)?;
            super::set_status_flags(&fd, entry.flags)?;
            return Ok(fd);
        }
        let flags =
            OFlags::from_bits_retain(entry.flags & (libc::O_ACCMODE | libc::O_NONBLOCK) as u32);
        let slave = format!("/dev/pts/{index}");
        rustix::fs::open(
            &slave,
            flags | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .during("open", slave)
    }

    /// The ptys of a tree with mounts of its own; `made`: masters that stand already, by number.
    pub(crate) fn own(made: Vec<(u32, OwnedFd)>) -> Self {
        let masters = made.into_iter().map(|(index, fd)| (index, (fd, false)));
        Self {
            masters: masters.collect(),
            slaves: HashMap::new(),
            own: true,
        }
    }

    /// Makes sure that there is a master for a slave, if the pty is the tree's own.
    pub(crate) fn adopt(&mut self, index: u32) -> Result<()> {
        if self.own { self.master(index) } else { Ok(()) }
    }

    /// Whether its master is ours.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.masters.contains_key(&index)
    }

    /// Makes the pty with this number, if it is not there yet.
    pub(crate) fn master(&mut self, index: u32) -> Result<()> {
        if self.masters.contains_key(&index) {
            return Ok(());
        }
        if index >= MAX_PTYS {
            return Err(Error::because("make pty", index, "its number is too large"));
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = make_master(index, || {
            rustix::fs::open("/dev/ptmx", flags, Mode::empty())
        })?;
        self.masters.insert(index, (master, false));
        Ok(())
    }

    /// Settings, once all is open.
    pub(crate) fn configure(&mut self, infos: &[TtyInfoEntry]) -> Result<()> {
        for info in infos {
            let Some(pty) = &info.pty else { continue };
            let Some((master, _)) = self.masters.get(&pty.index) else {
                continue;
            };
            let about = format!("/dev/pts/{}", pty.index);
            let (user, group) = (info.uid.unwrap_or(0), info.gid.unwrap_or(0));
            if is_master(info) {
                sys::terminal_state::set_packet_mode(master, info.packet_mode)
                    .during("set packet mode of", &about)?;
            } else {
                let (user, group) = (
                    rustix::fs::Uid::from_raw(user),
                    rustix::fs::Gid::from_raw(group),
                );
                let _ = rustix::fs::chown(about.as_str(), Some(user), Some(group));
            }
            if let Some(termios) = &info.termios {
                sys::terminal_state::set_attributes(master, &attributes(termios))
                    .during("set up", &about)?;
            }
            if let Some(window) = &info.winsize {
                let window = [
                    window.ws_row,
                    window.ws_col,
                    window.ws_xpixel,
                    window.ws_ypixel,
                ]
                .map(|n| n as u16);
                sys::terminal_state::set_window(master, window).during("set up", &about)?;
            }
            if info.exclusive
                && !is_master(info)
                && let Some(slave) = self.slaves.get(&pty.index)
            {
                sys::terminal_state::set_exclusive(slave).during("set up", &about)?;
            }
        }
        Ok(())
    }

    /// Fills the ptys with what lay in them.
    pub(crate) fn refill(&self, images: &Directory, infos: &[TtyInfoEntry]) -> Result<()> {
        for (index, (master, _)) in &self.masters {
            super::tty_data::restore(images, master, *index, infos)?;
        }
        Ok(())
    }

    /// Closes the masters that were closed before the dump; nobody must hear of it. That of a
    /// container's console is outside, which is something else: its terminal has settings.
    pub(crate) fn hang_up(&mut self, infos: &[TtyInfoEntry]) {
        let own_ptys = self.own;
        self.masters.retain(|index, _| {
            let same = |info: &&TtyInfoEntry| info.pty.as_ref().is_some_and(|p| p.index == *index);
            let has_settings = |info: &TtyInfoEntry| info.termios.is_some();
            let outside = own_ptys && infos.iter().filter(same).all(has_settings);
            infos.iter().filter(same).any(is_master) || outside
        });
    }

    /// Makes pty `index` the terminal of the session that `leader` leads.
    pub(crate) fn control(&mut self, index: u32, leader: &Injector) -> Result<()> {
        let slave = self.slave(index)?;
        let arguments = [slave as u64, TIOCSCTTY, 0, 0, 0, 0];
        leader
            .call("set the terminal of", libc::SYS_ioctl, arguments)
            .map(drop)
    }

    /// Sets the foreground group from inside the session. `scratch`: memory of `member`.
    pub(crate) fn set_group(
        &mut self,
        index: u32,
        group: u32,
        member: &Injector,
        scratch: u64,
    ) -> Result<()> {
        let slave = self.slave(index)?;
        let thread = member.thread;
        sys::process_memory::write_all(thread, scratch, &group.to_ne_bytes())
            .during("write into", thread)?;
        let arguments = [slave as u64, TIOCSPGRP, scratch, 0, 0, 0];
        // The group may be gone, as one may that was left in the background.
        member.try_call(libc::SYS_ioctl, arguments).map(drop)
    }

    fn slave(&mut self, index: u32) -> Result<i32> {
        self.master(index)?;
        let slave = match self.slaves.entry(index) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let path = format!("/dev/pts/{index}");
                let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
                place.insert(rustix::fs::open(&path, flags, Mode::empty()).during("open", path)?)
            }
        };
        Ok(slave.as_raw_fd())
    }

    /// Locks what was locked and lets go of what only the restore needed. Returns the masters that
    /// no process of the tree has, by number.
    pub(crate) fn finish(&mut self, infos: &[TtyInfoEntry]) -> Result<Vec<(u32, OwnedFd)>> {
        for info in infos.iter().filter(|info| info.locked) {
            let master = info
                .pty
                .as_ref()
                .and_then(|pty| self.masters.get(&pty.index));
            if let Some((master, _)) = master {
                sys::terminal_state::set_locked(master, true).during("lock", "pty")?;
            }
        }
        self.slaves.clear();
        let masters = self.masters.drain().filter(|(_, (_, given))| !given);
        Ok(masters.map(|(index, (fd, _))| (index, fd)).collect())
    }
}

/// The master of pty `index`, unlocked. `open` opens `ptmx` of its file system.
pub(crate) fn make_master(index: u32, open: impl Fn() -> sys::Result<OwnedFd>) -> Result<OwnedFd> {
    // Numbers are handed out from below.
    let mut others = Vec::new();
    loop {
        let master = open().during("open", "ptmx")?;
        let number =
            sys::terminal_state::pty_number(&master).during("ask for the number of", "pty")?;
        if number == index {
            sys::terminal_state::set_locked(&master, false).during("unlock pty", index)?;
            return Ok(master);
        }
        if number > index {
            let cause = "somebody else has its number";
            return Err(Error::because("make pty", index, cause));
        }
        others.push(master);
    }
}

/// A terminal whose other end was not dumped: the one that the caller sits at takes its place.
fn from_caller(path: &str) -> Result<OwnedFd> {
    let stdio = rustix::stdio::stdin();
    for fd in [stdio, rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if rustix::termios::isatty(fd) {
            return rustix::io::fcntl_dupfd_cloexec(fd, 0)
                .during("duplicate", "the caller's terminal");
        }
    }
    let cause = "its master was not dumped, and the caller has no terminal to give instead";
    Err(Error::because("open terminal", path, cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_the_round_trip() {
        let bytes: [u8; 44] = std::array::from_fn(|at| at as u8);
        assert_eq!(attributes(&termios(&bytes)), bytes);
    }

    #[test]
    fn terminals_by_their_numbers() {
        for (major, minor, expected) in [
            (5, 2, Some(Role::Master)),
            (5, 0, Some(Role::Controlling)),
            (136, 7, Some(Role::Slave(7))),
            (137, 1, Some(Role::Slave(257))),
            (1, 3, None),
        ] {
            assert_eq!(role(rustix::fs::makedev(major, minor)), expected);
        }
    }
}
