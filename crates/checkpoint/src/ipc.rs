//! System V IPC: the objects of an ipc namespace, under the same ids.
//!
//! They belong to the namespace, not to a process: everything here works on the namespace that the
//! caller is in. Undo counts of semaphores are lost, as the kernel tells
//! them to nobody. POSIX message queues are files and not looked at.

use sys::sysv_ipc::{self, Permissions, SHM_DEST};

use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::ipc::{IpcDescEntry, IpcMsg, IpcMsgEntry, IpcSemEntry, IpcShmEntry};
use crate::image::memory::{PagemapEntry, PagemapHead};
use crate::image::{Directory, Kind, Writer};
use crate::memory::{PAGE, PE_PRESENT};
use crate::pages::{PageSink, PageSource};
use crate::procfs;

/// The ids that `/proc/sysvipc/NAME` lists, in its second column.
fn ids(name: &str) -> Result<Vec<i32>> {
    let path = format!("{}/sysvipc/{name}", procfs::root());
    let text = std::fs::read_to_string(&path).during("read", &path)?;
    let id = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
    Ok(text.lines().skip(1).filter_map(id).collect())
}

fn describe(id: i32, found: Permissions) -> IpcDescEntry {
    IpcDescEntry {
        key: found.key as u32,
        uid: found.uid,
        gid: found.gid,
        cuid: found.creator_uid,
        cgid: found.creator_gid,
        mode: found.mode,
        id: id as u32,
    }
}

fn permissions(entry: &IpcDescEntry) -> Permissions {
    Permissions {
        key: entry.key as i32,
        uid: entry.uid,
        gid: entry.gid,
        creator_uid: entry.cuid,
        creator_gid: entry.cgid,
        mode: entry.mode,
    }
}

/// Writes the objects of the caller's ipc namespace as namespace number `number`.
///
/// Whoever uses the namespace must stand still.
pub(crate) fn dump(number: u32, dump: &mut Dump<'_>) -> Result<()> {
    let images = dump.images;
    let mut writer = Writer::new(&format!("ipcns-shm-{number}.img"), Kind::IpcnsShm);
    for id in ids("shm")? {
        let (found, size) = sysv_ipc::memory(id).during("ask for shared memory", id)?;
        writer.entry(&IpcShmEntry {
            desc: describe(id, found),
            size,
            in_pagemaps: Some(true),
            hugetlb_flag: None,
        });
        let sink = dump.page_sink()?;
        dump.statistics.shared_pages_written += dump_memory(id, sink, images)?;
    }
    writer.save(images)?;
    dump_semaphores(images, number)?;
    dump_queues(images, number)
}

fn dump_memory(id: i32, mut sink: PageSink, images: &Directory) -> Result<u64> {
    let mut writer = Writer::new(&format!("pagemap-shmem-{id}.img"), Kind::Pagemap);
    writer.entry(&PagemapHead {
        pages_id: sink.id(),
    });
    sysv_ipc::with_memory(id, |memory| {
        let zero = [0; PAGE as usize];
        for (at, page) in memory.chunks(PAGE as usize).enumerate() {
            if page == &zero[..page.len()] {
                continue;
            }
            writer.entry(&PagemapEntry {
                vaddr: at as u64 * PAGE,
                nr_pages: Some(1),
                flags: Some(PE_PRESENT),
                ..PagemapEntry::default()
            });
            sink.add_bytes(page)?;
            sink.add_bytes(&zero[page.len()..])?;
        }
        Ok::<(), Failure>(())
    })
    .map_err(|failure| failure.about("read shared memory", id))?;
    writer.save(images)?;
    sink.finish(images)
}

/// An error of the engine, or one of the kernel without a name yet.
enum Failure {
    Kernel(sys::Errno),
    Whole(Error),
}

impl From<sys::Errno> for Failure {
    fn from(errno: sys::Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Whole(error)
    }
}

impl Failure {
    fn about(self, operation: &str, id: i32) -> Error {
        match self {
            Self::Kernel(errno) => Error::kernel(operation, id, errno),
            Self::Whole(error) => error,
        }
    }
}

/// Raw bytes in an image end at a multiple of eight.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn dump_semaphores(images: &Directory, number: u32) -> Result<()> {
    let mut writer = Writer::new(&format!("ipcns-sem-{number}.img"), Kind::IpcnsSem);
    for id in ids("sem")? {
        let (found, values) = sysv_ipc::semaphores(id).during("ask for semaphores", id)?;
        writer.entry(&IpcSemEntry {
            desc: describe(id, found),
            nsems: values.len() as u32,
        });
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        writer.raw(&padded(bytes.collect()));
    }
    writer.save(images)
}

fn dump_queues(images: &Directory, number: u32) -> Result<()> {
    let mut writer = Writer::new(&format!("ipcns-msg-{number}.img"), Kind::IpcnsMsg);
    for id in ids("msg")? {
        let (found, qbytes, qnum) = sysv_ipc::queue(id).during("ask for message queue", id)?;
        writer.entry(&IpcMsgEntry {
            desc: describe(id, found),
            qbytes,
            qnum,
        });
        for index in 0..qnum {
            let (kind, text) =
                sysv_ipc::copy_message(id, index, qbytes).during("copy a message of queue", id)?;
            writer.entry(&IpcMsg {
                mtype: kind as u64,
                msize: text.len() as u32,
            });
            writer.raw(&padded(text));
        }
    }
    writer.save(images)
}

/// What is left to do when every process has attached its memory.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Restored {
    doomed: Vec<i32>,
}

impl Restored {
    /// Removes the memory that goes with its last user. Inside of the namespace.
    pub(crate) fn finish(&self) -> Result<()> {
        self.doomed
            .iter()
            .try_for_each(|id| sysv_ipc::remove_memory(*id).during("remove shared memory", id))
    }
}

/// Fills the caller's new ipc namespace from the images of namespace number `number`.
pub(crate) fn restore(images: &Directory, number: u32) -> Result<Restored> {
    let mut restored = Restored::default();
    let name = format!("ipcns-shm-{number}.img");
    for entry in images.read::<IpcShmEntry>(&name, Kind::IpcnsShm)? {
        restore_memory(images, &entry)?;
        if entry.desc.mode & SHM_DEST != 0 {
            restored.doomed.push(entry.desc.id as i32);
        }
    }
    restore_semaphores(images, number)?;
    restore_queues(images, number)?;
    Ok(restored)
}

fn write(name: &str, value: &str) -> Result<()> {
    let path = format!("{}/sys/{name}", procfs::root());
    std::fs::write(&path, value).during("write", &path)
}

/// Makes an object under the wanted id.
fn create(
    next_id: &str,
    wanted: &IpcDescEntry,
    make: impl FnOnce() -> sys::Result<i32>,
) -> Result<i32> {
    let id = wanted.id as i32;
    write(next_id, &id.to_string())?;
    let made = make().during("create System V object", id)?;
    if made != id {
        let cause = format!("the kernel called it {made}");
        return Err(Error::because("create System V object", id, cause));
    }
    Ok(id)
}

fn restore_memory(images: &Directory, entry: &IpcShmEntry) -> Result<()> {
    let huge = entry.hugetlb_flag.unwrap_or(0) as i32;
    let key = entry.desc.key as i32;
    let make = || sysv_ipc::create_memory(key, entry.size, huge);
    let id = create("kernel/shm_next_id", &entry.desc, make)?;
    if let Some(source) = PageSource::open(images, &format!("shmem-{id}"))? {
        sysv_ipc::with_memory(id, |memory| {
            for run in &source.runs {
                use std::os::unix::fs::FileExt;
                let end = (run.address + run.length).min(memory.len() as u64);
                let range = run.address as usize..end as usize;
                let outside = || sys::Errno::FBIG;
                let bytes = memory.get_mut(range).ok_or_else(outside)?;
                let read = source.file.read_exact_at(bytes, run.offset);
                read.map_err(|error| sys::Errno::from_io_error(&error).unwrap_or(sys::Errno::IO))?;
            }
            Ok::<(), sys::Errno>(())
        })
        .during("fill shared memory", id)?;
    }
    sysv_ipc::set_memory(id, permissions(&entry.desc)).during("set owner of shared memory", id)
}

fn restore_semaphores(images: &Directory, number: u32) -> Result<()> {
    let name = format!("ipcns-sem-{number}.img");
    let Some(mut reader) = images.reader(&name, Kind::IpcnsSem)? else {
        return Ok(());
    };
    while let Some(entry) = reader.entry::<IpcSemEntry>()? {
        let length = (entry.nsems as usize).saturating_mul(2);
        let bytes = reader.raw(length.next_multiple_of(8))?;
        let pairs = bytes[..length].as_chunks::<2>().0;
        let values: Vec<u16> = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        let key = entry.desc.key as i32;
        let make = || sysv_ipc::create_semaphores(key, entry.nsems);
        let id = create("kernel/sem_next_id", &entry.desc, make)?;
        sysv_ipc::set_semaphores(id, permissions(&entry.desc), &values)
            .during("set semaphores", id)?;
    }
    Ok(())
}

fn restore_queues(images: &Directory, number: u32) -> Result<()> {
    let name = format!("ipcns-msg-{number}.img");
    let Some(mut reader) = images.reader(&name, Kind::IpcnsMsg)? else {
        return Ok(());
    };
    while let Some(entry) = reader.entry::<IpcMsgEntry>()? {
        let key = entry.desc.key as i32;
        let id = create("kernel/msg_next_id", &entry.desc, || {
            sysv_ipc::create_queue(key)
        })?;
        sysv_ipc::set_queue(id, permissions(&entry.desc), entry.qbytes)
            .during("set up message queue", id)?;
        for _ in 0..entry.qnum {
            let truncated = || Error::because("read image", &name, "a message is missing");
            let message: IpcMsg = reader.entry()?.ok_or_else(truncated)?;
            let length = message.msize as usize;
            let text = &reader.raw(length.next_multiple_of(8))?[..length];
            sysv_ipc::send_message(id, message.mtype as i64, text)
                .during("refill message queue", id)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::DumpOptions;
    use crate::namespace::Outline;

    /// A thread of its own in a new ipc namespace.
    fn in_new_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                sys::namespace::unshare(libc::CLONE_NEWIPC as u64).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn objects_come_back_under_their_ids() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: it needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let open = || Directory::open(path).unwrap();
        let permissions = |mode| Permissions {
            uid: 5,
            gid: 6,
            mode,
            ..Permissions::default()
        };
        let ids = in_new_namespace(|| {
            write("kernel/shm_next_id", "777").unwrap();
            let memory = sysv_ipc::create_memory(99, 10_000, 0).unwrap();
            sysv_ipc::with_memory(memory, |bytes| {
                bytes[9_999] = 7;
                Ok::<(), sys::Errno>(())
            })
            .unwrap();
            sysv_ipc::set_memory(memory, permissions(0o640)).unwrap();
            write("kernel/sem_next_id", "555").unwrap();
            let semaphores = sysv_ipc::create_semaphores(0, 3).unwrap();
            sysv_ipc::set_semaphores(semaphores, permissions(0o600), &[1, 2, 3]).unwrap();
            write("kernel/msg_next_id", "333").unwrap();
            let queue = sysv_ipc::create_queue(42).unwrap();
            for (kind, text) in [(4, &b"first"[..]), (2, b"second one")] {
                sysv_ipc::send_message(queue, kind, text).unwrap();
            }
            let images = open();
            let options = DumpOptions::default();
            let outline = Outline::of(rustix::process::getpid()).unwrap();
            super::dump(9, &mut Dump::new(&options, &images, &outline)).unwrap();
            (memory, semaphores, queue)
        });
        assert_eq!(ids, (777, 555, 333));
        in_new_namespace(|| {
            restore(&open(), 9).unwrap().finish().unwrap();
            let (found, size) = sysv_ipc::memory(777).unwrap();
            assert_eq!((found.key, found.uid, found.gid, size), (99, 5, 6, 10_000));
            assert_eq!(found.mode & 0o777, 0o640);
            let last = sysv_ipc::with_memory(777, |bytes| Ok::<u8, sys::Errno>(bytes[9_999]));
            assert_eq!(last, Ok(7));
            assert_eq!(sysv_ipc::semaphores(555).unwrap().1, [1, 2, 3]);
            assert_eq!(sysv_ipc::queue(333).unwrap().2, 2);
            assert_eq!(
                sysv_ipc::copy_message(333, 1, 100).unwrap(),
                (2, b"second one".to_vec())
            );
        });
    }
}
