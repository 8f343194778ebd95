//! System call filters: seccomp(2), and the notifications of seccomp_unotify(2).

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{Errno, Result, result};

/// One instruction of classic BPF, as the kernel reads it (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    /// Instructions to skip when the jump's condition holds, and when not.
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// How a filter is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Answers other than "allow" are logged (Linux 4.14).
    pub log: bool,
    /// Leave the mitigation of speculative store bypass off (Linux 4.17).
    pub spec_allow: bool,
    /// Return the fd of the filter's notifications (Linux 5.0).
    pub listener: bool,
    /// While a notification is answered only a fatal signal interrupts the caller (Linux 5.19).
    pub wait_killable: bool,
}

impl Load {
    fn bits(self) -> libc::c_ulong {
        [
            (self.log, libc::SECCOMP_FILTER_FLAG_LOG),
            (self.spec_allow, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
            (self.listener, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER),
            (self.wait_killable, FLAG_WAIT_KILLABLE_RECV),
        ]
        .into_iter()
        .fold(0, |bits, (set, flag)| if set { bits | flag } else { bits })
    }
}

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
const FLAG_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Loads a filter into the calling thread; it also holds for all that this thread starts.
/// Returns the listener if one is asked for. Does not allocate.
///
/// # Errors
/// `EACCES` without CAP_SYS_ADMIN and without no_new_privs; `EINVAL` for a program that the kernel
/// refuses or a flag that it lacks; `ENOMEM` when all filters together are too long; `EBUSY` for a
/// second listener.
pub fn load(program: &[Instruction], how: Load) -> Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    // The kernel only reads from it.
    let filter = program.as_ptr().cast::<libc::sock_filter>().cast_mut();
    let fprog = libc::sock_fprog { len, filter };
    let fd = seccomp(libc::SECCOMP_SET_MODE_FILTER, how.bits(), &raw const fprog)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: with NEW_LISTENER the kernel returns a new fd, which nothing else knows of.
    Ok(how.listener.then(|| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows the action (`SECCOMP_RET_…`) (Linux 4.14).
///
/// # Errors
/// `EINVAL` where the kernel cannot tell.
pub fn knows_action(action: u32) -> Result<bool> {
    match seccomp(libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) {
        Ok(_) => Ok(true),
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether the kernel knows all the flags of `how`. Loads nothing.
#[must_use]
pub fn knows_flags(how: Load) -> bool {
    // Flags are judged before the program is read, and there is none.
    let none = std::ptr::null::<libc::sock_fprog>();
    seccomp(libc::SECCOMP_SET_MODE_FILTER, how.bits(), none) == Err(Errno::FAULT)
}

fn seccomp<T>(operation: u32, flags: libc::c_ulong, argument: *const T) -> Result<usize> {
    // SAFETY: the argument is null or points to what the operation reads, and outlives the call.
    result(unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, argument) })
}

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// Names this call in [`answer`].
    pub id: u64,
    /// The caller in the listener's pid namespace; 0 = not visible there.
    pub pid: u32,
    pub number: i32,
    /// `AUDIT_ARCH_…`.
    pub arch: u32,
    pub args: [u64; 6],
}

/// What the waiting call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Value(i64),
    Error(Errno),
    /// The call is carried out after all. Not for security: the caller may change its arguments
    /// after they were read (seccomp_unotify(2)).
    Continue,
}

/// Waits for the next call (Linux 5.0).
///
/// # Errors
/// `ENOENT`: the caller was killed in between; ask again.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Notification> {
    let mut notif = MaybeUninit::<libc::seccomp_notif>::zeroed();
    ioctl(
        listener,
        ioctl_number(3, 0, size_of::<libc::seccomp_notif>()),
        notif.as_mut_ptr(),
    )?;
    // SAFETY: all zeroes is a valid value of this plain struct, and the kernel has filled it.
    let notif = unsafe { notif.assume_init() };
    let libc::seccomp_data { nr, arch, args, .. } = notif.data;
    Ok(Notification {
        id: notif.id,
        pid: notif.pid,
        number: nr,
        arch,
        args,
    })
}

/// Answers a waiting call.
///
/// # Errors
/// `ENOENT`: the caller is gone.
pub fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<()> {
    const CONTINUE: u32 = 1;
    let (val, error, flags) = match answer {
        Answer::Value(value) => (value, 0, 0),
        Answer::Error(errno) => (0, -errno.raw_os_error(), 0),
        Answer::Continue => (0, 0, CONTINUE),
    };
    let mut response = libc::seccomp_notif_resp {
        id,
        val,
        error,
        flags,
    };
    ioctl(
        listener,
        ioctl_number(3, 1, size_of_val(&response)),
        &raw mut response,
    )
}

/// `_IOC(direction, '!', number, size)` as most architectures lay it out.
fn ioctl_number(direction: u32, number: u32, size: usize) -> u32 {
    let kind = u32::from(b'!');
    direction << 30 | u32::try_from(size).unwrap_or(0) << 16 | kind << 8 | number
}

fn ioctl<T>(fd: BorrowedFd<'_>, request: u32, argument: *mut T) -> Result<()> {
    // SAFETY: the request carries the argument's size, and the argument outlives the call.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), argument) }.into()).map(drop)
}
