//! Address spaces: which mappings there are, and which of their pages hold data of their own.

use std::fs::File;

use rustix::process::Pid;
use sys::namespace::Kind as NamespaceKind;
use sys::pagemap::{self, Query, Search};

use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::files::{memfd, regular};
use crate::freeze::Process;
use crate::image::memory::{MmEntry, PagemapEntry, VmaEntry};
use crate::image::{Kind, Writer};
use crate::obstacle;
use crate::pages::PageSink;
use crate::procfs::{self, Mapping};
use crate::shared_memory;
use crate::task::MemoryFacts;

/// The bits of `VmaEntry::status`.
pub(crate) mod status {
    pub(crate) const REGULAR: u32 = 1 << 0;
    pub(crate) const VSYSCALL: u32 = 1 << 2;
    pub(crate) const VDSO: u32 = 1 << 3;
    pub(crate) const HEAP: u32 = 1 << 5;
    pub(crate) const FILE_PRIVATE: u32 = 1 << 6;
    pub(crate) const FILE_SHARED: u32 = 1 << 7;
    pub(crate) const ANON_SHARED: u32 = 1 << 8;
    pub(crate) const ANON_PRIVATE: u32 = 1 << 9;
    pub(crate) const SYSV: u32 = 1 << 10;
    pub(crate) const SOCKET: u32 = 1 << 11;
    pub(crate) const VVAR: u32 = 1 << 12;
    pub(crate) const MEMFD: u32 = 1 << 14;
    /// Guard pages: an entry of its own after that of the mapping which they lie in.
    pub(crate) const GUARD: u32 = 1 << 16;
}

/// Since Linux 6.11; in place of MAP_PRIVATE, but images have both.
pub(crate) const MAP_DROPPABLE: i32 = 8;
/// How `/proc` names MAP_ANONYMOUS | MAP_HUGETLB.
pub(crate) const HUGE_ANONYMOUS: &str = "/anon_hugepage (deleted)";
const HUGE_PAGE_SHIFT: u32 = 26;
/// What says in the flags of mmap(2) that pages are huge, and how large.
pub(crate) const HUGE_FLAGS: u32 = 0x3f << HUGE_PAGE_SHIFT | libc::MAP_HUGETLB as u32;
const PE_LAZY: u32 = 1 << 1;
pub(crate) const PE_PRESENT: u32 = 1 << 2;
pub(crate) const PAGE: u64 = 4096;

/// The `VmFlags` words that stand for a madvise(2) value.
const ADVICE: [(&str, u64); 8] = [
    ("rr", libc::MADV_RANDOM as u64),
    ("sr", libc::MADV_SEQUENTIAL as u64),
    ("dc", libc::MADV_DONTFORK as u64),
    ("dd", libc::MADV_DONTDUMP as u64),
    ("mg", libc::MADV_MERGEABLE as u64),
    ("hg", libc::MADV_HUGEPAGE as u64),
    ("nh", libc::MADV_NOHUGEPAGE as u64),
    ("wf", libc::MADV_WIPEONFORK as u64),
];

/// Writes `mm-PID.img`, `pagemap-PID.img` and the pages of a process.
pub(crate) fn dump(
    process: &Process,
    mappings: &[Mapping],
    facts: MemoryFacts,
    dump: &mut Dump<'_>,
) -> Result<()> {
    let pid = process.pid;
    let mut vmas = Vec::new();
    for mapping in mappings {
        obstacle::check_mapping(pid, mapping)?;
        let vma = classify(pid, mapping, dump).map_err(|error| at_mapping(pid, mapping, &error))?;
        vmas.push(vma);
    }
    let pages = Pages::open(pid, dump.options.pagemap_words)?;
    let mut sink = dump.page_sink()?;
    let mut writer = Writer::new(&format!("pagemap-{pid}.img"), Kind::Pagemap);
    writer.entry(&crate::image::memory::PagemapHead {
        pages_id: sink.id(),
    });
    for (vma, mapping) in vmas.iter().zip(mappings) {
        if has_private_pages(vma) {
            pages.dump_private(vma, mapping, &mut writer, &mut sink)?;
        }
    }
    let vmas = pages.with_guards(vmas)?;
    dump.statistics.pages_written += sink.finish(dump.images)?;
    writer.save(dump.images)?;
    let stat = &process.stat;
    let exe_file_id = regular::dump_path(pid, "exe", 0, dump)?;
    let mm = MmEntry {
        mm_start_code: stat.start_code,
        mm_end_code: stat.end_code,
        mm_start_data: stat.start_data,
        mm_end_data: stat.end_data,
        mm_start_stack: stat.start_stack,
        mm_start_brk: stat.start_brk,
        mm_brk: facts.brk,
        mm_arg_start: stat.arg_start,
        mm_arg_end: stat.arg_end,
        mm_env_start: stat.env_start,
        mm_env_end: stat.env_end,
        exe_file_id,
        mm_saved_auxv: auxiliary_vector(pid)?,
        vmas,
        dumpable: Some(facts.dumpable),
        aios: Vec::new(),
        thp_disabled: Some(facts.thp_disabled),
    };
    dump.images.write(&format!("mm-{pid}.img"), Kind::Mm, &[mm])
}

fn at_mapping(pid: Pid, mapping: &Mapping, error: &Error) -> Error {
    let object = format!("{:x}-{:x} {}", mapping.start, mapping.end, mapping.name);
    Error::because("dump mapping", object, format!("process {pid}: {error}"))
}

fn auxiliary_vector(pid: Pid) -> Result<Vec<u64>> {
    let path = format!("{}/{pid}/auxv", crate::procfs::root());
    let bytes = std::fs::read(&path).during("read", &path)?;
    let mut words: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|bytes| {
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        })
        .collect();
    while words.len() >= 2 && words.ends_with(&[0, 0]) {
        words.truncate(words.len() - 2);
    }
    Ok(words)
}

fn classify(pid: Pid, mapping: &Mapping, dump: &mut Dump<'_>) -> Result<VmaEntry> {
    let sharing = if mapping.shared {
        libc::MAP_SHARED
    } else {
        libc::MAP_PRIVATE
    };
    let mut vma = VmaEntry {
        start: mapping.start,
        end: mapping.end,
        pgoff: mapping.offset,
        prot: mapping.protection,
        flags: sharing as u32,
        status: status::REGULAR,
        fd: -1,
        ..VmaEntry::default()
    };
    let bit = |(flag, advice): &(&str, u64)| if mapping.has(flag) { 1 << advice } else { 0 };
    let advice: u64 = ADVICE.iter().map(bit).sum();
    vma.madv = Some(advice).filter(|advice| *advice != 0);
    for (flag, bit) in [
        ("gd", libc::MAP_GROWSDOWN),
        ("lo", libc::MAP_LOCKED),
        ("nr", libc::MAP_NORESERVE),
        ("ht", libc::MAP_HUGETLB),
        ("dp", MAP_DROPPABLE),
    ] {
        if mapping.has(flag) {
            vma.flags |= bit as u32;
        }
    }
    if mapping.has("ht") {
        vma.flags |= huge_page_flag(mapping.page_size);
    }
    set_backing(pid, mapping, &mut vma, dump)?;
    Ok(vma)
}

/// The size of huge pages as mmap(2) and memfd_create(2) take it.
pub(crate) fn huge_page_flag(bytes: u64) -> u32 {
    bytes.trailing_zeros() << HUGE_PAGE_SHIFT
}

/// Says what the mapping's pages come from.
fn set_backing(pid: Pid, mapping: &Mapping, vma: &mut VmaEntry, dump: &mut Dump<'_>) -> Result<()> {
    let anonymous = libc::MAP_ANONYMOUS as u32;
    if mapping.is_vdso() || mapping.is_vvar() {
        vma.flags |= anonymous;
        vma.pgoff = 0;
        vma.status |= status::ANON_PRIVATE;
        vma.status |= if mapping.is_vdso() {
            status::VDSO
        } else {
            status::VVAR
        };
    } else if mapping.name == "[vsyscall]" {
        vma.flags |= anonymous;
        vma.status = status::VSYSCALL | status::ANON_PRIVATE;
    } else if mapping.has("io") || mapping.has("pf") {
        return Err(Error::because(
            "map",
            &mapping.name,
            "device memory cannot be dumped",
        ));
    } else if is_anonymous(mapping) {
        vma.flags |= anonymous;
        vma.pgoff = 0;
        vma.status |= status::ANON_PRIVATE;
        if mapping.name == "[heap]" {
            vma.status |= status::HEAP;
        }
    } else if mapping.name.starts_with("socket:[") {
        // The ring of a packet socket, which the process holds open as well.
        let id = dump.files.socket(mapping.inode).ok_or_else(|| {
            Error::because("map", &mapping.name, "no descriptor leads to this socket")
        })?;
        vma.status |= status::SOCKET;
        vma.shmid = u64::from(id);
    } else if mapping.name.starts_with("/SYSV") && mapping.device.0 == 0 {
        if dump.own_namespaces & NamespaceKind::Ipc.flag() == 0 {
            let cause =
                "it is System V shared memory of an ipc namespace that is not dumped with it";
            return Err(Error::because("map", &mapping.name, cause));
        }
        // The inode's number is the segment's.
        vma.status |= status::SYSV | status::ANON_SHARED;
        vma.shmid = mapping.inode;
    } else if shared_memory::is_shared_memory(mapping) {
        shared_memory::dump_mapping(pid, mapping, vma, dump)?;
    } else {
        vma.status |= if mapping.shared {
            status::FILE_SHARED
        } else {
            status::FILE_PRIVATE
        };
        let writable = mapping.shared && mapping.has("mw");
        let flags = if writable {
            libc::O_RDWR
        } else {
            libc::O_RDONLY
        };
        let name = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        if memfd::is_memfd(&mapping.name) && mapping.device.0 == 0 {
            vma.status |= status::MEMFD;
            vma.shmid = u64::from(memfd::dump_mapping(pid, &name, flags as u32, dump)?);
        } else {
            vma.shmid = u64::from(regular::dump_path(pid, &name, flags as u32, dump)?);
        }
        vma.fdflags = Some(flags as u32);
    }
    Ok(())
}

/// Whether a mapping has pages that belong to nobody else.
fn has_private_pages(vma: &VmaEntry) -> bool {
    let special = status::VVAR | status::VSYSCALL | status::SOCKET;
    // Droppable memory may vanish at any time: it does.
    if vma.flags & MAP_DROPPABLE as u32 != 0 {
        return false;
    }
    vma.flags & libc::MAP_PRIVATE as u32 != 0 && vma.status & special == 0
}

/// The page table of a process, as it can be read.
struct Pages {
    process: Pid,
    path: String,
    map: File,
    search: Search,
}

impl Pages {
    fn open(process: Pid, by_words: bool) -> Result<Self> {
        let path = format!("{}/{process}/pagemap", crate::procfs::root());
        let map = File::open(&path).during("open", &path)?;
        let search = if by_words {
            Search::words()
        } else {
            Search::probe()
        };
        Ok(Self {
            process,
            path,
            map,
            search,
        })
    }

    fn find(&self, vma: &VmaEntry, query: Query) -> Result<Vec<(u64, u64)>> {
        let found = self.search.find(&self.map, vma.start, vma.end, query);
        let found = found.during("read page table of", &self.path)?;
        Ok(merge(found.iter().map(|region| (region.start, region.end))))
    }

    /// The pages that belong to nobody else.
    fn private(&self, vma: &VmaEntry, mapping: &Mapping) -> Result<Vec<(u64, u64)>> {
        // A word per page of a huge empty mapping takes long.
        let untouched = mapping.populated == 0 && !mapping.has("ht");
        if untouched && matches!(self.search, Search::Words(_)) {
            return Ok(Vec::new());
        }
        let not = pagemap::IS_FILE | pagemap::IS_PFN_ZERO | pagemap::IS_GUARD;
        let query = Query {
            inverted: not,
            all_of: not,
            any_of: pagemap::IS_PRESENT | pagemap::IS_SWAPPED,
            report: pagemap::IS_PRESENT,
        };
        self.find(vma, query)
    }

    fn dump_private(
        &self,
        vma: &VmaEntry,
        mapping: &Mapping,
        writer: &mut Writer,
        sink: &mut PageSink,
    ) -> Result<()> {
        let vdso = vma.status & status::VDSO != 0;
        // A restore compares the vdso with its own: it is dumped whole.
        let ranges = if vdso {
            vec![(vma.start, vma.end)]
        } else {
            self.private(vma, mapping)?
        };
        let never_lazy = (libc::MAP_HUGETLB | libc::MAP_LOCKED) as u32;
        let anonymous = vma.flags & libc::MAP_ANONYMOUS as u32 != 0;
        let lazy = if anonymous && !vdso && vma.flags & never_lazy == 0 {
            PE_LAZY
        } else {
            0
        };
        for (start, end) in ranges {
            writer.entry(&PagemapEntry {
                vaddr: start,
                nr_pages: Some((end - start) / PAGE),
                flags: Some(PE_PRESENT | lazy),
                ..PagemapEntry::default()
            });
            let readable = vma.prot & libc::PROT_READ as u32 != 0;
            sink.add(self.process, start, end - start, readable)?;
        }
        Ok(())
    }

    /// Adds the guard pages (MADV_GUARD_INSTALL, since Linux 6.13) after their mappings.
    fn with_guards(&self, vmas: Vec<VmaEntry>) -> Result<Vec<VmaEntry>> {
        if self.search == Search::ScanWithoutGuards {
            return Ok(vmas);
        }
        let query = Query {
            any_of: pagemap::IS_GUARD,
            report: pagemap::IS_GUARD,
            ..Query::default()
        };
        let mut all = Vec::with_capacity(vmas.len());
        for vma in vmas {
            let special = status::VVAR | status::VSYSCALL | status::VDSO;
            let ranges = if vma.status & special != 0 || matches!(self.search, Search::Words(_)) {
                Vec::new()
            } else {
                self.find(&vma, query)?
            };
            all.push(vma);
            all.extend(ranges.into_iter().map(|(start, end)| VmaEntry {
                start,
                end,
                status: status::GUARD,
                fd: -1,
                ..VmaEntry::default()
            }));
        }
        Ok(all)
    }
}

/// Whether nothing but the process gives the mapping its content.
fn is_anonymous(mapping: &Mapping) -> bool {
    let huge = mapping.has("ht") && mapping.name == HUGE_ANONYMOUS && !mapping.shared;
    huge || (mapping.inode == 0 && !mapping.name.starts_with('/'))
}

/// Joins ranges that touch.
fn merge(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// Mappings of a process, before anything of ours is in it.
pub(crate) fn mappings(process: &Process) -> Result<Vec<Mapping>> {
    procfs::mappings(process.pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let ranges = [(0, 1), (1, 2), (3, 4), (4, 6), (9, 10)];
        assert_eq!(merge(ranges.into_iter()), [(0, 2), (3, 6), (9, 10)]);
    }
}
