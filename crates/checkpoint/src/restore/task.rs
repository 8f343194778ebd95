//! What is neither memory nor file: threads, handlers, limits, credentials, timers, signals,
//! registers. Credentials and registers come last.

use sys::ptrace;

use super::load::Task;
use super::tree::{Stub, clone_stopped};
use crate::arch::{self, Registers};
use crate::creds;
use crate::error::{Context, Error, Result};
use crate::freeze::enter_section;
use crate::image::core::{CoreEntry, SignalQueueEntry, ThreadCoreEntry};
use crate::image::tree::SeccompFilter;
use crate::inject::Injector;
use crate::procfs::{self, Lines};
use crate::seccomp;
use crate::tape::{self, Tape};
use crate::timer;

const THREAD_FLAGS: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

/// Creates all threads of a process but the leader.
pub(crate) fn restore_threads(task: &Task, stub: &mut Stub) -> Result<()> {
    if task.is_dead() || task.threads.len() < 2 {
        return Ok(());
    }
    let scratch = stub.arena.code() + 0x10000;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u64;
    let arguments = [scratch, 4096, protection, flags, u64::MAX, 0];
    stub.injector
        .call("map scratch memory in", libc::SYS_mmap, arguments)?;
    for tid in &task.threads[1..] {
        let thread = clone_stopped(&stub.injector, *tid, THREAD_FLAGS as u64, 0, scratch)?;
        stub.threads.push(thread);
    }
    Ok(())
}

const SIGTRAP: u64 = libc::SIGTRAP as u64;

fn injectors<'a>(
    task: &'a Task,
    stub: &'a Stub,
) -> impl Iterator<Item = (&'a Injector, &'a CoreEntry)> {
    std::iter::once(&stub.injector)
        .chain(&stub.threads)
        .zip(&task.cores)
}

/// Everything of a process that needs no particular order, then credentials.
pub(crate) fn restore_process(task: &Task, stub: &Stub, filters: &[SeccompFilter]) -> Result<()> {
    if task.is_dead() {
        return Ok(());
    }
    let mut tape = Tape::new(stub.arena);
    signal_handlers(task, &mut tape)?;
    if let Some(timers) = task.cores[0].tc.as_ref().and_then(|tc| tc.timers.as_ref()) {
        timer::create(timers, &mut tape);
    }
    drain_signals(&mut tape);
    process_flags(task, &mut tape);
    tape.play(&stub.injector)?;
    score(task)?;
    login(task, stub)?;
    let own = common_filters(task, stub, filters)?;
    let bounding = Lines::status(stub.pid, stub.pid)?.hex("CapBnd");
    let threads: Vec<_> = injectors(task, stub).zip(own).collect();
    for ((injector, core), own) in threads.into_iter().rev() {
        let mut tape = Tape::new(stub.arena);
        thread(core, &mut tape);
        seccomp::restore(&own, false, &mut tape);
        seccomp::restore_strict(core, &mut tape);
        if let Some(creds) = core
            .thread_core
            .as_ref()
            .and_then(|thread| thread.creds.as_ref())
        {
            creds::restore(creds, bounding, &mut tape);
        }
        after_credentials(task, core, injector, &mut tape);
        tape.play(injector)?;
        ptrace::set_signal_mask(injector.thread, !0).during("block signals of", injector.thread)?;
    }
    Ok(())
}

/// Loads the filters that all threads have in common; returns what each has besides.
///
/// From here on no filter takes effect until the release.
fn common_filters<'a>(
    task: &Task,
    stub: &Stub,
    filters: &'a [SeccompFilter],
) -> Result<Vec<Vec<&'a SeccompFilter>>> {
    let threads: Vec<_> = task
        .cores
        .iter()
        .map(|core| core.thread_core.as_ref())
        .collect();
    if threads
        .iter()
        .flatten()
        .all(|thread| thread.seccomp_mode.unwrap_or(0) == 0)
    {
        return Ok(threads.iter().map(|_| Vec::new()).collect());
    }
    let suspended = ptrace::Options {
        exit_kill: true,
        follow_clones: true,
        suspend_seccomp: true,
    };
    for (injector, _) in injectors(task, stub) {
        ptrace::set_options(injector.thread, suspended)
            .during("suspend the seccomp filters of thread", injector.thread)?;
    }
    let filtered = |thread: &&ThreadCoreEntry| thread.seccomp_mode == Some(2);
    let ends: Vec<Option<u32>> = threads
        .iter()
        .map(|thread| thread.filter(filtered)?.seccomp_filter)
        .collect();
    let plan = seccomp::plan(filters, &ends)?;
    let mut tape = Tape::new(stub.arena);
    seccomp::restore(&plan.common, true, &mut tape);
    tape.play(&stub.injector)?;
    Ok(plan.own)
}

fn signal_handlers(task: &Task, tape: &mut Tape) -> Result<()> {
    let Some(tc) = task.cores[0].tc.as_ref() else {
        return Ok(());
    };
    if tc.sigactions.len() > 62 {
        return Err(Error::because(
            "restore signal handlers of",
            task.pid,
            "there are too many",
        ));
    }
    let signals = (1..=64).filter(|signal| ![9, 19].contains(signal));
    for (signal, action) in signals.zip(&tc.sigactions) {
        let words = [action.sigaction, action.flags, action.restorer, action.mask];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let action = tape.data(&bytes);
        tape.call(
            "set handler of signal",
            signal,
            libc::SYS_rt_sigaction,
            &[signal, action, 0, 8],
        );
    }
    Ok(())
}

/// Takes out what came while the tree was made (children that died, terminals that hung up).
fn drain_signals(tape: &mut Tape) {
    let all = tape.data(&u64::MAX.to_le_bytes());
    let now = tape.data(&[0; 16]);
    for _ in 0..4 {
        tape.attempt(libc::SYS_rt_sigtimedwait, &[all, 0, now, 8]);
    }
}

fn process_flags(task: &Task, tape: &mut Tape) {
    let Some(tc) = task.cores[0].tc.as_ref() else {
        return;
    };
    if tc.child_subreaper.unwrap_or(false) {
        let arguments = [libc::PR_SET_CHILD_SUBREAPER as u64, 1, 0, 0, 0];
        tape.call("make subreaper", task.pid, libc::SYS_prctl, &arguments);
    }
    tape.call(
        "set personality of",
        task.pid,
        libc::SYS_personality,
        &[u64::from(tc.personality)],
    );
    // The registration commands' own bits, one call each.
    let registered = tc.membarrier_registration_mask.unwrap_or(0);
    for command in (0..32)
        .map(|bit| 1_u64 << bit)
        .filter(|bit| u64::from(registered) & bit != 0)
    {
        tape.attempt(libc::SYS_membarrier, &[command, 0, 0]);
    }
}

fn score(task: &Task) -> Result<()> {
    let Some(tc) = task.cores[0].tc.as_ref() else {
        return Ok(());
    };
    if let Some(score) = tc.oom_score_adj {
        let path = format!("{}/{}/oom_score_adj", crate::procfs::root(), task.pid);
        let current = std::fs::read_to_string(&path).during("read", &path)?;
        if current.trim() != score.to_string() {
            std::fs::write(&path, score.to_string()).during("write", &path)?;
        }
    }
    Ok(())
}

/// The audit system's user, which a process can only set itself.
fn login(task: &Task, stub: &Stub) -> Result<()> {
    let Some(user) = task.cores[0].tc.as_ref().and_then(|tc| tc.loginuid) else {
        return Ok(());
    };
    let now = procfs::read(stub.pid, "loginuid").unwrap_or_default();
    if now.trim() == user.to_string() {
        return Ok(());
    }
    const PATH: &[u8; 20] = b"/proc/self/loginuid\0";
    let text = user.to_string();
    let address = tape::place(
        &stub.injector,
        stub.arena,
        &[PATH, text.as_bytes()].concat(),
    )?;
    let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as u64;
    let open = [libc::AT_FDCWD as u64, address, flags, 0, 0, 0];
    let what = "set the login user of";
    let fd = stub.injector.call(what, libc::SYS_openat, open)?;
    let from = address + PATH.len() as u64;
    let write = [fd, from, text.len() as u64, 0, 0, 0];
    stub.injector.call(what, libc::SYS_write, write)?;
    stub.injector
        .call(what, libc::SYS_close, [fd, 0, 0, 0, 0, 0])
        .map(drop)
}

fn thread(core: &CoreEntry, tape: &mut Tape) {
    let Some(thread) = core.thread_core.as_ref() else {
        return;
    };
    let clear_tid = arch::clear_tid_address(core);
    tape.call(
        "set",
        "tid address",
        libc::SYS_set_tid_address,
        &[clear_tid],
    );
    if thread.futex_rla_len != 0 {
        let arguments = [thread.futex_rla, u64::from(thread.futex_rla_len)];
        tape.call("set", "robust list", libc::SYS_set_robust_list, &arguments);
    }
    if let Some(stack) = &thread.sas {
        let mut bytes = stack.ss_sp.to_le_bytes().to_vec();
        // SS_ONSTACK is only ever reported.
        bytes.extend_from_slice(&u64::from(stack.ss_flags & !1).to_le_bytes());
        bytes.extend_from_slice(&stack.ss_size.to_le_bytes());
        let stack = tape.data(&bytes);
        tape.call("set", "signal stack", libc::SYS_sigaltstack, &[stack, 0]);
    }
    let comm = thread
        .comm
        .clone()
        .or_else(|| core.tc.as_ref().map(|tc| tc.comm.clone()));
    if let Some(comm) = comm {
        let comm = tape.text(&comm);
        tape.call(
            "set",
            "comm",
            libc::SYS_prctl,
            &[libc::PR_SET_NAME as u64, comm, 0, 0, 0],
        );
    }
    scheduling(thread, tape);
    if let Some(rseq) = &thread.rseq_entry {
        let arguments = [
            rseq.rseq_abi_pointer,
            u64::from(rseq.rseq_abi_size),
            0,
            u64::from(rseq.signature),
        ];
        tape.call("register", "rseq area", libc::SYS_rseq, &arguments);
    }
}

fn scheduling(thread: &ThreadCoreEntry, tape: &mut Tape) {
    let policy = thread.sched_policy.unwrap_or(0);
    let priority = tape.data(&thread.sched_prio.unwrap_or(0).to_le_bytes());
    tape.call(
        "set",
        "scheduling policy",
        libc::SYS_sched_setscheduler,
        &[0, u64::from(policy), priority],
    );
    if [0, 3].contains(&(policy & 0xff)) {
        let nice = i64::from(thread.sched_nice.unwrap_or(0)) as u64;
        tape.call("set", "nice value", libc::SYS_setpriority, &[0, 0, nice]);
    }
}

/// Flags that a change of credentials resets, and limits, which may forbid what came before.
fn after_credentials(task: &Task, core: &CoreEntry, injector: &Injector, tape: &mut Tape) {
    let Some(thread) = core.thread_core.as_ref() else {
        return;
    };
    if let Some(signal) = thread.pdeath_sig {
        let arguments = [libc::PR_SET_PDEATHSIG as u64, u64::from(signal), 0, 0, 0];
        tape.call("set", "death signal", libc::SYS_prctl, &arguments);
    }
    let leader = injector.thread.as_raw_nonzero().get() == task.pid;
    if !leader {
        return;
    }
    if let Some(dumpable @ (0 | 1)) = task.mm.dumpable {
        let arguments = [libc::PR_SET_DUMPABLE as u64, dumpable as u64, 0, 0, 0];
        tape.call("set", "dumpable", libc::SYS_prctl, &arguments);
    }
    let limits = core.tc.as_ref().and_then(|tc| tc.rlimits.as_ref());
    for (number, limit) in limits
        .into_iter()
        .flat_map(|limits| &limits.rlimits)
        .enumerate()
    {
        let bytes = [limit.cur.to_le_bytes(), limit.max.to_le_bytes()].concat();
        let limit = tape.data(&bytes);
        tape.call(
            "set limit",
            number,
            libc::SYS_prlimit64,
            &[0, number as u64, limit, 0],
        );
    }
}

/// Timers, signals and registers; nothing of ours is left in the process afterwards.
pub(crate) fn finish(task: &Task, stub: &mut Stub) -> Result<()> {
    if task.is_dead() {
        return Ok(());
    }
    for (at, (injector, core)) in injectors(task, stub).enumerate() {
        let mut tape = Tape::new(stub.arena);
        let thread = core.thread_core.as_ref();
        queue_signals(
            thread.and_then(|thread| thread.signals_p.as_ref()),
            true,
            task,
            injector,
            &mut tape,
        );
        if at == 0 {
            let tc = core.tc.as_ref();
            queue_signals(
                tc.and_then(|tc| tc.signals_s.as_ref()),
                false,
                task,
                injector,
                &mut tape,
            );
            if let Some(timers) = tc.and_then(|tc| tc.timers.as_ref()) {
                timer::arm(timers, &mut tape);
            }
        }
        tape.play(injector)?;
    }
    restore_trap(task, stub)?;
    tape::unload(&stub.injector, stub.arena)?;
    for (injector, core) in injectors(task, stub) {
        registers(injector, core)?;
    }
    Ok(())
}

/// The number of the signal in a `siginfo_t`.
fn number_of(info: &[u8]) -> u64 {
    info.get(..4).map_or(0, |b| {
        u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    })
}

fn infos(queue: Option<&SignalQueueEntry>) -> impl Iterator<Item = Vec<u8>> {
    queue
        .into_iter()
        .flat_map(|queue| &queue.signals)
        .map(|signal| {
            let mut info = signal.siginfo.clone();
            info.resize(ptrace::SIGINFO_SIZE, 0);
            info
        })
}

/// Which queue, as the call that fills it and its leading arguments.
fn queueing(own: bool, task: &Task, injector: &Injector) -> (i64, Vec<u64>) {
    let thread = injector.thread.as_raw_nonzero().get() as u64;
    if own {
        (libc::SYS_rt_tgsigqueueinfo, vec![task.pid as u64, thread])
    } else {
        (libc::SYS_rt_sigqueueinfo, vec![task.pid as u64])
    }
}

fn queue_signals(
    queue: Option<&SignalQueueEntry>,
    own: bool,
    task: &Task,
    injector: &Injector,
    tape: &mut Tape,
) {
    for info in infos(queue).filter(|info| number_of(info) != SIGTRAP) {
        let number = number_of(&info);
        let info = tape.data(&info);
        let (call, mut arguments) = queueing(own, task, injector);
        arguments.extend([number, info]);
        tape.call("queue signal", number, call, &arguments);
    }
}

/// SIGTRAP ends every tape, so what concerns it comes after the last one.
fn restore_trap(task: &Task, stub: &Stub) -> Result<()> {
    for (at, (injector, core)) in injectors(task, stub).enumerate() {
        let thread = core
            .thread_core
            .as_ref()
            .and_then(|thread| thread.signals_p.as_ref());
        let process = core
            .tc
            .as_ref()
            .and_then(|tc| tc.signals_s.as_ref())
            .filter(|_| at == 0);
        for (queue, own) in [(thread, true), (process, false)] {
            for info in infos(queue).filter(|info| number_of(info) == SIGTRAP) {
                let info = tape::place(injector, stub.arena, &info)?;
                let (call, mut arguments) = queueing(own, task, injector);
                arguments.extend([SIGTRAP, info]);
                arguments.resize(6, 0);
                let six = std::array::from_fn(|at| arguments[at]);
                injector.call("queue SIGTRAP for", call, six)?;
            }
        }
    }
    let actions = task.cores[0].tc.as_ref().map(|tc| &tc.sigactions);
    let Some(action) = actions.and_then(|actions| actions.get(SIGTRAP as usize - 1)) else {
        return Ok(());
    };
    let words = [action.sigaction, action.flags, action.restorer, action.mask];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let address = tape::place(&stub.injector, stub.arena, &bytes)?;
    let arguments = [SIGTRAP, address, 0, 8, 0, 0];
    stub.injector
        .call(
            "set handler of SIGTRAP in",
            libc::SYS_rt_sigaction,
            arguments,
        )
        .map(drop)
}

fn registers(injector: &Injector, core: &CoreEntry) -> Result<()> {
    let thread = injector.thread;
    arch::restore_extended_state(thread, core)?;
    let registers = Registers::from_image(core, &format!("core-{thread}.img"))?;
    registers
        .install(thread)
        .during("restore registers of", thread)?;
    let own = core.thread_core.as_ref();
    if let Some(rseq) = own.and_then(|own| own.rseq_entry.as_ref()) {
        // What the thread did for us made the kernel forget the section.
        enter_section(
            thread,
            rseq.rseq_abi_pointer,
            rseq.rseq_cs_pointer.unwrap_or(0),
        )
        .during("restore the critical section of", thread)?;
    }
    let leader_mask = core.tc.as_ref().map_or(0, |tc| tc.blk_sigset);
    let mask = core
        .thread_core
        .as_ref()
        .and_then(|thread| thread.blk_sigset)
        .unwrap_or(leader_mask);
    ptrace::set_signal_mask(thread, mask).during("restore signal mask of", thread)
}
