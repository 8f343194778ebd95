//! memfd_create(2): files without a name, with seals.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};
use rustix::process::Pid;

use super::{Descriptor, new_entry, owner, regular};
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::Directory;
use crate::image::file::{FdTypes, FileEntry, FownEntry};
use crate::image::memory::{MemfdFileEntry, MemfdInodeEntry};
use crate::shared_memory;

const PREFIX: &str = "/memfd:";
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
const MFD_HUGETLB: u32 = 4;
const HUGE_SIZE: u32 = 0x3f << 26;

/// Whether a link or a mapping's name is that of a memfd, or of anonymous shared memory that was
/// opened through `/proc/PID/map_files`.
pub(crate) fn is_memfd(link: &str) -> bool {
    link.starts_with(PREFIX) || link == shared_memory::NAME
}

/// Whether it is no memfd at all, but shared memory that is mapped as well.
pub(crate) fn is_shared_memory(inode: &MemfdInodeEntry) -> bool {
    inode.name == shared_memory::NAME
}

pub(crate) fn dump(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    let inode_id = dump_inode(&descriptor.file, &descriptor.link, dump)?;
    let mut entry = new_entry(FdTypes::Memfd, descriptor.id);
    entry.memfd = Some(MemfdFileEntry {
        id: descriptor.id,
        flags: descriptor.flags,
        pos: descriptor.position,
        fown: owner::dump(&descriptor.file),
        inode_id,
    });
    Ok(entry)
}

/// Dumps the memfd behind `/proc/PID/NAME`; returns the id of a description with these flags.
pub(crate) fn dump_mapping(pid: Pid, name: &str, flags: u32, dump: &mut Dump<'_>) -> Result<u32> {
    let path = format!("{}/{pid}/{name}", crate::procfs::root());
    let link = std::fs::read_link(&path).during("read link", &path)?;
    let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .during("open", &path)?;
    let inode_id = dump_inode(&file, &link.to_string_lossy(), dump)?;
    let stat = rustix::fs::fstat(&file).during("stat", &path)?;
    let key = (stat.st_dev, stat.st_ino, flags, String::new());
    if let Some(id) = dump.paths.get(&key) {
        return Ok(*id);
    }
    let id = dump.files.new_id();
    let mut entry = new_entry(FdTypes::Memfd, id);
    entry.memfd = Some(MemfdFileEntry {
        id,
        flags,
        pos: 0,
        fown: FownEntry::default(),
        inode_id,
    });
    dump.files.entries.push(entry);
    dump.paths.insert(key, id);
    Ok(id)
}

fn dump_inode(file: &OwnedFd, link: &str, dump: &mut Dump<'_>) -> Result<u32> {
    let stat = rustix::fs::fstat(file).during("stat", link)?;
    if let Some(known) = dump
        .memfds
        .iter()
        .find(|known| known.0 == (stat.st_dev, stat.st_ino))
    {
        return Ok(known.1.inode_id as u32);
    }
    let inode_id = dump.memfds.len() as u64 + 1;
    let seals = rustix::fs::fcntl_get_seals(file).map_or(0, |seals| seals.bits());
    let about = rustix::fs::fstatfs(file).during("stat the file system of", link)?;
    // Pages of other memfds may be huge as well, but nobody sees that.
    let hugetlb_flag = (about.f_type as u64 == HUGETLBFS_MAGIC)
        .then(|| MFD_HUGETLB | crate::memory::huge_page_flag(about.f_bsize as u64));
    let shmid = shared_memory::dump_object(&regular::content(file)?, dump)?;
    let name = match link.strip_prefix(PREFIX) {
        Some(name) => name.trim_end_matches(" (deleted)").to_owned(),
        None => link.to_owned(),
    };
    let entry = MemfdInodeEntry {
        name,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size as u64,
        shmid: shmid as u32,
        seals,
        inode_id,
        hugetlb_flag,
        mode: Some(stat.st_mode),
    };
    dump.memfds.push(((stat.st_dev, stat.st_ino), entry));
    Ok(inode_id as u32)
}

#[derive(Debug)]
struct Memfd {
    fd: OwnedFd,
    seals: u32,
    /// The description that memfd_create(2) made has been handed out.
    given: bool,
}

/// The memfds of a restore, by inode; seals come last.
#[derive(Debug, Default)]
pub(crate) struct Memfds {
    made: HashMap<u64, Memfd>,
}

impl Memfds {
    /// Says that this object, made elsewhere, stands behind inode `inode_id`.
    pub(crate) fn adopt(&mut self, inode_id: u64, fd: OwnedFd) {
        self.made.entry(inode_id).or_insert(Memfd {
            fd,
            seals: 0,
            given: true,
        });
    }

    /// A description of a memfd.
    pub(crate) fn open(
        &mut self,
        images: &Directory,
        inodes: &[MemfdInodeEntry],
        entry: &MemfdFileEntry,
    ) -> Result<OwnedFd> {
        let inode_id = u64::from(entry.inode_id);
        let memfd = match self.made.entry(inode_id) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => {
                let inode = inodes.iter().find(|inode| inode.inode_id == inode_id);
                let missing =
                    || Error::because("create memfd", inode_id, "memfd.img does not have it");
                let inode = inode.ok_or_else(missing)?;
                place.insert(Memfd {
                    fd: create(images, inode)?,
                    seals: inode.seals,
                    given: false,
                })
            }
        };
        // The kernel does not count that description as a writer, any other it does: a program that
        // executes its own memfd would see ETXTBSY.
        let writable = entry.flags & libc::O_ACCMODE as u32 == libc::O_RDWR as u32;
        if writable && !std::mem::replace(&mut memfd.given, true) {
            let fd = super::duplicate(&memfd.fd, "memfd")?;
            super::set_status_flags(&fd, entry.flags)?;
            rustix::fs::seek(&fd, SeekFrom::Start(entry.pos)).during("seek in memfd", inode_id)?;
            return Ok(fd);
        }
        let kept = entry.flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC) as u32;
        let flags = OFlags::from_bits_retain(kept) | OFlags::CLOEXEC;
        let path = format!("{}/self/fd/{}", crate::procfs::root(), memfd.fd.as_raw_fd());
        let fd = rustix::fs::open(&path, flags, Mode::empty()).during("open memfd", inode_id)?;
        if entry.pos != 0 {
            rustix::fs::seek(&fd, SeekFrom::Start(entry.pos)).during("seek in memfd", inode_id)?;
        }
        Ok(fd)
    }

    /// Seals what was sealed; everything that maps or writes has done so.
    pub(crate) fn seal(&mut self) -> Result<()> {
        for (id, Memfd { fd, seals, .. }) in self.made.drain() {
            if seals != 0 {
                rustix::fs::fcntl_add_seals(&fd, SealFlags::from_bits_retain(seals))
                    .during("seal memfd", id)?;
            }
        }
        Ok(())
    }
}

fn create(images: &Directory, inode: &MemfdInodeEntry) -> Result<OwnedFd> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if let Some(huge) = inode.hugetlb_flag {
        flags |= MemfdFlags::HUGETLB | MemfdFlags::from_bits_retain(huge & HUGE_SIZE);
    }
    let name = &inode.name;
    let fd = rustix::fs::memfd_create(name.as_str(), flags).during("create memfd", name)?;
    rustix::fs::ftruncate(&fd, inode.size).during("set the size of memfd", name)?;
    shared_memory::fill(images, u64::from(inode.shmid), &fd, inode.size)?;
    let (user, group) = (
        rustix::fs::Uid::from_raw(inode.uid),
        rustix::fs::Gid::from_raw(inode.gid),
    );
    rustix::fs::fchown(&fd, Some(user), Some(group)).during("change owner of memfd", name)?;
    if let Some(mode) = inode.mode {
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))
            .during("change mode of memfd", name)?;
    }
    // Without ALLOW_SEALING there is the seal against seals, which is added with the others.
    Ok(fd)
}
