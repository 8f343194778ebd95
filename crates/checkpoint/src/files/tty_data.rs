//! What lies in a pty: bytes that one end has written and the other not yet read.
//!
//! Problem: nothing shows them without taking them. Solution: while all who use the pty stand still,
//! its line discipline stops keeping lines together, both ends are read empty, and everything is put
//! back under a discipline that keeps lines and changes nothing. A restore puts back in the same way.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use sys::terminal_state::{ATTRIBUTES_SIZE, attributes, packet_mode, set_attributes};

use crate::error::{Context, Result};
use crate::image::tty::{TtyDataEntry, TtyInfoEntry};
use crate::image::{Directory, Kind};

type Attributes = [u8; ATTRIBUTES_SIZE];

/// More than the kernel keeps in one direction.
const MAX_BYTES: usize = 1 << 20;
/// Where flags and control characters lie in `struct termios2`.
const INPUT: usize = 0;
const OUTPUT: usize = 4;
const LOCAL: usize = 12;
const CHARACTERS: std::ops::Range<usize> = 17..36;
/// The control characters that end lines.
const LINE_ENDS: [usize; 3] = [libc::VEOF, libc::VEOL, libc::VEOL2];

fn with_flags(from: &Attributes, local: u32) -> Attributes {
    let mut changed = *from;
    changed[INPUT..INPUT + 4].fill(0);
    changed[OUTPUT..OUTPUT + 4].fill(0);
    changed[LOCAL..LOCAL + 4].copy_from_slice(&local.to_ne_bytes());
    changed
}

fn local_flags(from: &Attributes) -> u32 {
    let local = &from[LOCAL..LOCAL + 4];
    u32::from_ne_bytes([local[0], local[1], local[2], local[3]])
}

/// Everything can be read, whether its line is whole or not. The rest stays: what was written just
/// now is still to be echoed.
fn without_lines(from: &Attributes) -> Attributes {
    let mut changed = *from;
    let local = local_flags(from) & !libc::ICANON;
    changed[LOCAL..LOCAL + 4].copy_from_slice(&local.to_ne_bytes());
    changed
}

/// Bytes pass as they are; if lines are kept, they stay lines.
fn transparent(from: &Attributes) -> Attributes {
    let mut changed = with_flags(from, local_flags(from) & libc::ICANON);
    for (at, character) in changed[CHARACTERS].iter_mut().enumerate() {
        if !LINE_ENDS.contains(&at) {
            *character = 0;
        }
    }
    changed
}

/// What waits at each end.
#[derive(Debug, Default, PartialEq)]
struct Waiting {
    /// Written by the slave.
    master: Vec<u8>,
    /// Written by the master.
    slave: Vec<u8>,
}

/// Copies what lies in the pty of `master`; afterwards it lies there still.
pub(crate) fn dump(
    master: &OwnedFd,
    infos: &[&TtyInfoEntry],
    data: &mut Vec<TtyDataEntry>,
) -> Result<()> {
    // Opening a slave that nobody has open would change what the master sees.
    if infos.iter().all(|info| super::tty::is_master(info)) {
        return Ok(());
    }
    let locked = sys::terminal_state::locked(master).during("ask for the lock of", "pty")?;
    let slave = sys::terminal::slave_of(master).during("open the slave of", "pty")?;
    sys::terminal_state::set_locked(master, locked).during("lock", "pty")?;
    let before = attributes(&slave).during("ask for the settings of", "pty")?;
    let packets = packet_mode(master).during("ask for the mode of", "pty")?;
    let taken = take(master, &slave, &before, packets);
    let waiting = taken.as_ref().ok();
    let put = waiting.map_or(Ok(()), |waiting| put_back(&slave, &before, waiting));
    sys::terminal_state::set_packet_mode(master, packets).during("set the mode of", "pty")?;
    put?;
    let waiting = taken?;
    for info in infos {
        let own = if super::tty::is_master(info) {
            &waiting.master
        } else {
            &waiting.slave
        };
        if !own.is_empty() {
            data.push(TtyDataEntry {
                tty_id: info.id,
                data: own.clone(),
            });
        }
    }
    Ok(())
}

fn take(master: &OwnedFd, slave: &OwnedFd, before: &Attributes, packets: bool) -> Result<Waiting> {
    let about = "read what lies in";
    if packets {
        sys::terminal_state::set_packet_mode(master, false).during("set the mode of", "pty")?;
    }
    set_attributes(slave, &without_lines(before)).during("set up", "pty")?;
    let waiting = Waiting {
        slave: drain(slave).during(about, "pty")?,
        master: drain(master).during(about, "pty")?,
    };
    set_attributes(slave, before).during("set up", "pty")?;
    Ok(waiting)
}

/// Reads until nothing is left. The flags of the description are shared with its owner.
fn drain(end: &OwnedFd) -> sys::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    without_blocking(end, || {
        let mut part = [0; 4096];
        while bytes.len() < MAX_BYTES {
            match rustix::io::read(end, &mut part) {
                Ok(0) | Err(sys::Errno::AGAIN | sys::Errno::IO) => break,
                Ok(got) => bytes.extend_from_slice(&part[..got]),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    })?;
    Ok(bytes)
}

fn without_blocking(end: &OwnedFd, work: impl FnOnce() -> sys::Result<()>) -> sys::Result<()> {
    let before = rustix::fs::fcntl_getfl(end)?;
    rustix::fs::fcntl_setfl(end, before | OFlags::NONBLOCK)?;
    let result = work();
    rustix::fs::fcntl_setfl(end, before)?;
    result
}

/// Writes both ends full again; the settings are `settings` afterwards.
fn put_back(slave: &OwnedFd, settings: &Attributes, waiting: &Waiting) -> Result<()> {
    if *waiting == Waiting::default() {
        return Ok(());
    }
    let about = "write what lay in";
    set_attributes(slave, &transparent(settings)).during("set up", "pty")?;
    // What is written to the master passes the line discipline some time later, this at once.
    let mut bytes = waiting.slave.iter();
    let typed = bytes.try_for_each(|byte| sys::terminal_input::push(slave, *byte));
    let done = typed.and_then(|()| write_all(slave, &waiting.master));
    set_attributes(slave, settings).during("set up", "pty")?;
    done.during(about, "pty")
}

fn write_all(end: &OwnedFd, bytes: &[u8]) -> sys::Result<()> {
    without_blocking(end, || {
        let mut left = bytes;
        while !left.is_empty() {
            let put = rustix::io::write(end.as_fd(), left)?;
            left = &left[put..];
        }
        Ok(())
    })
}

/// Puts into a pty of a restore, whose settings are made, what lay in it.
pub(crate) fn restore(
    images: &Directory,
    master: &OwnedFd,
    index: u32,
    infos: &[TtyInfoEntry],
) -> Result<()> {
    let mut waiting = Waiting::default();
    for entry in images.read::<TtyDataEntry>("tty-data.img", Kind::TtyData)? {
        let of_this = |info: &&TtyInfoEntry| {
            info.id == entry.tty_id && info.pty.as_ref().is_some_and(|pty| pty.index == index)
        };
        let Some(info) = infos.iter().find(of_this) else {
            continue;
        };
        if super::tty::is_master(info) {
            waiting.master = entry.data;
        } else {
            waiting.slave = entry.data;
        }
    }
    if waiting == Waiting::default() {
        return Ok(());
    }
    let slave = sys::terminal::slave_of(master).during("open the slave of", "pty")?;
    let settings = attributes(&slave).during("ask for the settings of", "pty")?;
    put_back(&slave, &settings, &waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_and_broken_lines_lie_there_before_and_after() {
        let master = sys::terminal::open_master().unwrap();
        sys::terminal_state::set_locked(&master, false).unwrap();
        let slave = sys::terminal::slave_of(&master).unwrap();
        rustix::io::write(&master, b"one\ntwo\nthr").unwrap();
        rustix::io::write(&slave, b"out").unwrap();
        // The line discipline sees it a moment later.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let info = |id, rdev| TtyInfoEntry {
            id,
            rdev,
            pty: Some(Default::default()),
            ..TtyInfoEntry::default()
        };
        let (own, other) = (info(1, 5 << 8 | 2), info(2, 136 << 8));
        let mut data = Vec::new();
        for _ in 0..2 {
            data.clear();
            dump(&master, &[&own, &other], &mut data).unwrap();
        }
        assert_eq!(data[1].data, b"one\ntwo\nthr");
        // The echo and what the slave wrote, in any order.
        let mut shown = data[0].data.clone();
        shown.sort_unstable();
        let mut expected = b"one\r\ntwo\r\nthrout".to_vec();
        expected.sort_unstable();
        assert_eq!(shown, expected);
        let mut line = [0; 64];
        let got = rustix::io::read(&slave, &mut line).unwrap();
        assert_eq!(&line[..got], b"one\n");
        rustix::io::write(&master, b"ee\n").unwrap();
        for expected in [&b"two\n"[..], b"three\n"] {
            let got = rustix::io::read(&slave, &mut line).unwrap();
            assert_eq!(&line[..got], expected);
        }
    }
}
