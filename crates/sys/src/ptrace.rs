//! Tracing other tasks: stop them, read and write their registers, let them run on.
//!
//! ptrace(2). Everything here works on a task id that the caller has seized with [`seize`]; the
//! kernel answers ESRCH where the task is not stopped or not ours. Registers travel as the
//! kernel's register sets (`PTRACE_GETREGSET`), whose layout only architecture code knows.
//!
//! SAFETY, once for the module: `PTRACE_GETREGSET` and its kin write at most the length that the
//! passed iovec names, which is that of the borrowed buffer; the other requests take integers.

use rustix::process::Pid;

use crate::{Errno, Result};

/// General registers (`NT_PRSTATUS`).
pub const NT_PRSTATUS: u32 = 1;
/// The full extended state of x86 in the non-compacted xsave layout.
pub const NT_X86_XSTATE: u32 = 0x202;

const PTRACE_GETSIGMASK: u32 = 0x420a;
const PTRACE_SETSIGMASK: u32 = 0x420b;
const PTRACE_SECCOMP_GET_FILTER: u32 = 0x420c;
const PTRACE_SECCOMP_GET_METADATA: u32 = 0x420d;
const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;
const PTRACE_PEEKSIGINFO_SHARED: u32 = 1;

/// The signal of a stop at the entry or the exit of a system call.
pub const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// Size of the kernel's `siginfo_t`.
pub const SIGINFO_SIZE: usize = 128;

/// What [`seize`] asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Kill the task when the tracer ends.
    pub exit_kill: bool,
    /// Attach to the children and threads that the task creates.
    pub follow_clones: bool,
    /// Let injected calls pass the task's seccomp filters; needs CAP_SYS_ADMIN (since Linux 4.3).
    pub suspend_seccomp: bool,
}

impl Options {
    fn bits(self) -> u64 {
        let mut bits = libc::PTRACE_O_TRACESYSGOOD;
        if self.exit_kill {
            bits |= libc::PTRACE_O_EXITKILL;
        }
        if self.follow_clones {
            bits |=
                libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;
        }
        if self.suspend_seccomp {
            bits |= libc::PTRACE_O_SUSPEND_SECCOMP;
        }
        u64::from(bits as u32)
    }
}

/// What a task did, as [`wait`] saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It left with this status.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// It is stopped: by `signal`, in ptrace event `event` (0: none, the signal is to be delivered).
    Stopped {
        /// The signal that it would see.
        signal: i32,
        /// `PTRACE_EVENT_*`, or 0.
        event: i32,
    },
}

/// The area that a thread registered with rseq(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RseqConfiguration {
    /// Address of the area; 0: none is registered.
    pub address: u64,
    /// Its size in bytes.
    pub size: u32,
    /// The signature that precedes abort handlers.
    pub signature: u32,
    /// Always 0.
    pub flags: u32,
    pad: u32,
}

fn request(request: u32, task: Pid, address: usize, data: usize) -> Result<i64> {
    // SAFETY: callers pass only requests whose pointers come from live references (module header).
    let result = unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::c_long::from(request),
            libc::c_long::from(task.as_raw_nonzero().get()),
            address,
            data,
        )
    };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(result)
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Attaches to `task` without stopping it (since Linux 3.4).
///
/// # Errors
/// EPERM: no right to trace it, or it has a tracer already. ESRCH: gone, or a zombie.
pub fn seize(task: Pid, options: Options) -> Result<()> {
    request(libc::PTRACE_SEIZE, task, 0, options.bits() as usize).map(drop)
}

/// Replaces the options given to [`seize`]; the task must be stopped.
///
/// # Errors
/// ESRCH: not stopped.
pub fn set_options(task: Pid, options: Options) -> Result<()> {
    request(libc::PTRACE_SETOPTIONS, task, 0, options.bits() as usize).map(drop)
}

/// Asks a seized task to stop; [`wait`] tells when it has.
///
/// # Errors
/// ESRCH: gone.
pub fn interrupt(task: Pid) -> Result<()> {
    request(libc::PTRACE_INTERRUPT, task, 0, 0).map(drop)
}

/// Lets a stopped task run, delivering `signal` unless it is 0.
///
/// # Errors
/// ESRCH: not stopped.
pub fn resume(task: Pid, signal: i32) -> Result<()> {
    request(libc::PTRACE_CONT, task, 0, signal as usize).map(drop)
}

/// Lets a stopped task run until it enters or leaves a system call: [`SYSCALL_STOP`].
///
/// # Errors
/// ESRCH: not stopped.
pub fn resume_to_syscall(task: Pid) -> Result<()> {
    request(libc::PTRACE_SYSCALL, task, 0, 0).map(drop)
}

/// Ends tracing; the task runs on, seeing `signal` unless it is 0.
///
/// # Errors
/// ESRCH: not stopped.
pub fn detach(task: Pid, signal: i32) -> Result<()> {
    request(libc::PTRACE_DETACH, task, 0, signal as usize).map(drop)
}

/// Reads register set `kind` into `buffer`; returns the bytes that the kernel has for it.
///
/// # Errors
/// EINVAL or ENODEV: this processor has no such set.
pub fn register_set(task: Pid, kind: u32, buffer: &mut [u8]) -> Result<usize> {
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let pointer = std::ptr::from_mut(&mut vector) as usize;
    request(libc::PTRACE_GETREGSET, task, kind as usize, pointer)?;
    Ok(vector.iov_len)
}

/// Writes register set `kind`.
///
/// # Errors
/// EINVAL: the set's length or content is refused.
pub fn set_register_set(task: Pid, kind: u32, buffer: &[u8]) -> Result<()> {
    let vector = libc::iovec {
        iov_base: buffer.as_ptr().cast_mut().cast(),
        iov_len: buffer.len(),
    };
    let pointer = std::ptr::from_ref(&vector) as usize;
    request(libc::PTRACE_SETREGSET, task, kind as usize, pointer).map(drop)
}

/// The thread's mask of blocked signals (since Linux 3.11).
///
/// # Errors
/// ESRCH: not stopped.
pub fn signal_mask(task: Pid) -> Result<u64> {
    let mut mask = 0_u64;
    request(
        PTRACE_GETSIGMASK,
        task,
        8,
        std::ptr::from_mut(&mut mask) as usize,
    )?;
    Ok(mask)
}

/// Sets the thread's mask of blocked signals.
///
/// # Errors
/// ESRCH: not stopped.
pub fn set_signal_mask(task: Pid, mask: u64) -> Result<()> {
    request(
        PTRACE_SETSIGMASK,
        task,
        8,
        std::ptr::from_ref(&mask) as usize,
    )
    .map(drop)
}

/// The `siginfo_t` of the signal that stopped the task.
///
/// # Errors
/// EINVAL: the stop is a group-stop.
pub fn siginfo(task: Pid) -> Result<[u8; SIGINFO_SIZE]> {
    let mut info = [0_u8; SIGINFO_SIZE];
    request(libc::PTRACE_GETSIGINFO, task, 0, info.as_mut_ptr() as usize)?;
    Ok(info)
}

/// Which queue of pending signals [`pending_signals`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// The thread's own.
    Thread,
    /// The one that all threads of the process share.
    Process,
}

/// All signals pending in `queue`, oldest first, without taking them out (since Linux 3.10).
///
/// # Errors
/// ESRCH: not stopped.
pub fn pending_signals(task: Pid, queue: Queue) -> Result<Vec<[u8; SIGINFO_SIZE]>> {
    #[repr(C)]
    struct Arguments {
        offset: u64,
        flags: u32,
        count: i32,
    }
    let mut all = Vec::new();
    loop {
        let mut batch = [[0_u8; SIGINFO_SIZE]; 32];
        let arguments = Arguments {
            offset: all.len() as u64,
            flags: if queue == Queue::Process {
                PTRACE_PEEKSIGINFO_SHARED
            } else {
                0
            },
            count: 32,
        };
        let got = request(
            libc::PTRACE_PEEKSIGINFO,
            task,
            std::ptr::from_ref(&arguments) as usize,
            batch.as_mut_ptr() as usize,
        )?;
        all.extend_from_slice(&batch[..got as usize]);
        if got == 0 {
            return Ok(all);
        }
    }
}

/// The task id of the child or thread whose creation stopped the task.
///
/// # Errors
/// ESRCH: not stopped.
pub fn event_message(task: Pid) -> Result<u64> {
    let mut message = 0_u64;
    request(
        libc::PTRACE_GETEVENTMSG,
        task,
        0,
        std::ptr::from_mut(&mut message) as usize,
    )?;
    Ok(message)
}

/// What the thread registered with rseq(2) (since Linux 5.13).
///
/// # Errors
/// EIO: the kernel is older or built without restartable sequences.
pub fn rseq_configuration(task: Pid) -> Result<RseqConfiguration> {
    let mut configuration = RseqConfiguration::default();
    request(
        PTRACE_GET_RSEQ_CONFIGURATION,
        task,
        size_of::<RseqConfiguration>(),
        std::ptr::from_mut(&mut configuration) as usize,
    )?;
    Ok(configuration)
}

/// The thread's seccomp filter number `index`, oldest first, as the bytes of its instructions;
/// `None`: it has no more (since Linux 4.4).
///
/// # Errors
/// EACCES: no CAP_SYS_ADMIN, or the caller is filtered itself. EMEDIUMTYPE: it is no classic filter.
pub fn seccomp_filter(task: Pid, index: usize) -> Result<Option<Vec<u8>>> {
    let count = match request(PTRACE_SECCOMP_GET_FILTER, task, index, 0) {
        Err(Errno::NOENT) => return Ok(None),
        other => other? as usize,
    };
    let mut program = vec![0_u8; count * 8];
    let pointer = program.as_mut_ptr() as usize;
    request(PTRACE_SECCOMP_GET_FILTER, task, index, pointer)?;
    Ok(Some(program))
}

/// The `SECCOMP_FILTER_FLAG_*` that filter number `index` was loaded with (since Linux 4.16).
///
/// # Errors
/// As [`seccomp_filter`]; ENOENT: no such filter.
pub fn seccomp_flags(task: Pid, index: usize) -> Result<u64> {
    let mut metadata = [index as u64, 0];
    let pointer = metadata.as_mut_ptr() as usize;
    request(
        PTRACE_SECCOMP_GET_METADATA,
        task,
        size_of_val(&metadata),
        pointer,
    )?;
    Ok(metadata[1])
}

/// Waits until `task` (a thread or a process) stops or ends.
///
/// # Errors
/// ECHILD: neither a child nor a traced task of ours.
pub fn wait(task: Pid) -> Result<Event> {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let got =
            unsafe { libc::waitpid(task.as_raw_nonzero().get(), &raw mut status, libc::__WALL) };
        if got < 0 {
            match last_errno() {
                Errno::INTR => continue,
                errno => return Err(errno),
            }
        }
        return Ok(decode(status));
    }
}

/// [`wait`], but `None` at once if nothing has happened.
///
/// # Errors
/// As [`wait`].
pub fn try_wait(task: Pid) -> Result<Option<Event>> {
    let mut status = 0;
    let options = libc::__WALL | libc::WNOHANG;
    // SAFETY: `status` outlives the call.
    let got = unsafe { libc::waitpid(task.as_raw_nonzero().get(), &raw mut status, options) };
    match got {
        0 => Ok(None),
        got if got < 0 => Err(last_errno()),
        _ => Ok(Some(decode(status))),
    }
}

fn decode(status: i32) -> Event {
    if libc::WIFEXITED(status) {
        Event::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Event::Killed(libc::WTERMSIG(status))
    } else {
        Event::Stopped {
            signal: libc::WSTOPSIG(status),
            event: status >> 16,
        }
    }
}
