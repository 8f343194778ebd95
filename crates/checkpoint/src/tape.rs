//! Builds and plays syscall tapes (docs/design/syscall-tape.md).

use std::os::unix::fs::FileExt;

use crate::arch::TASK_SIZE;
use crate::error::{Context, Error, Result};
use crate::inject::Injector;
use sys::Errno;
use sys::ptrace::{self, Event};
use sys::tape::{END, ENTRY_SIZE, STOP_ON_ERROR};

const PAGE: u64 = 4096;
const ALL_BUT_TRAP: u64 = !(1 << (libc::SIGTRAP - 1));
/// Room for the loop, the entries and their data, each in a third.
pub(crate) const ARENA_SIZE: u64 = 3 << 28;

/// Addresses that neither the process as it is nor as it will be uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arena(pub(crate) u64);

impl Arena {
    /// Finds room beside the ranges `used` (start, end), in any order.
    pub(crate) fn find(used: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let mut used: Vec<(u64, u64)> = used.into_iter().collect();
        used.push((TASK_SIZE, u64::MAX));
        used.sort_unstable();
        // Far from address 0 and from where programs and their heaps lie.
        let mut free_from = 1 << 32;
        for (start, end) in used {
            if start.saturating_sub(free_from) >= 2 * ARENA_SIZE {
                return Some(Self(free_from + ARENA_SIZE / 2));
            }
            free_from = free_from.max(end.min(TASK_SIZE).next_multiple_of(1 << 21));
        }
        None
    }

    pub(crate) fn code(self) -> u64 {
        self.0
    }

    fn entries(self) -> u64 {
        self.0 + ARENA_SIZE / 3
    }

    fn data(self) -> u64 {
        self.0 + 2 * (ARENA_SIZE / 3)
    }

    pub(crate) fn end(self) -> u64 {
        self.0 + ARENA_SIZE
    }
}

struct Call {
    number: i64,
    arguments: [u64; 6],
    /// What the call does and to what; `None`: it may fail.
    what: Option<(&'static str, String)>,
}

/// A list of system calls with their data.
pub(crate) struct Tape {
    arena: Arena,
    calls: Vec<Call>,
    data: Vec<u8>,
}

impl Tape {
    pub(crate) fn new(arena: Arena) -> Self {
        Self {
            arena,
            calls: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Places bytes beside the tape; returns their address in the process.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> u64 {
        let at = self.data.len().next_multiple_of(16);
        self.data.resize(at, 0);
        self.data.extend_from_slice(bytes);
        self.arena.data() + at as u64
    }

    /// Places a text with its ending zero.
    pub(crate) fn text(&mut self, text: &str) -> u64 {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.data(&bytes)
    }

    /// Adds a call that must succeed: ``what `object`: …`` if it does not.
    pub(crate) fn call(
        &mut self,
        what: &'static str,
        object: impl std::fmt::Display,
        number: i64,
        arguments: &[u64],
    ) {
        self.push(number, arguments, Some((what, object.to_string())));
    }

    /// Adds a call that may fail; returns its position among the results.
    pub(crate) fn attempt(&mut self, number: i64, arguments: &[u64]) -> usize {
        self.push(number, arguments, None);
        self.calls.len() - 1
    }

    fn push(&mut self, number: i64, arguments: &[u64], what: Option<(&'static str, String)>) {
        let mut six = [0; 6];
        six[..arguments.len()].copy_from_slice(arguments);
        self.calls.push(Call {
            number,
            arguments: six,
            what,
        });
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.calls.len() + 1) * ENTRY_SIZE);
        for call in &self.calls {
            let flags = if call.what.is_some() {
                STOP_ON_ERROR
            } else {
                0
            };
            bytes.extend_from_slice(&call.number.to_le_bytes());
            call.arguments
                .iter()
                .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
            bytes.extend_from_slice(&0_u64.to_le_bytes());
            bytes.extend_from_slice(&flags.to_le_bytes());
        }
        bytes.extend_from_slice(&END.to_le_bytes());
        bytes.resize(bytes.len() + ENTRY_SIZE - 8, 0);
        bytes
    }

    /// Plays the tape in a stopped thread; returns each call's result.
    ///
    /// The code stays mapped (see [`unload`]); a tape that moves the vdso leaves `injector` with a
    /// stale gadget, which the caller must replace.
    pub(crate) fn play(self, injector: &Injector) -> Result<Vec<i64>> {
        let thread = injector.thread;
        let entries = self.encode();
        self.load(injector, &entries)?;
        let about = |errno| Error::kernel("play a tape in", thread, errno);
        let registers = injector
            .base
            .with_tape(self.arena.code(), self.arena.entries());
        registers.install(thread).map_err(about)?;
        // The loop ends in a trap, and the kernel resets the handler of a forced signal that is
        // blocked.
        ptrace::set_signal_mask(thread, ALL_BUT_TRAP).map_err(about)?;
        ptrace::resume(thread, 0).map_err(about)?;
        loop {
            match ptrace::wait(thread).map_err(about)? {
                Event::Stopped {
                    signal: libc::SIGTRAP,
                    event: 0,
                } => break,
                Event::Stopped {
                    signal: libc::SIGSTOP,
                    ..
                } => {
                    ptrace::resume(thread, 0).map_err(about)?;
                }
                Event::Stopped { signal, event: 0 } => {
                    let cause = format!("it got signal {signal}");
                    return Err(Error::because("play a tape in", thread, cause));
                }
                Event::Stopped { .. } => ptrace::resume(thread, 0).map_err(about)?,
                Event::Exited(_) | Event::Killed(_) => return Err(about(Errno::SRCH)),
            }
        }
        ptrace::set_signal_mask(thread, !0).map_err(about)?;
        let mut back = vec![0; entries.len()];
        sys::process_memory::read_exact(thread, self.arena.entries(), &mut back).map_err(about)?;
        self.results(&back)
    }

    fn results(&self, entries: &[u8]) -> Result<Vec<i64>> {
        let mut results = Vec::with_capacity(self.calls.len());
        for (call, entry) in self.calls.iter().zip(entries.chunks_exact(ENTRY_SIZE)) {
            let value = entry[56..64]
                .iter()
                .rev()
                .fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
            let value = value as i64;
            if let (Some((what, object)), -4095..=-1) = (&call.what, value) {
                return Err(Error::kernel(
                    what,
                    object,
                    Errno::from_raw_os_error(-value as i32),
                ));
            }
            results.push(value);
        }
        Ok(results)
    }

    fn load(&self, injector: &Injector, entries: &[u8]) -> Result<()> {
        let mut parts = vec![(self.arena.entries(), entries)];
        if !self.data.is_empty() {
            parts.push((self.arena.data(), &self.data));
        }
        map(
            injector,
            self.arena.code(),
            PAGE,
            libc::PROT_READ | libc::PROT_EXEC,
        )?;
        write_code(injector, self.arena.code())?;
        for (address, bytes) in parts {
            let length = (bytes.len() as u64).next_multiple_of(PAGE);
            map(
                injector,
                address,
                length,
                libc::PROT_READ | libc::PROT_WRITE,
            )?;
            sys::process_memory::write_all(injector.thread, address, bytes)
                .during("write a tape into", injector.thread)?;
        }
        Ok(())
    }
}

/// Places bytes in the arena for calls that are injected one by one; returns their address.
pub(crate) fn place(injector: &Injector, arena: Arena, bytes: &[u8]) -> Result<u64> {
    let length = (bytes.len() as u64).next_multiple_of(PAGE);
    map(
        injector,
        arena.data(),
        length,
        libc::PROT_READ | libc::PROT_WRITE,
    )?;
    sys::process_memory::write_all(injector.thread, arena.data(), bytes)
        .during("write arguments into", injector.thread)?;
    Ok(arena.data())
}

fn map(injector: &Injector, address: u64, length: u64, protection: i32) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let arguments = [
        address,
        length,
        protection as u64,
        flags as u64,
        u64::MAX,
        0,
    ];
    injector
        .call("map a tape into", libc::SYS_mmap, arguments)
        .map(drop)
}

/// `/proc/PID/mem` writes through the mapping's protection.
fn write_code(injector: &Injector, address: u64) -> Result<()> {
    let path = format!("{}/{}/mem", crate::procfs::root(), injector.thread);
    let memory = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .during("open", &path)?;
    memory
        .write_all_at(sys::tape::code(), address)
        .during("write a tape into", injector.thread)
}

/// Unmaps all that tapes left in the arena.
pub(crate) fn unload(injector: &Injector, arena: Arena) -> Result<()> {
    let arguments = [arena.0, ARENA_SIZE, 0, 0, 0, 0];
    injector
        .call("unmap the tape of", libc::SYS_munmap, arguments)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arena_lies_beside_everything_used() {
        for used in [
            vec![],
            vec![(0x40_0000, 0x50_0000), (0x7fff_0000_0000, 0x7fff_0010_0000)],
            vec![(1 << 32, (1 << 32) + ARENA_SIZE * 2)],
            vec![(0x1000, 0x7000_0000_0000)],
        ] {
            let arena = Arena::find(used.clone()).unwrap();
            assert!(
                used.iter()
                    .all(|(start, end)| *end <= arena.0 || arena.end() <= *start)
            );
        }
        assert_eq!(Arena::find([(0, TASK_SIZE)]), None);
    }
}
