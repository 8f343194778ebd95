//! BPF programs: load, attach to a control group, find again. bpf(2), `linux/bpf.h`.
//!
//! A program attached with [`attach`] belongs to the group: it stays when its loader exits and
//! goes with the group.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Errno, Result};

/// What a program may be attached to; the numbers are `enum bpf_prog_type`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ProgramType {
    CgroupSkb = 8,
    CgroupSock = 9,
    CgroupDevice = 15,
    CgroupSockAddr = 18,
}

/// A hook of a control group; the numbers are `enum bpf_attach_type`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    CgroupInetIngress = 0,
    CgroupInetEgress = 1,
    CgroupSockCreate = 2,
    CgroupDevice = 6,
    CgroupInet4Bind = 8,
    CgroupInet6Bind = 9,
    CgroupInet4Connect = 10,
    CgroupInet6Connect = 11,
    CgroupUdp4Sendmsg = 14,
    CgroupUdp6Sendmsg = 15,
}

/// How a new program gets along with those that are attached already.
#[derive(Debug, Clone, Copy)]
pub enum Attach<'a> {
    /// Beside the others; all must allow.
    Beside,
    /// In the place of this one, with no moment without either. Since Linux 5.6.
    Replace(BorrowedFd<'a>),
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;

const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The front part of `struct bpf_prog_info`; the kernel fills what the caller has room for.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    prog_type: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// Loads a program. `name` is cut at 15 bytes; letters, digits, `_` and `.` only.
///
/// # Errors
/// `EPERM` without CAP_BPF (before Linux 5.8: CAP_SYS_ADMIN); `EINVAL`, `EACCES` where the
/// verifier refuses the program.
pub fn load(kind: ProgramType, name: &str, instructions: &[u64]) -> Result<OwnedFd> {
    load_expecting(kind, 0, name, instructions)
}

/// Loads a program that is for this hook only: what it may do and return depends on the hook.
///
/// # Errors
/// As [`load`].
pub fn load_for(
    kind: ProgramType,
    hook: AttachType,
    name: &str,
    instructions: &[u64],
) -> Result<OwnedFd> {
    load_expecting(kind, hook as u32, name, instructions)
}

fn load_expecting(
    kind: ProgramType,
    expected_attach_type: u32,
    name: &str,
    instructions: &[u64],
) -> Result<OwnedFd> {
    const LICENSE: &CStr = c"Apache-2.0";
    let attr = LoadAttr {
        prog_type: kind as u32,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?,
        insns: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        prog_name: fixed_name(name),
        expected_attach_type,
        ..LoadAttr::default()
    };
    // The pointers in `attr` are a slice's and a constant's, alive until the call returns.
    let fd = bpf(BPF_PROG_LOAD, &attr)?;
    owned(fd)
}

/// Attaches a program to a group of the v2 hierarchy.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN/CAP_SYS_ADMIN, or where an ancestor's program forbids company.
pub fn attach(
    group: BorrowedFd<'_>,
    hook: AttachType,
    program: BorrowedFd<'_>,
    how: Attach<'_>,
) -> Result<()> {
    let (flags, replaced) = match &how {
        Attach::Beside => (BPF_F_ALLOW_MULTI, 0),
        Attach::Replace(old) => (BPF_F_ALLOW_MULTI | BPF_F_REPLACE, number(*old)),
    };
    let attr = AttachAttr {
        target_fd: number(group),
        attach_bpf_fd: number(program),
        attach_type: hook as u32,
        attach_flags: flags,
        replace_bpf_fd: replaced,
    };
    bpf(BPF_PROG_ATTACH, &attr).map(drop)
}

/// Takes a program off a group.
///
/// # Errors
/// `ENOENT` if it is not attached there.
pub fn detach(group: BorrowedFd<'_>, hook: AttachType, program: BorrowedFd<'_>) -> Result<()> {
    let attr = AttachAttr {
        target_fd: number(group),
        attach_bpf_fd: number(program),
        attach_type: hook as u32,
        ..AttachAttr::default()
    };
    bpf(BPF_PROG_DETACH, &attr).map(drop)
}

/// The ids of the programs attached to the group itself; at most 64 are told.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN; `ENOSPC` if there are more.
pub fn attached(group: BorrowedFd<'_>, hook: AttachType) -> Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let attr = QueryAttr {
        target_fd: number(group),
        attach_type: hook as u32,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        ..QueryAttr::default()
    };
    let attr = bpf_filled(BPF_PROG_QUERY, attr)?;
    Ok(ids.iter().take(attr.prog_cnt as usize).copied().collect())
}

/// A loaded program by its id.
///
/// # Errors
/// `ENOENT` if it is gone; `EPERM` without CAP_SYS_ADMIN.
pub fn by_id(id: u32) -> Result<OwnedFd> {
    let attr = IdAttr {
        id,
        ..IdAttr::default()
    };
    owned(bpf(BPF_PROG_GET_FD_BY_ID, &attr)?)
}

/// The name that a program was loaded with.
///
/// # Errors
/// `EINVAL` if the descriptor is not a program's.
pub fn name(program: BorrowedFd<'_>) -> Result<String> {
    let mut info = ProgramInfo::default();
    let attr = InfoAttr {
        bpf_fd: number(program),
        info_len: size_of::<ProgramInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attr)?;
    let name = info
        .name
        .iter()
        .take_while(|byte| **byte != 0)
        .copied()
        .collect();
    Ok(String::from_utf8(name).unwrap_or_default())
}

fn fixed_name(name: &str) -> [u8; 16] {
    let mut fixed = [0; 16];
    // The last byte stays NUL.
    for (slot, byte) in fixed.iter_mut().zip(name.bytes().take(15)) {
        *slot = byte;
    }
    fixed
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A descriptor that is open is not negative.
    fd.as_raw_fd().unsigned_abs()
}

fn bpf<T>(command: libc::c_long, attr: &T) -> Result<libc::c_long> {
    // SAFETY: `attr` outlives the call and its size is its own; it is one of this module's
    // #[repr(C)] structures, whose embedded pointers their makers keep alive. The commands used
    // with a shared reference write nothing to the structure itself.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(result)
    }
}

/// For commands that answer in the structure.
fn bpf_filled<T>(command: libc::c_long, mut attr: T) -> Result<T> {
    // SAFETY: as in `bpf`, through an exclusive pointer.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<T>()) };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(attr)
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| Errno::IO)?;
    // SAFETY: the kernel just made this descriptor for us (close-on-exec, as all of bpf(2)'s).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
