//! A stopped thread makes system calls for us.
//!
//! Problem: much of a process can only be asked or changed from inside. Solution: point the
//! stopped thread at a system call instruction that its memory holds already (every vdso has one),
//! let it run to the exit of that call, read the result. No code is written, and the thread's own
//! registers come back last.
//!
//! Rejected: single-stepping. The trap after the step is a forced SIGTRAP, and where the thread
//! blocks or ignores that signal the kernel resets its handler.

use std::cell::Cell;
use std::rc::Rc;

use rustix::process::Pid;
use sys::Errno;
use sys::ptrace::{self, Event};

use crate::arch::{Registers, SYSCALL_INSTRUCTION};
use crate::error::{Context, Error, Result};
use crate::procfs::{self, Mapping};

const EVENT_FORK: i32 = libc::PTRACE_EVENT_FORK;
const EVENT_VFORK: i32 = libc::PTRACE_EVENT_VFORK;
const EVENT_CLONE: i32 = libc::PTRACE_EVENT_CLONE;
pub(crate) const EVENT_STOP: i32 = libc::PTRACE_EVENT_STOP;

/// A thread that is stopped and can be told to make calls.
#[derive(Clone, Debug)]
pub(crate) struct Injector {
    pub(crate) thread: Pid,
    /// Address of a system call instruction.
    pub(crate) gadget: u64,
    /// What the calls start from.
    pub(crate) base: Registers,
    /// A SIGSTOP came from outside meanwhile; it is sent again when the thread runs on.
    pub(crate) stop_seen: Rc<Cell<bool>>,
}

impl Injector {
    /// For a stopped thread of a process whose mappings are known.
    pub(crate) fn new(thread: Pid, mappings: &[Mapping]) -> Result<Self> {
        let base = Registers::of(thread).during("read registers of", thread)?;
        let gadget = find_gadget(thread, mappings)?;
        Ok(Self {
            thread,
            gadget,
            base,
            stop_seen: Rc::default(),
        })
    }

    /// Makes one call; the inner result is the call's own.
    pub(crate) fn try_call(&self, number: i64, arguments: [u64; 6]) -> Result<sys::Result<u64>> {
        let value = self.raw_call(number, arguments)?;
        Ok(match value {
            -4095..=-1 => Err(Errno::from_raw_os_error(-value as i32)),
            value => Ok(value as u64),
        })
    }

    /// Makes one call that must succeed.
    pub(crate) fn call(&self, what: &str, number: i64, arguments: [u64; 6]) -> Result<u64> {
        self.try_call(number, arguments)?
            .during(what, format!("process {}", self.thread))
    }

    fn raw_call(&self, number: i64, arguments: [u64; 6]) -> Result<i64> {
        let about = |errno| Error::kernel("make a system call in", self.thread, errno);
        let registers = self.base.with_call(self.gadget, number, arguments);
        registers.install(self.thread).map_err(about)?;
        // The entry of the call, then its exit.
        for _ in 0..2 {
            self.run_to_syscall_stop(number)?;
        }
        Ok(Registers::of(self.thread).map_err(about)?.result())
    }

    fn run_to_syscall_stop(&self, number: i64) -> Result<()> {
        let about = |errno| Error::kernel("make a system call in", self.thread, errno);
        loop {
            ptrace::resume_to_syscall(self.thread).map_err(about)?;
            match ptrace::wait(self.thread).map_err(about)? {
                Event::Stopped {
                    signal: ptrace::SYSCALL_STOP,
                    event: 0,
                } => return Ok(()),
                Event::Stopped {
                    event: EVENT_FORK | EVENT_VFORK | EVENT_CLONE | EVENT_STOP,
                    ..
                } => {}
                // Everything else that can come is blocked.
                Event::Stopped {
                    signal: libc::SIGSTOP,
                    ..
                } => self.stop_seen.set(true),
                Event::Stopped { signal, .. } => {
                    let cause = format!("it got signal {signal} meanwhile (call {number})");
                    return Err(Error::because("make a system call in", self.thread, cause));
                }
                Event::Exited(_) | Event::Killed(_) => return Err(about(Errno::SRCH)),
            }
        }
    }

    /// Maps `length` bytes of scratch memory wherever there is room.
    pub(crate) fn map_scratch(&self, length: u64) -> Result<u64> {
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let arguments = [0, length, protection, flags, u64::MAX, 0];
        self.call("map scratch memory in", libc::SYS_mmap, arguments)
    }
}

/// Finds a system call instruction: in the vdso, else in any executable mapping.
pub(crate) fn find_gadget(process: Pid, mappings: &[Mapping]) -> Result<u64> {
    let executable = |mapping: &&Mapping| mapping.protection & libc::PROT_EXEC as u32 != 0;
    let vdso = mappings.iter().filter(|mapping| mapping.is_vdso());
    let others = mappings
        .iter()
        .filter(|mapping| !mapping.is_vdso())
        .filter(executable);
    for mapping in vdso.chain(others) {
        let mut code = vec![0; mapping.length().min(1 << 24) as usize];
        let ranges = [(mapping.start, code.len())];
        let Ok(got) = sys::process_memory::read(process, &ranges, &mut code) else {
            continue;
        };
        let width = SYSCALL_INSTRUCTION.len();
        let found = code[..got]
            .windows(width)
            .position(|bytes| bytes == SYSCALL_INSTRUCTION);
        if let Some(at) = found {
            return Ok(mapping.start + at as u64);
        }
    }
    Err(Error::because(
        "find a system call instruction in",
        process,
        "its memory holds none",
    ))
}

/// The injector of a process whose mappings are read now.
pub(crate) fn injector_of(process: Pid) -> Result<Injector> {
    Injector::new(process, &procfs::plain_mappings(process)?)
}
