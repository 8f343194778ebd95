//! What belongs to a process or one of its threads and is no memory and no file: identity, limits,
//! signal handlers, timers, scheduling.

use rustix::process::Pid;
use sys::ptrace::{self, Queue};

use crate::arch;
use crate::creds;
use crate::error::{Context, Result};
use crate::freeze::{Process, State, Thread};
use crate::image::core::{
    CoreEntry, RlimitEntry, RseqEntry, SaEntry, SiginfoEntry, SignalQueueEntry, TaskCoreEntry,
    TaskRlimitsEntry, ThreadCoreEntry, ThreadSasEntry,
};
use crate::procfs::{self, Lines, Stat};
use crate::remote::Remote;
use crate::timer;

pub(crate) const ALIVE: u32 = 1;
pub(crate) const DEAD: u32 = 2;
pub(crate) const STOPPED: u32 = 3;

const PR_GET_TID_ADDRESS: u64 = 40;
const MEMBARRIER_CMD_GET_REGISTRATIONS: u64 = 512;
const SIGNALS: u64 = 64;

/// What only an injected call tells about a process's memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemoryFacts {
    pub(crate) brk: u64,
    pub(crate) dumpable: i32,
    pub(crate) thp_disabled: bool,
}

/// The core images of all threads of a process, the leader's first.
pub(crate) fn dump(process: &mut Process) -> Result<(Vec<CoreEntry>, MemoryFacts)> {
    let mut core = CoreEntry {
        tc: Some(task(process)?),
        ..CoreEntry::default()
    };
    if let State::Zombie(_) = process.state {
        core.mtype = crate::image::core::March::X8664 as i32;
        return Ok((vec![core], MemoryFacts::default()));
    }
    let mut cores = Vec::new();
    let pid = process.pid;
    let threads = std::mem::take(&mut process.threads);
    let result = fill(process, &threads, &mut core, &mut cores);
    process.threads = threads;
    let facts = result?;
    cores.iter_mut().skip(1).for_each(|core| core.tc = None);
    debug_assert!(
        cores.first().is_some_and(|core| core.tc.is_some()),
        "{pid} has a leader"
    );
    Ok((cores, facts))
}

fn fill(
    process: &mut Process,
    threads: &[Thread],
    core: &mut CoreEntry,
    cores: &mut Vec<CoreEntry>,
) -> Result<MemoryFacts> {
    let pid = process.pid;
    let Some(remote) = Remote::new(process)? else {
        return Ok(MemoryFacts::default());
    };
    let facts = ask_process(pid, &remote, core)?;
    for thread in threads {
        let mut core = core.clone();
        dump_thread(pid, thread, &remote, &mut core)?;
        cores.push(core);
    }
    Ok(facts)
}

fn task(process: &Process) -> Result<TaskCoreEntry> {
    let pid = process.pid;
    let (task_state, exit_code, stop_signo) = match process.state {
        State::Alive => (ALIVE, 0, None),
        State::Stopped(signal) => (STOPPED, 0, Some(signal as u32)),
        State::Zombie(code) => (DEAD, code, None),
    };
    let number = |name: &str| {
        procfs::read(pid, name)
            .ok()
            .and_then(|text| text.trim().parse().ok())
    };
    let personality = procfs::read(pid, "personality").unwrap_or_default();
    let limits = if let State::Zombie(_) = process.state {
        Vec::new()
    } else {
        procfs::limits(pid)?
    };
    let rlimits = limits
        .iter()
        .map(|&(cur, max)| RlimitEntry { cur, max })
        .collect();
    let loginuid = procfs::read(pid, "loginuid")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    Ok(TaskCoreEntry {
        task_state,
        exit_code,
        stop_signo,
        personality: u32::from_str_radix(personality.trim(), 16).unwrap_or(0),
        flags: process.stat.flags,
        blk_sigset: process.threads.first().map_or(0, |thread| thread.mask),
        comm: process.stat.comm.clone(),
        rlimits: Some(TaskRlimitsEntry { rlimits }),
        oom_score_adj: number("oom_score_adj"),
        loginuid: loginuid.filter(|_| !matches!(process.state, State::Zombie(_))),
        ..TaskCoreEntry::default()
    })
}

fn ask_process(pid: Pid, remote: &Remote<'_>, core: &mut CoreEntry) -> Result<MemoryFacts> {
    let Some(tc) = core.tc.as_mut() else {
        return Ok(MemoryFacts::default());
    };
    tc.sigactions = signal_handlers(pid, remote)?;
    tc.timers = Some(timer::dump(pid, remote)?);
    let shared = ptrace::pending_signals(pid, Queue::Process).during("read signals of", pid)?;
    tc.signals_s = Some(signal_queue(&shared));
    let get = |option: i32| [option as u64, remote.scratch(), 0, 0, 0, 0];
    let [subreaper] = remote.ask(
        "ask for the subreaper flag of",
        libc::SYS_prctl,
        get(libc::PR_GET_CHILD_SUBREAPER),
    )?;
    tc.child_subreaper = Some(subreaper as u32 != 0);
    let membarrier = [MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0, 0, 0, 0];
    let registered = remote
        .injector()
        .try_call(libc::SYS_membarrier, membarrier)?;
    tc.membarrier_registration_mask = registered
        .ok()
        .filter(|mask| *mask != 0)
        .map(|mask| mask as u32);
    let plain = |option: i32| [option as u64, 0, 0, 0, 0, 0];
    let dumpable = remote.call(
        "ask for dumpable of",
        libc::SYS_prctl,
        plain(libc::PR_GET_DUMPABLE),
    )?;
    let thp = remote
        .injector()
        .try_call(libc::SYS_prctl, plain(libc::PR_GET_THP_DISABLE))?;
    let brk = remote.call("ask for the break of", libc::SYS_brk, [0; 6])?;
    Ok(MemoryFacts {
        brk,
        dumpable: dumpable as i32,
        thp_disabled: thp.is_ok_and(|value| value != 0),
    })
}

/// Handlers of signals 1 to 64 without SIGKILL and SIGSTOP. Only the ones that `/proc` calls caught
/// or ignored are asked for; the others are at their default.
fn signal_handlers(pid: Pid, remote: &Remote<'_>) -> Result<Vec<SaEntry>> {
    let status = Lines::status(pid, remote.injector().thread)?;
    let interesting = status.hex("SigIgn") | status.hex("SigCgt");
    let mut all = Vec::new();
    for signal in (1..=SIGNALS).filter(|signal| ![9, 19].contains(signal)) {
        if interesting & (1 << (signal - 1)) == 0 {
            // A handler at its default can still have flags, which nobody can see work.
            all.push(SaEntry::default());
            continue;
        }
        let arguments = [signal, 0, remote.scratch(), 8, 0, 0];
        let [sigaction, flags, restorer, mask] = remote.ask(
            "ask for a signal handler of",
            libc::SYS_rt_sigaction,
            arguments,
        )?;
        all.push(SaEntry {
            sigaction,
            flags,
            restorer,
            mask,
            ..SaEntry::default()
        });
    }
    Ok(all)
}

fn signal_queue(signals: &[[u8; ptrace::SIGINFO_SIZE]]) -> SignalQueueEntry {
    let entry = |info: &[u8; ptrace::SIGINFO_SIZE]| SiginfoEntry {
        siginfo: info.to_vec(),
    };
    SignalQueueEntry {
        signals: signals.iter().map(entry).collect(),
    }
}

fn dump_thread(pid: Pid, thread: &Thread, remote: &Remote<'_>, core: &mut CoreEntry) -> Result<()> {
    let tid = thread.tid;
    if thread.registers.is_compat() {
        let cause = "it runs 32-bit code, which is not supported";
        return Err(crate::Error::because("dump thread", tid, cause));
    }
    let injector = remote.injector_for(tid, &thread.registers);
    let prctl = |option: u64| [option, remote.scratch(), 0, 0, 0, 0];
    injector.call(
        "ask for the tid address of",
        libc::SYS_prctl,
        prctl(PR_GET_TID_ADDRESS),
    )?;
    let [clear_tid] = remote.words()?;
    injector.call(
        "ask for the death signal of",
        libc::SYS_prctl,
        prctl(libc::PR_GET_PDEATHSIG as u64),
    )?;
    let [pdeath_sig] = remote.words()?;
    injector.call(
        "ask for the signal stack of",
        libc::SYS_sigaltstack,
        [0, remote.scratch(), 0, 0, 0, 0],
    )?;
    let [ss_sp, ss_flags, ss_size] = remote.words()?;
    let secbits = injector.call(
        "ask for securebits of",
        libc::SYS_prctl,
        [libc::PR_GET_SECUREBITS as u64, 0, 0, 0, 0, 0],
    )?;
    let status = Lines::status(pid, tid)?;
    let stat = Stat::of_thread(pid, tid)?;
    let (futex_rla, futex_rla_len) =
        sys::task::robust_list(tid).during("ask for the robust list of", tid)?;
    let own = ptrace::pending_signals(tid, Queue::Thread).during("read signals of", tid)?;
    let sched_policy = sys::task::scheduling_policy(tid).during("ask for the policy of", tid)?;
    let sched_prio = stat.rt_priority;
    core.thread_core = Some(ThreadCoreEntry {
        futex_rla,
        futex_rla_len,
        sched_nice: Some(stat.nice),
        sched_policy: Some(sched_policy),
        sched_prio: Some(sched_prio),
        blk_sigset: Some(thread.mask),
        sas: Some(ThreadSasEntry {
            ss_sp,
            ss_size,
            ss_flags: ss_flags as u32,
        }),
        pdeath_sig: Some(pdeath_sig as u32).filter(|signal| *signal != 0),
        signals_p: Some(signal_queue(&own)),
        creds: Some(creds::dump(&status, secbits as u32)),
        seccomp_mode: Some(status.number("Seccomp") as i32),
        comm: Some(stat.comm.clone()),
        rseq_entry: rseq(thread),
        cg_set: Some(1),
        ..ThreadCoreEntry::default()
    });
    arch::dump(tid, &thread.registers, clear_tid, core)
}

fn rseq(thread: &Thread) -> Option<RseqEntry> {
    let found = thread.rseq?;
    Some(RseqEntry {
        rseq_abi_pointer: found.configuration.address,
        rseq_abi_size: found.configuration.size,
        signature: found.configuration.signature,
        rseq_cs_pointer: Some(found.section),
    })
}
