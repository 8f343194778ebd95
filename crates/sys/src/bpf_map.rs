//! BPF maps that find the longest prefix. bpf(2), `Documentation/bpf/map_lpm_trie.rst`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Errno, Result};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;

const BPF_MAP_TYPE_LPM_TRIE: u32 = 11;
const BPF_F_NO_PREALLOC: u32 = 1;

#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct UpdateAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Makes a map of the longest prefixes with these entries. A key begins with the number of its
/// bits that count (four bytes, in the host's order); the bits follow. The kernel keeps the map as
/// long as a program uses it.
///
/// # Errors
/// `EPERM` without CAP_BPF (before Linux 5.8: CAP_SYS_ADMIN); `EINVAL` for keys without bits or
/// with more than 256 bytes of them; `ENOMEM`.
pub fn longest_prefix<const KEY: usize, const VALUE: usize>(
    entries: &[([u8; KEY], [u8; VALUE])],
) -> Result<OwnedFd> {
    let size = |size: usize| u32::try_from(size).map_err(|_| Errno::TOOBIG);
    let attr = CreateAttr {
        map_type: BPF_MAP_TYPE_LPM_TRIE,
        key_size: size(KEY)?,
        value_size: size(VALUE)?,
        max_entries: size(entries.len())?.max(1),
        map_flags: BPF_F_NO_PREALLOC,
        ..CreateAttr::default()
    };
    let fd = RawFd::try_from(bpf(BPF_MAP_CREATE, &attr)?).map_err(|_| Errno::IO)?;
    // SAFETY: the kernel just made this descriptor for us (close-on-exec, as all of bpf(2)'s).
    let map = unsafe { OwnedFd::from_raw_fd(fd) };
    for (key, value) in entries {
        let attr = UpdateAttr {
            map_fd: number(&map).unsigned_abs(),
            // Arrays of the sizes that the map was made with, alive until the call returns.
            key: key.as_ptr() as u64,
            value: value.as_ptr() as u64,
            ..UpdateAttr::default()
        };
        bpf(BPF_MAP_UPDATE_ELEM, &attr)?;
    }
    Ok(map)
}

/// The number by which a program names a map when it is loaded.
#[must_use]
pub fn number(map: &OwnedFd) -> RawFd {
    let map: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(map);
    map.as_raw_fd()
}

fn bpf<T>(command: libc::c_long, attr: &T) -> Result<libc::c_long> {
    // SAFETY: `attr` outlives the call and its size is its own; it is one of this module's
    // #[repr(C)] structures, whose embedded pointers their maker keeps alive. The commands write
    // nothing to the structure.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(result)
    }
}
