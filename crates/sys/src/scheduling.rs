//! Scheduling: policy, affinity, I/O priority, memory policy.

use rustix::process::Pid;

use crate::{Errno, Result, result};

/// `struct sched_attr` of linux/sched/types.h (sched_setattr(2), since Linux 3.14).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    pub nice: i32,
    /// Real-time priority, 1–99.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// Sets the calling thread's scheduling policy.
///
/// # Errors
/// `EPERM`: the policy needs CAP_SYS_NICE. `EINVAL`: the combination makes no sense.
pub fn set(attributes: &Attributes) -> Result<()> {
    let size = u32::try_from(size_of::<Attributes>()).map_err(|_| Errno::INVAL)?;
    let attributes = Attributes {
        size,
        ..*attributes
    };
    // SAFETY: the structure outlives the call and carries its own size.
    result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).map(drop)
}

/// Sets the I/O priority of the calling thread (ioprio_set(2)); `class` 1–3, `level` 0–7.
pub fn set_io_priority(class: u16, level: u16) -> Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    let value = (libc::c_int::from(class) << 13) | libc::c_int::from(level);
    // SAFETY: no pointers.
    result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// Binds a process to processors, named by number (sched_setaffinity(2)); `None` is the caller.
///
/// # Errors
/// `EINVAL`: none of them is online and allowed.
pub fn set_affinity(pid: Option<Pid>, processors: &[u32]) -> Result<()> {
    let mask = bit_mask(processors);
    let bytes = mask.len() * size_of::<u64>();
    // SAFETY: the mask outlives the call and its size in bytes is passed.
    result(unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            Pid::as_raw(pid),
            bytes,
            mask.as_ptr(),
        )
    })
    .map(drop)
}

/// Sets the calling thread's memory policy (set_mempolicy(2)); `mode` is `MPOL_*` with flags.
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> Result<()> {
    let mask = bit_mask(nodes);
    let (pointer, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        _ => (mask.as_ptr(), mask.len() * 64 + 1), // the kernel drops the last bit
    };
    // SAFETY: the mask outlives the call and holds as many bits as it reads.
    result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}

/// Little-endian words with the given bits set; at least one word.
fn bit_mask(bits: &[u32]) -> Vec<u64> {
    let words = bits.iter().max().map_or(1, |max| *max as usize / 64 + 1);
    let mut mask = vec![0u64; words];
    for bit in bits {
        mask[*bit as usize / 64] |= 1 << (bit % 64);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_land_in_their_words() {
        for (bits, mask) in [
            (&[][..], vec![0]),
            (&[0, 1], vec![3]),
            (&[63, 64], vec![1 << 63, 1]),
        ] {
            assert_eq!(bit_mask(bits), mask);
        }
    }
}
