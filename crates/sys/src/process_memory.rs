//! Another process's memory: process_vm_readv(2), process_vm_writev(2), since Linux 3.2.
//!
//! Both obey the mapping's protection; to write through a read-only mapping use `/proc/pid/mem`.

use rustix::process::Pid;

use crate::{Errno, Result};

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Fills `buffer` from the ranges `(address, length)` of `process`, in their order.
///
/// Returns the bytes read; fewer than asked for where a range ends in unreadable memory.
///
/// # Errors
/// EFAULT: the first range is not readable. ESRCH: gone. EPERM: no right to trace it.
pub fn read(process: Pid, ranges: &[(u64, usize)], buffer: &mut [u8]) -> Result<usize> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = remote_vectors(ranges);
    // SAFETY: `local` describes the borrowed buffer; the remote side is only addresses elsewhere.
    let got = unsafe {
        libc::process_vm_readv(
            process.as_raw_nonzero().get(),
            &raw const local,
            1,
            remote.as_ptr(),
            remote.len() as u64,
            0,
        )
    };
    usize::try_from(got).map_err(|_| last_errno())
}

/// Fills all of `buffer` from `address` of `process`.
///
/// # Errors
/// As [`read`]; EFAULT also if only a part was readable.
pub fn read_exact(process: Pid, address: u64, buffer: &mut [u8]) -> Result<()> {
    let length = buffer.len();
    if read(process, &[(address, length)], buffer)? == length {
        Ok(())
    } else {
        Err(Errno::FAULT)
    }
}

/// Writes all of `buffer` to `address` of `process`.
///
/// # Errors
/// EFAULT: not writable memory.
pub fn write_all(process: Pid, address: u64, buffer: &[u8]) -> Result<()> {
    let local = libc::iovec {
        iov_base: buffer.as_ptr().cast_mut().cast(),
        iov_len: buffer.len(),
    };
    let remote = remote_vectors(&[(address, buffer.len())]);
    // SAFETY: the kernel only reads `local`, which describes the borrowed buffer.
    let put = unsafe {
        libc::process_vm_writev(
            process.as_raw_nonzero().get(),
            &raw const local,
            1,
            remote.as_ptr(),
            1,
            0,
        )
    };
    match usize::try_from(put) {
        Ok(put) if put == buffer.len() => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(_) => Err(last_errno()),
    }
}

fn remote_vectors(ranges: &[(u64, usize)]) -> Vec<libc::iovec> {
    let vector = |&(address, length): &(u64, usize)| libc::iovec {
        iov_base: std::ptr::without_provenance_mut(address as usize),
        iov_len: length,
    };
    ranges.iter().map(vector).collect()
}
