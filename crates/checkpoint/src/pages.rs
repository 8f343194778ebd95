//! Where pages go to at a dump, and where they come from at a restore.
//!
//! The memory reader names ranges of a process and does not know who paused it; the sink reads and
//! stores them. At a restore the process reads its own pages from the source's file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::process::Pid;

use crate::error::{Context, Error, Result};
use crate::image::memory::{PagemapEntry, PagemapHead};
use crate::image::{Directory, RawImage};
use crate::memory::{PAGE, PE_PRESENT};

const BUFFER: usize = 2 << 20;
const MAX_RANGES: usize = 1024;

/// Writes pages into `pages-ID.img`, in the order in which they are added.
#[derive(Debug)]
pub(crate) struct PageSink {
    id: u32,
    file: RawImage,
    buffer: Vec<u8>,
    waiting: Vec<(u64, usize)>,
    waiting_bytes: usize,
    process: Option<Pid>,
    written: u64,
}

impl PageSink {
    pub(crate) fn create(images: &Directory, id: u32) -> Result<Self> {
        let file = images.create_raw(&format!("pages-{id}.img"))?;
        let waiting = Vec::with_capacity(MAX_RANGES);
        Ok(Self {
            id,
            file,
            buffer: Vec::new(),
            waiting,
            waiting_bytes: 0,
            process: None,
            written: 0,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Adds a range of a stopped process's memory. `readable`: its mapping allows reading.
    pub(crate) fn add(
        &mut self,
        process: Pid,
        start: u64,
        length: u64,
        readable: bool,
    ) -> Result<()> {
        if !readable {
            self.flush()?;
            return self.add_forced(process, start, length);
        }
        self.process = Some(process);
        let mut at = start;
        while at < start + length {
            if self.waiting.len() == MAX_RANGES || self.waiting_bytes == BUFFER {
                self.flush()?;
            }
            let part = ((start + length - at) as usize).min(BUFFER - self.waiting_bytes);
            self.waiting.push((at, part));
            self.waiting_bytes += part;
            at += part as u64;
        }
        Ok(())
    }

    /// Adds bytes that are at hand.
    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        self.written += bytes.len() as u64 / PAGE;
        self.file.append(bytes)
    }

    /// `/proc/PID/mem` reads what the protection forbids.
    fn add_forced(&mut self, process: Pid, start: u64, length: u64) -> Result<()> {
        let path = format!("{}/{process}/mem", crate::procfs::root());
        let memory = File::open(&path).during("open", &path)?;
        let mut at = start;
        while at < start + length {
            let mut bytes = vec![0; ((start + length - at) as usize).min(BUFFER)];
            memory
                .read_exact_at(&mut bytes, at)
                .during("read memory of", process)?;
            self.add_bytes(&bytes)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(process) = self.process.filter(|_| !self.waiting.is_empty()) else {
            return Ok(());
        };
        self.buffer.resize(BUFFER, 0);
        let target = &mut self.buffer[..self.waiting_bytes];
        let got = sys::process_memory::read(process, &self.waiting, target)
            .during("read memory of", process)?;
        if got != self.waiting_bytes {
            let cause = format!("{got} of {} bytes were readable", self.waiting_bytes);
            return Err(Error::because("read memory of", process, cause));
        }
        self.file.append(target)?;
        self.written += self.waiting_bytes as u64 / PAGE;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Writes what is left; returns the number of pages in the file.
    pub(crate) fn finish(mut self, images: &Directory) -> Result<u64> {
        self.flush()?;
        self.file.finish(images);
        Ok(self.written)
    }
}

/// A run of pages and where its bytes lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) offset: u64,
}

/// The pages of one address space or shared object.
#[derive(Debug)]
pub(crate) struct PageSource {
    pub(crate) file: File,
    pub(crate) runs: Vec<Run>,
}

impl PageSource {
    /// Opens `pagemap-NAME.img` and its pages; `None` if there is no such image.
    pub(crate) fn open(images: &Directory, name: &str) -> Result<Option<Self>> {
        let name = format!("pagemap-{name}.img");
        let Some(mut reader) = images.reader(&name, crate::image::Kind::Pagemap)? else {
            return Ok(None);
        };
        let damaged = |cause: &str| Error::because("read image", &name, cause);
        let head: PagemapHead = reader.entry()?.ok_or_else(|| damaged("it has no head"))?;
        let pages = format!("pages-{}.img", head.pages_id);
        let file = images
            .open_raw(&pages)?
            .ok_or_else(|| Error::because("open image", &pages, "it is missing"))?;
        let size = file.metadata().during("read image", &pages)?.len();
        let mut runs: Vec<Run> = Vec::new();
        let mut offset = 0_u64;
        while let Some(entry) = reader.entry::<PagemapEntry>()? {
            let flags = entry.flags.unwrap_or(PE_PRESENT);
            if entry.in_parent.unwrap_or(false) || flags & 1 != 0 {
                return Err(damaged("incremental dumps are not supported yet"));
            }
            if flags & PE_PRESENT == 0 {
                continue;
            }
            let pages = entry.nr_pages.unwrap_or(u64::from(entry.compat_nr_pages));
            let length = pages
                .checked_mul(PAGE)
                .ok_or_else(|| damaged("a run is too long"))?;
            let end = offset.checked_add(length).filter(|end| *end <= size);
            let end = end.ok_or_else(|| damaged("it names more pages than there are"))?;
            if !entry.vaddr.is_multiple_of(PAGE) || entry.vaddr.checked_add(length).is_none() {
                return Err(damaged("a run lies at an impossible address"));
            }
            runs.push(Run {
                address: entry.vaddr,
                length,
                offset,
            });
            offset = end;
        }
        Ok(Some(Self { file, runs }))
    }
}
