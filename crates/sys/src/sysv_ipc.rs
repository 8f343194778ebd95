//! System V IPC in full: shared memory, semaphores and messages of the caller's ipc namespace, by id.
//!
//! svipc(7). A new object gets the id that was written to `/proc/sys/kernel/*_next_id` before (since
//! Linux 3.8 with CONFIG_CHECKPOINT_RESTORE).

use std::mem::MaybeUninit;

use crate::{Errno, Result, result};

/// Who may do what with an object; `struct ipc_perm` without what only the kernel sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub creator_uid: u32,
    pub creator_gid: u32,
    /// Permission bits, and for shared memory `SHM_DEST`.
    pub mode: u32,
}

impl Permissions {
    fn of(found: &libc::ipc_perm) -> Self {
        Self {
            key: found.__key,
            uid: found.uid,
            gid: found.gid,
            creator_uid: found.cuid,
            creator_gid: found.cgid,
            mode: found.mode.into(),
        }
    }

    fn fill(self, target: &mut libc::ipc_perm) {
        target.uid = self.uid;
        target.gid = self.gid;
        target.mode = (self.mode & 0o777) as _;
    }
}

/// The mode of shared memory that goes with its last user.
pub const SHM_DEST: u32 = 0o1000;

fn id_of(value: libc::c_int) -> Result<i32> {
    result(value.into()).map(|_| value)
}

/// Makes a segment of shared memory; `flags`: 0, or SHM_HUGETLB with the pages' size.
///
/// # Errors
/// EEXIST: the key is taken. ENOMEM, ENOSPC: too much.
pub fn create_memory(key: i32, size: u64, flags: i32) -> Result<i32> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | flags;
    // SAFETY: no pointers.
    id_of(unsafe { libc::shmget(key, size as usize, flags | 0o600) })
}

/// A segment's permissions and size in bytes.
///
/// # Errors
/// EINVAL: no such segment.
pub fn memory(id: i32) -> Result<(Permissions, u64)> {
    let mut found = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: the structure outlives the call.
    result(unsafe { libc::shmctl(id, libc::IPC_STAT, found.as_mut_ptr()) }.into())?;
    // SAFETY: zeroed at first and filled by the kernel: every bit pattern is a value.
    let found = unsafe { found.assume_init() };
    Ok((Permissions::of(&found.shm_perm), found.shm_segsz as u64))
}

/// Sets a segment's owner and mode.
///
/// # Errors
/// EPERM: neither the owner nor privileged.
pub fn set_memory(id: i32, permissions: Permissions) -> Result<()> {
    let mut value = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: zeroed: every bit pattern is a value.
    let target = unsafe { value.assume_init_mut() };
    permissions.fill(&mut target.shm_perm);
    // SAFETY: the structure outlives the call.
    result(unsafe { libc::shmctl(id, libc::IPC_SET, target) }.into()).map(drop)
}

/// Removes a segment; it goes with its last user.
///
/// # Errors
/// EINVAL: no such segment.
pub fn remove_memory(id: i32) -> Result<()> {
    // SAFETY: no pointers.
    result(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) }.into()).map(drop)
}

/// Attaches a segment while `work` reads or fills it.
///
/// # Errors
/// What shmat(2) or `work` answers.
pub fn with_memory<T, E: From<Errno>>(
    id: i32,
    work: impl FnOnce(&mut [u8]) -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    let (_, size) = memory(id)?;
    // SAFETY: the kernel chooses an address that is free.
    let memory = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    if memory.addr() == usize::MAX {
        return Err(last_errno().into());
    }
    // SAFETY: attached above and as long as that. Whoever else has it attached stands still.
    let bytes = unsafe { std::slice::from_raw_parts_mut(memory.cast::<u8>(), size as usize) };
    let done = work(bytes);
    // SAFETY: attached above; the slice is not used any more.
    unsafe { libc::shmdt(memory) };
    done
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Makes a set of semaphores.
///
/// # Errors
/// EEXIST: the key is taken.
pub fn create_semaphores(key: i32, count: u32) -> Result<i32> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: no pointers.
    id_of(unsafe { libc::semget(key, count as i32, flags) })
}

/// A set's permissions and values.
///
/// # Errors
/// EINVAL: no such set.
pub fn semaphores(id: i32) -> Result<(Permissions, Vec<u16>)> {
    let mut found = MaybeUninit::<libc::semid_ds>::zeroed();
    // SAFETY: the structure outlives the call.
    result(unsafe { libc::semctl(id, 0, libc::IPC_STAT, found.as_mut_ptr()) }.into())?;
    // SAFETY: zeroed at first and filled by the kernel: every bit pattern is a value.
    let found = unsafe { found.assume_init() };
    let mut values = vec![0_u16; found.sem_nsems as usize];
    // SAFETY: GETALL writes one value for each semaphore of the set, whose size never changes.
    result(unsafe { libc::semctl(id, 0, libc::GETALL, values.as_mut_ptr()) }.into())?;
    Ok((Permissions::of(&found.sem_perm), values))
}

/// Sets a set's owner, mode and values; `values` must be as many as it has.
///
/// # Errors
/// EINVAL: another number of values. ERANGE: a value is too large.
pub fn set_semaphores(id: i32, permissions: Permissions, values: &[u16]) -> Result<()> {
    if semaphores(id)?.1.len() != values.len() {
        return Err(Errno::INVAL);
    }
    // SAFETY: SETALL reads one value for each semaphore, and there are as many.
    result(unsafe { libc::semctl(id, 0, libc::SETALL, values.as_ptr()) }.into())?;
    let mut value = MaybeUninit::<libc::semid_ds>::zeroed();
    // SAFETY: zeroed: every bit pattern is a value.
    let target = unsafe { value.assume_init_mut() };
    permissions.fill(&mut target.sem_perm);
    // SAFETY: the structure outlives the call.
    result(unsafe { libc::semctl(id, 0, libc::IPC_SET, std::ptr::from_mut(target)) }.into())
        .map(drop)
}

/// Removes a set.
///
/// # Errors
/// EINVAL: no such set.
pub fn remove_semaphores(id: i32) -> Result<()> {
    // SAFETY: no pointers are read.
    result(unsafe { libc::semctl(id, 0, libc::IPC_RMID, 0) }.into()).map(drop)
}

/// Makes a queue of messages.
///
/// # Errors
/// EEXIST: the key is taken.
pub fn create_queue(key: i32) -> Result<i32> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: no pointers.
    id_of(unsafe { libc::msgget(key, flags) })
}

/// A queue's permissions, its limit in bytes, and how many messages wait in it.
///
/// # Errors
/// EINVAL: no such queue.
pub fn queue(id: i32) -> Result<(Permissions, u32, u32)> {
    let mut found = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: the structure outlives the call.
    result(unsafe { libc::msgctl(id, libc::IPC_STAT, found.as_mut_ptr()) }.into())?;
    // SAFETY: zeroed at first and filled by the kernel: every bit pattern is a value.
    let found = unsafe { found.assume_init() };
    let permissions = Permissions::of(&found.msg_perm);
    Ok((permissions, found.msg_qbytes as u32, found.msg_qnum as u32))
}

/// Sets a queue's owner, mode and limit in bytes.
///
/// # Errors
/// EPERM: a limit above the system's without CAP_SYS_RESOURCE.
pub fn set_queue(id: i32, permissions: Permissions, limit: u32) -> Result<()> {
    let mut value = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: zeroed: every bit pattern is a value.
    let target = unsafe { value.assume_init_mut() };
    permissions.fill(&mut target.msg_perm);
    target.msg_qbytes = limit.into();
    // SAFETY: the structure outlives the call.
    result(unsafe { libc::msgctl(id, libc::IPC_SET, target) }.into()).map(drop)
}

/// Copies message number `index` without taking it out (since Linux 3.8); type and text.
///
/// # Errors
/// ENOMSG: there are not so many. E2BIG: it is longer than `limit`.
pub fn copy_message(id: i32, index: u32, limit: u32) -> Result<(i64, Vec<u8>)> {
    const MSG_COPY: libc::c_int = 0o40000;
    let mut buffer = vec![0_u8; 8 + limit as usize];
    // SAFETY: the buffer has room for the type and as much text as the kernel is told.
    let length = result(unsafe {
        libc::msgrcv(
            id,
            buffer.as_mut_ptr().cast(),
            limit as usize,
            index.into(),
            MSG_COPY | libc::IPC_NOWAIT,
        )
    } as libc::c_long)?;
    let kind = buffer.first_chunk().copied().map_or(0, i64::from_ne_bytes);
    Ok((kind, buffer[8..8 + length].to_vec()))
}

/// Appends a message.
///
/// # Errors
/// EAGAIN: the queue is full. EINVAL: a type below 1.
pub fn send_message(id: i32, kind: i64, text: &[u8]) -> Result<()> {
    let buffer = [&kind.to_ne_bytes(), text].concat();
    // SAFETY: the buffer holds the type and as much text as the kernel is told.
    result(unsafe { libc::msgsnd(id, buffer.as_ptr().cast(), text.len(), libc::IPC_NOWAIT) }.into())
        .map(drop)
}

/// Removes a queue.
///
/// # Errors
/// EINVAL: no such queue.
pub fn remove_queue(id: i32) -> Result<()> {
    // SAFETY: no pointers.
    result(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }.into()).map(drop)
}
