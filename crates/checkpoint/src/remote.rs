//! Questions that only the process itself can answer, asked through its scratch memory.

use rustix::process::Pid;

use crate::error::{Context, Result};
use crate::freeze::Process;
use crate::inject::Injector;

pub(crate) const SCRATCH_SIZE: u64 = 16 << 10;

/// A stopped process with scratch memory.
pub(crate) struct Remote<'a> {
    injector: &'a Injector,
    scratch: u64,
}

impl<'a> Remote<'a> {
    /// Maps the scratch memory if there is none yet; [`crate::freeze::FrozenTree`] unmaps it.
    pub(crate) fn new(process: &'a mut Process) -> Result<Option<Self>> {
        let Some(injector) = &process.injector else {
            return Ok(None);
        };
        if process.scratch.is_none() {
            process.scratch = Some((injector.map_scratch(SCRATCH_SIZE)?, SCRATCH_SIZE));
        }
        Ok(process
            .scratch
            .map(|(scratch, _)| Self { injector, scratch }))
    }

    /// The same memory, but another thread makes the calls.
    pub(crate) fn injector_for(&self, thread: Pid, base: &crate::arch::Registers) -> Injector {
        Injector {
            thread,
            gadget: self.injector.gadget,
            base: base.clone(),
            stop_seen: self.injector.stop_seen.clone(),
        }
    }

    pub(crate) fn scratch(&self) -> u64 {
        self.scratch
    }

    pub(crate) fn injector(&self) -> &Injector {
        self.injector
    }

    /// Makes a call in the leader.
    pub(crate) fn call(&self, what: &str, number: i64, arguments: [u64; 6]) -> Result<u64> {
        self.injector.call(what, number, arguments)
    }

    /// Makes a call that fills the scratch memory; returns its first `N` 64-bit words.
    pub(crate) fn ask<const N: usize>(
        &self,
        what: &str,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<[u64; N]> {
        self.injector.call(what, number, arguments)?;
        self.words()
    }

    /// The first `N` words of the scratch memory.
    pub(crate) fn words<const N: usize>(&self) -> Result<[u64; N]> {
        let mut bytes = vec![0; N * 8];
        sys::process_memory::read_exact(self.injector.thread, self.scratch, &mut bytes)
            .during("read scratch memory of", self.injector.thread)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        }
        Ok(words)
    }
}
