//! Stops a process tree consistently, and lets it run on as if nothing had been.
//!
//! Problem: while we attach to one task, another forks. Solution: a stopped task creates nothing,
//! so threads and children of stopped tasks are listed again until a listing has nothing new.
//! Whatever happens, [`FrozenTree`] gives every task back its registers and signal mask when it is
//! dropped: a failed dump leaves no trace.

use rustix::process::Pid;
use sys::Errno;
use sys::ptrace::{self, Event, Options};

use crate::arch::Registers;
use crate::error::{Context, Error, Result};
use crate::freezer::Freezer;
use crate::inject::{EVENT_STOP, Injector};
use crate::procfs::{self, Lines, Stat};

/// All signals that can be blocked.
const ALL_SIGNALS: u64 = !0;

/// A stopped thread and what it gets back.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) tid: Pid,
    pub(crate) registers: Registers,
    pub(crate) mask: u64,
    pub(crate) rseq: Option<Rseq>,
}

/// What a thread registered with rseq(2), and the critical section that it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rseq {
    pub(crate) configuration: ptrace::RseqConfiguration,
    /// Address of the section's description; 0: none.
    pub(crate) section: u64,
}

/// Where the area points at the section.
const SECTION: u64 = 8;

impl Rseq {
    /// Before the thread makes its first call for us: the kernel then finds it outside of its
    /// section and forgets that.
    fn of(tid: Pid) -> Option<Self> {
        let configuration = ptrace::rseq_configuration(tid).ok()?;
        if configuration.address == 0 {
            return None;
        }
        let mut section = [0; 8];
        let at = configuration.address + SECTION;
        sys::process_memory::read_exact(tid, at, &mut section).ok()?;
        Some(Self {
            configuration,
            section: u64::from_le_bytes(section),
        })
    }
}

/// Reminds the kernel that the thread is in a section, so that it leaves it by its abort handler.
pub(crate) fn enter_section(tid: Pid, area: u64, section: u64) -> sys::Result<()> {
    if section == 0 {
        return Ok(());
    }
    sys::process_memory::write_all(tid, area + SECTION, &section.to_le_bytes())
}

/// What a process was doing before we came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Running or sleeping.
    Alive,
    /// Stopped by this signal.
    Stopped(i32),
    /// Ended with this wait status; its parent has not asked yet.
    Zombie(u32),
}

/// A stopped process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) stat: Stat,
    pub(crate) state: State,
    /// The leader first. Empty for a zombie.
    pub(crate) threads: Vec<Thread>,
    /// Calls from the leader; `None` for a zombie.
    pub(crate) injector: Option<Injector>,
    /// Memory that we mapped into it: address, length.
    pub(crate) scratch: Option<(u64, u64)>,
}

/// A whole tree, stopped; parents stand before their children.
#[derive(Debug, Default)]
pub(crate) struct FrozenTree {
    pub(crate) processes: Vec<Process>,
    /// Threads that are seized but not yet known to be stopped.
    pending: Vec<Pid>,
    /// The group that the tree is in.
    freezer: Option<Freezer>,
}

impl FrozenTree {
    /// Stops `root` and all its descendants, by way of their group if there is one.
    pub(crate) fn stop(root: Pid, freezer: Option<Freezer>) -> Result<Self> {
        let mut tree = Self {
            processes: Vec::new(),
            pending: Vec::new(),
            freezer,
        };
        if let Some(freezer) = &tree.freezer {
            freezer.freeze()?;
            tree.seize_frozen(root)?;
        }
        if let Some(freezer) = &tree.freezer {
            freezer.thaw()?;
        }
        tree.add(root)?;
        let mut next = 0;
        while next < tree.processes.len() {
            for child in children(&tree.processes[next])? {
                tree.add(child)?;
            }
            next += 1;
        }
        Ok(tree)
    }

    /// Tells everything that it has to stop, as soon as the group lets it.
    fn seize_frozen(&mut self, root: Pid) -> Result<()> {
        let mut waiting = vec![root];
        while let Some(pid) = waiting.pop() {
            if Stat::of(pid)?.state == 'Z' {
                continue;
            }
            for tid in procfs::numbers_in(pid, "task")? {
                let Some(tid) = Pid::from_raw(tid) else {
                    continue;
                };
                self.attach(pid, tid)?;
                let text = procfs::read(pid, &format!("task/{tid}/children"))?;
                let numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
                waiting.extend(numbers.filter_map(Pid::from_raw));
            }
        }
        Ok(())
    }

    fn add(&mut self, pid: Pid) -> Result<()> {
        let stat = Stat::of(pid)?;
        if stat.state == 'Z' && procfs::numbers_in(pid, "task")?.len() < 2 {
            let state = State::Zombie(stat.exit_code);
            let process = Process {
                pid,
                stat,
                state,
                threads: Vec::new(),
                injector: None,
                scratch: None,
            };
            self.processes.push(process);
            return Ok(());
        }
        let process = Process {
            pid,
            stat,
            state: State::Alive,
            threads: Vec::new(),
            injector: None,
            scratch: None,
        };
        self.processes.push(process);
        let mut ended = Vec::new();
        loop {
            let known: Vec<Pid> = self
                .last()
                .threads
                .iter()
                .map(|thread| thread.tid)
                .collect();
            let listed = procfs::numbers_in(pid, "task")?;
            let new = listed
                .into_iter()
                .filter_map(Pid::from_raw)
                .find(|tid| !known.contains(tid) && !ended.contains(tid));
            let Some(tid) = new else { break };
            if !self.seize(pid, tid)? {
                ended.push(tid);
            }
        }
        let process = self.last();
        process.stat = Stat::of(pid)?;
        if process.threads.is_empty() {
            // It ended while we came.
            process.state = State::Zombie(process.stat.exit_code);
            return Ok(());
        }
        if ended.contains(&pid) {
            let cause = "its first thread has ended before the others, which is not supported yet";
            return Err(Error::because("stop process", pid, cause));
        }
        process
            .threads
            .sort_by_key(|thread| (thread.tid != pid, thread.tid.as_raw_nonzero()));
        let mappings = procfs::plain_mappings(pid)?;
        let leader = process.threads.first().map_or(pid, |thread| thread.tid);
        process.injector = Some(Injector::new(leader, &mappings)?);
        Ok(())
    }

    fn last(&mut self) -> &mut Process {
        let at = self.processes.len() - 1;
        &mut self.processes[at]
    }

    /// Attaches to a thread and asks it to stop. One that has ended is not pending afterwards.
    fn attach(&mut self, pid: Pid, tid: Pid) -> Result<()> {
        let status = Lines::status(pid, tid)?;
        let filtered = status.number("Seccomp") != 0;
        let options = Options {
            suspend_seccomp: filtered,
            ..Options::default()
        };
        match ptrace::seize(tid, options) {
            Ok(()) => {}
            // It ended between the listing and now.
            Err(Errno::SRCH) if Stat::of_thread(pid, tid).is_err() => return Ok(()),
            Err(Errno::PERM) if Stat::of_thread(pid, tid).is_ok_and(|stat| stat.state == 'Z') => {
                return Ok(());
            }
            Err(Errno::PERM) if status.number("TracerPid") != 0 => {
                let cause = format!("process {} traces it", status.number("TracerPid"));
                return Err(Error::because("stop thread", tid, cause));
            }
            Err(errno) => return Err(Error::kernel("stop thread", tid, errno)),
        }
        self.pending.push(tid);
        ptrace::interrupt(tid).during("stop thread", tid)
    }

    /// Whether the thread stands still now; it may have ended.
    fn seize(&mut self, pid: Pid, tid: Pid) -> Result<bool> {
        if !self.pending.contains(&tid) {
            self.attach(pid, tid)?;
        }
        if !self.pending.contains(&tid) {
            return Ok(false);
        }
        let stop_signal = wait_until_stopped(tid)?;
        let registers = Registers::of(tid).during("read registers of", tid)?;
        let mask = ptrace::signal_mask(tid).during("read signal mask of", tid)?;
        let rseq = Rseq::of(tid);
        self.pending.retain(|pending| *pending != tid);
        let process = self.last();
        if let Some(signal) = stop_signal {
            process.state = State::Stopped(signal);
        }
        process.threads.push(Thread {
            tid,
            registers,
            mask,
            rseq,
        });
        ptrace::set_signal_mask(tid, ALL_SIGNALS).during("block signals of", tid)?;
        Ok(true)
    }

    /// Lets everything run on.
    pub(crate) fn thaw(self) {
        drop(self);
    }

    /// Ends everything, children first. Each process is gone or a zombie afterwards.
    pub(crate) fn kill(mut self) {
        for process in self.processes.drain(..).rev() {
            // The parent must not hear of it: it is about to go as well, and its own queue of
            // signals has been read already.
            let _ = rustix::process::kill_process(process.pid, rustix::process::Signal::KILL);
            for thread in process.threads.iter().rev() {
                while let Ok(Event::Stopped { .. }) = ptrace::wait(thread.tid) {}
            }
        }
    }
}

impl Drop for FrozenTree {
    fn drop(&mut self) {
        if let Some(freezer) = &self.freezer {
            let _ = freezer.thaw();
        }
        for process in self.processes.iter().rev() {
            if let (Some(injector), Some((address, length))) = (&process.injector, process.scratch)
            {
                let _ = injector.try_call(libc::SYS_munmap, [address, length, 0, 0, 0, 0]);
            }
            for thread in &process.threads {
                let _ = thread.registers.install(thread.tid);
                if let Some(rseq) = thread.rseq {
                    let _ = enter_section(thread.tid, rseq.configuration.address, rseq.section);
                }
                let _ = ptrace::set_signal_mask(thread.tid, thread.mask);
                // Only in this kind of stop does the kernel see that an interrupted call is to be
                // made again.
                let _ = ptrace::interrupt(thread.tid);
                let _ = ptrace::resume(thread.tid, 0);
                let _ = wait_until_stopped(thread.tid);
            }
            if process
                .injector
                .as_ref()
                .is_some_and(|injector| injector.stop_seen.get())
            {
                let _ = rustix::process::kill_process(process.pid, rustix::process::Signal::STOP);
            }
        }
        if let Some(freezer) = &self.freezer {
            freezer.leave();
        }
        for thread in self
            .processes
            .iter()
            .rev()
            .flat_map(|process| &process.threads)
        {
            let _ = ptrace::detach(thread.tid, 0);
        }
        for tid in &self.pending {
            let _ = ptrace::detach(*tid, 0);
        }
    }
}

/// Waits for the stop that [`ptrace::interrupt`] asked for; the signal, if it was stopped already.
pub(crate) fn wait_until_stopped(tid: Pid) -> Result<Option<i32>> {
    loop {
        match ptrace::wait(tid).during("stop thread", tid)? {
            Event::Stopped {
                signal: libc::SIGTRAP,
                event: EVENT_STOP,
            } => return Ok(None),
            Event::Stopped {
                signal,
                event: EVENT_STOP,
            } => return Ok(Some(signal)),
            // A signal came first: the thread sees it, and stops before its handler's first
            // instruction, because the request to stop still stands.
            Event::Stopped { signal, .. } => {
                ptrace::resume(tid, signal).during("stop thread", tid)?;
            }
            Event::Exited(_) | Event::Killed(_) => {
                return Err(Error::kernel("stop thread", tid, Errno::SRCH));
            }
        }
    }
}

/// Children of all its threads.
fn children(process: &Process) -> Result<Vec<Pid>> {
    let mut all = Vec::new();
    for thread in &process.threads {
        let text = procfs::read(process.pid, &format!("task/{}/children", thread.tid))?;
        all.extend(
            text.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .filter_map(Pid::from_raw),
        );
    }
    Ok(all)
}
