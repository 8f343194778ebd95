//! Memory that processes share without a file that has a name: anonymous shared mappings.
//!
//! Identity is the inode behind the mapping; the content is dumped once, through
//! `/proc/PID/map_files`. At a restore the engine makes the object, fills it, and every process
//! maps it from a descriptor.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::SeekFrom;
use rustix::process::Pid;

use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::memory::{PagemapEntry, PagemapHead, VmaEntry};
use crate::image::{Directory, Kind, Writer};
use crate::memory::{HUGE_ANONYMOUS, PAGE, PE_PRESENT, status};
use crate::pages::PageSource;
use crate::procfs::Mapping;

/// How `/proc` names anonymous shared memory, a file on the kernel's own tmpfs.
pub(crate) const NAME: &str = "/dev/zero (deleted)";

/// Whether the mapping is anonymous shared memory.
pub(crate) fn is_shared_memory(mapping: &Mapping) -> bool {
    let huge = mapping.has("ht") && mapping.name == HUGE_ANONYMOUS;
    mapping.shared && (mapping.name == NAME || huge) && mapping.device.0 == 0
}

/// Above all ids of System V shared memory, whose images have names of the same form.
const FIRST_ID: u64 = 1 << 31;

/// A shared object that was seen in a mapping.
#[derive(Debug)]
pub(crate) struct SharedObject {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) id: u64,
}

/// Fills `vma`, and dumps the object if it is new.
pub(crate) fn dump_mapping(
    pid: Pid,
    mapping: &Mapping,
    vma: &mut VmaEntry,
    dump: &mut Dump<'_>,
) -> Result<()> {
    vma.status |= status::ANON_SHARED;
    vma.flags |= libc::MAP_ANONYMOUS as u32;
    let path = format!(
        "{}/{pid}/map_files/{:x}-{:x}",
        crate::procfs::root(),
        mapping.start,
        mapping.end
    );
    let file = File::open(&path).during("open", &path)?;
    vma.shmid = dump_object(&file, dump)?;
    Ok(())
}

/// Writes the pages of a shared object unless they are written; returns its id.
pub(crate) fn dump_object(file: &File, dump: &mut Dump<'_>) -> Result<u64> {
    let about = file.metadata().during("read", "shared memory")?;
    let (device, inode) = (about.dev(), about.ino());
    let same = |object: &&SharedObject| (object.device, object.inode) == (device, inode);
    if let Some(object) = dump.shared_objects.iter().find(same) {
        return Ok(object.id);
    }
    let id = FIRST_ID + dump.shared_objects.len() as u64;
    dump.shared_objects.push(SharedObject { device, inode, id });
    write_content(file, about.len(), &format!("pagemap-shmem-{id}.img"), dump)?;
    Ok(id)
}

fn write_content(file: &File, size: u64, name: &str, dump: &mut Dump<'_>) -> Result<()> {
    let mut sink = dump.page_sink()?;
    let mut writer = Writer::new(name, Kind::Pagemap);
    writer.entry(&PagemapHead {
        pages_id: sink.id(),
    });
    for (start, end) in data_ranges(file, size)? {
        let nr_pages = Some((end - start).div_ceil(PAGE));
        let flags = Some(PE_PRESENT);
        writer.entry(&PagemapEntry {
            vaddr: start,
            nr_pages,
            flags,
            ..PagemapEntry::default()
        });
        let mut at = start;
        while at < end {
            let mut bytes = vec![0; (end - at).min(1 << 20).next_multiple_of(PAGE) as usize];
            let mut got = 0;
            while got < bytes.len() {
                match file
                    .read_at(&mut bytes[got..], at + got as u64)
                    .during("read", "shared memory")?
                {
                    0 => break,
                    more => got += more,
                }
            }
            sink.add_bytes(&bytes)?;
            at += bytes.len() as u64;
        }
    }
    dump.statistics.shared_pages_written += sink.finish(dump.images)?;
    writer.save(dump.images)
}

/// The parts of a file that hold data, in whole pages.
pub(crate) fn data_ranges(file: &File, size: u64) -> Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(sys::Errno::NXIO) => break,
            Err(errno) => return Err(Error::kernel("find data in", "shared memory", errno)),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))
            .during("find data in", "shared memory")?;
        ranges.push((start & !(PAGE - 1), end.min(size.next_multiple_of(PAGE))));
        at = end;
    }
    Ok(ranges)
}

/// Makes the shared object `id` of at least `size` bytes, with its content; `huge` as in
/// [`sys::shared_memory::create`].
pub(crate) fn restore(images: &Directory, id: u64, size: u64, huge: i32) -> Result<OwnedFd> {
    let fd = sys::shared_memory::create(size, huge).during("create shared memory", id)?;
    fill(images, id, &fd, size)?;
    Ok(fd)
}

/// Copies the pages of shared object `id` into `target`, which has `size` bytes.
pub(crate) fn fill(images: &Directory, id: u64, target: &OwnedFd, size: u64) -> Result<()> {
    let Some(source) = PageSource::open(images, &format!("shmem-{id}"))? else {
        return Ok(());
    };
    let size = size.next_multiple_of(PAGE);
    if source
        .runs
        .iter()
        .any(|run| run.address + run.length > size)
    {
        let name = format!("pagemap-shmem-{id}.img");
        return Err(Error::because("read image", name, "a page lies outside"));
    }
    let copied = sys::shared_memory::fill(target, size, |memory| {
        source.runs.iter().try_for_each(|run| {
            let bytes = &mut memory[run.address as usize..][..run.length as usize];
            source.file.read_exact_at(bytes, run.offset)
        })
    });
    copied.during("fill shared memory", id)
}
