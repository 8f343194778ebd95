//! System V shared memory: shmget(2), shmat(2), shmctl(2).

use crate::{Errno, Result, result};

/// The id of a segment in the caller's ipc namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment(i32);

/// Makes the segment of a key; `size` is in bytes.
///
/// # Errors
/// `EEXIST`: the key is taken.
pub fn create(key: i32, size: usize) -> Result<Segment> {
    get(key, size, libc::IPC_CREAT | libc::IPC_EXCL | 0o600)
}

/// Finds the segment of a key.
///
/// # Errors
/// `ENOENT`: this ipc namespace has none.
pub fn find(key: i32) -> Result<Segment> {
    get(key, 0, 0)
}

fn get(key: i32, size: usize, flags: libc::c_int) -> Result<Segment> {
    // SAFETY: no pointers.
    let id = result(unsafe { libc::shmget(key, size, flags) }.into())?;
    i32::try_from(id).map(Segment).map_err(|_| Errno::OVERFLOW)
}

impl Segment {
    /// Writes to the beginning of the segment.
    ///
    /// # Errors
    /// `EFBIG`: it is shorter than that.
    pub fn write(self, bytes: &[u8]) -> Result<()> {
        self.attached(bytes.len(), |memory| {
            // SAFETY: the segment is attached and at least as long as the bytes.
            unsafe { memory.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
        })
    }

    /// Reads from the beginning of the segment.
    ///
    /// # Errors
    /// `EFBIG`: it is shorter than the buffer.
    pub fn read(self, buffer: &mut [u8]) -> Result<()> {
        self.attached(buffer.len(), |memory| {
            // SAFETY: the segment is attached and at least as long as the buffer.
            unsafe { memory.copy_to_nonoverlapping(buffer.as_mut_ptr(), buffer.len()) }
        })
    }

    /// The size in bytes.
    pub fn size(self) -> Result<usize> {
        let mut found = std::mem::MaybeUninit::<libc::shmid_ds>::zeroed();
        // SAFETY: the structure outlives the call.
        result(unsafe { libc::shmctl(self.0, libc::IPC_STAT, found.as_mut_ptr()) }.into())?;
        // SAFETY: zeroed at first and filled by the kernel: every bit pattern is a value.
        Ok(unsafe { found.assume_init() }.shm_segsz)
    }

    fn attached(self, length: usize, act: impl FnOnce(*mut u8)) -> Result<()> {
        if self.size()? < length {
            return Err(Errno::FBIG);
        }
        // SAFETY: the kernel chooses an address that is free.
        let memory = unsafe { libc::shmat(self.0, std::ptr::null(), 0) };
        if memory.addr() == usize::MAX {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        act(memory.cast());
        // SAFETY: attached above, and nothing points into it any more.
        result(unsafe { libc::shmdt(memory) }.into()).map(drop)
    }
}
