//! System call filters: chains of classic BPF programs, shared where threads inherited them.
//!
//! A filter cannot be taken off, so it is loaded when nothing but what every thread may do is left;
//! until the release the tracer's PTRACE_O_SUSPEND_SECCOMP keeps it from taking effect. What all
//! threads of a process have in common is loaded once for all of them (TSYNC): a later TSYNC by the
//! program is refused unless the kernel finds the same filters, not equal ones.

use std::collections::HashMap;

use rustix::process::Pid;
use sys::ptrace;

use crate::error::{Context, Error, Result};
use crate::image::core::{CoreEntry, SeccompMode};
use crate::image::tree::{SeccompEntry, SeccompFilter};
use crate::image::{Directory, Kind};
use crate::tape::Tape;

const INSTRUCTION: usize = 8;
const MAX_INSTRUCTIONS: usize = 4096;
const SET_MODE_FILTER: u64 = 1;
const SET_MODE_STRICT: u64 = 0;
const FLAG_TSYNC: u64 = 1;
/// Failure to synchronize is an error number, not a thread id (since Linux 5.7).
const FLAG_TSYNC_ESRCH: u64 = 1 << 4;
const NAME: &str = "seccomp.img";

/// The filters of a dump; equal chains are kept once.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    entry: SeccompEntry,
    known: HashMap<(Option<u32>, Vec<u8>, u64), u32>,
}

impl Filters {
    /// Reads the chain of a stopped thread and says in its core where it ends.
    pub(crate) fn dump(&mut self, thread: Pid, core: &mut CoreEntry) -> Result<()> {
        let Some(core) = core.thread_core.as_mut() else {
            return Ok(());
        };
        if core.seccomp_mode != Some(SeccompMode::Filter as i32) {
            return Ok(());
        }
        for index in 0.. {
            let found = ptrace::seccomp_filter(thread, index);
            let Some(filter) = found.during("read seccomp filter of thread", thread)? else {
                break;
            };
            let flags = ptrace::seccomp_flags(thread, index)
                .during("read flags of the seccomp filter of thread", thread)?;
            core.seccomp_filter = Some(self.number(core.seccomp_filter, filter, flags));
        }
        Ok(())
    }

    fn number(&mut self, prev: Option<u32>, filter: Vec<u8>, flags: u64) -> u32 {
        let next = self.entry.seccomp_filters.len() as u32;
        let filters = &mut self.entry.seccomp_filters;
        *self
            .known
            .entry((prev, filter, flags))
            .or_insert_with_key(|(prev, filter, flags)| {
                filters.push(SeccompFilter {
                    filter: filter.clone(),
                    prev: *prev,
                    flags: Some(*flags as u32).filter(|flags| *flags != 0),
                });
                next
            })
    }

    pub(crate) fn save(self, images: &Directory) -> Result<()> {
        images.write(NAME, Kind::Seccomp, &[self.entry])
    }
}

/// The filters of the images, checked.
pub(crate) fn load(images: &Directory) -> Result<Vec<SeccompFilter>> {
    let entries: Vec<SeccompEntry> = images.read(NAME, Kind::Seccomp)?;
    let filters: Vec<SeccompFilter> = entries
        .into_iter()
        .flat_map(|entry| entry.seccomp_filters)
        .collect();
    for (index, filter) in filters.iter().enumerate() {
        let length = filter.filter.len();
        let whole = length.is_multiple_of(INSTRUCTION) && length > 0;
        let older = filter.prev.is_none_or(|prev| (prev as usize) < index);
        if !whole || length > MAX_INSTRUCTIONS * INSTRUCTION || !older {
            let cause = format!("filter {index} is impossible");
            return Err(Error::because("read image", NAME, cause));
        }
    }
    Ok(filters)
}

/// What the threads of one process load: the common filters first, then each its own.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan<'a> {
    pub(crate) common: Vec<&'a SeccompFilter>,
    /// One per thread.
    pub(crate) own: Vec<Vec<&'a SeccompFilter>>,
}

/// Decides; `ends` has each thread's newest filter.
pub(crate) fn plan<'a>(filters: &'a [SeccompFilter], ends: &[Option<u32>]) -> Result<Plan<'a>> {
    let mut own = Vec::new();
    for end in ends {
        let mut chain = Vec::new();
        let mut at = *end;
        while let Some(index) = at {
            let missing = || Error::because("read image", NAME, format!("no filter {index}"));
            let filter = filters.get(index as usize).ok_or_else(missing)?;
            chain.insert(0, (index, filter));
            at = filter.prev;
        }
        own.push(chain);
    }
    let mut common = Vec::new();
    if own.len() > 1 {
        while let Some(first) = own.first().and_then(|chain| chain.first()).copied() {
            let same = |chain: &Vec<(u32, &SeccompFilter)>| {
                chain.first().is_some_and(|next| next.0 == first.0)
            };
            if !own.iter().all(same) {
                break;
            }
            for chain in &mut own {
                chain.remove(0);
            }
            common.push(first.1);
        }
    }
    let plain = |chain: Vec<(u32, &'a SeccompFilter)>| chain.into_iter().map(|(_, f)| f).collect();
    Ok(Plan {
        common,
        own: own.into_iter().map(plain).collect(),
    })
}

/// The calls that load these filters; `all`: into every thread of the process.
pub(crate) fn restore(filters: &[&SeccompFilter], all: bool, tape: &mut Tape) {
    for filter in filters {
        let program = tape.data(&filter.filter);
        let count = (filter.filter.len() / INSTRUCTION) as u64;
        let header: Vec<u8> = [count, program]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let header = tape.data(&header);
        let mut flags = u64::from(filter.flags.unwrap_or(0));
        if all {
            flags |= FLAG_TSYNC | FLAG_TSYNC_ESRCH;
        }
        let arguments = [SET_MODE_FILTER, flags, header];
        tape.call(
            "load",
            format_args!("seccomp filter of {count} instructions"),
            libc::SYS_seccomp,
            &arguments,
        );
    }
}

/// The call for a thread that may only read, write and leave.
pub(crate) fn restore_strict(core: &CoreEntry, tape: &mut Tape) {
    let mode = core
        .thread_core
        .as_ref()
        .and_then(|thread| thread.seccomp_mode);
    if mode == Some(SeccompMode::Strict as i32) {
        let arguments = [SET_MODE_STRICT, 0, 0];
        tape.call(
            "enter",
            "strict seccomp mode",
            libc::SYS_seccomp,
            &arguments,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters() -> Vec<SeccompFilter> {
        [None, Some(0), Some(1), Some(0)]
            .into_iter()
            .enumerate()
            .map(|(index, prev)| SeccompFilter {
                filter: vec![index as u8; INSTRUCTION],
                prev,
                flags: None,
            })
            .collect()
    }

    #[test]
    fn threads_load_together_what_they_have_in_common() {
        let filters = filters();
        for (ends, common, own) in [
            (vec![Some(2)], vec![], vec![vec![0, 1, 2]]),
            (vec![Some(2), Some(3)], vec![0], vec![vec![1, 2], vec![3]]),
            (vec![Some(2), Some(2)], vec![0, 1, 2], vec![vec![], vec![]]),
            (vec![None, Some(1)], vec![], vec![vec![], vec![0, 1]]),
            (vec![None], vec![], vec![vec![]]),
        ] {
            let plan = plan(&filters, &ends).unwrap();
            let numbers = |chain: &[&SeccompFilter]| -> Vec<u8> {
                chain.iter().map(|filter| filter.filter[0]).collect()
            };
            assert_eq!(numbers(&plan.common), common, "{ends:?}");
            let chains: Vec<Vec<u8>> = plan.own.iter().map(|chain| numbers(chain)).collect();
            assert_eq!(chains, own, "{ends:?}");
        }
        assert!(plan(&filters, &[Some(4)]).is_err());
    }

    #[test]
    fn equal_chains_are_kept_once() {
        let mut table = Filters::default();
        let first = table.number(None, vec![1; 8], 0);
        let second = table.number(Some(first), vec![2; 8], 2);
        assert_eq!(table.number(None, vec![1; 8], 0), first);
        assert_eq!(table.number(Some(first), vec![2; 8], 2), second);
        assert_ne!(table.number(Some(second), vec![2; 8], 2), second);
        assert_eq!(table.entry.seccomp_filters.len(), 3);
    }
}
