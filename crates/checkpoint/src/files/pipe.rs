//! Pipes and fifos: their ends, their size, and what lies in them.
//!
//! tee(2) copies the content without taking it out. At a restore the engine holds both ends while
//! every description is opened from them by its own flags.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::{Descriptor, new_entry, owner, regular};
use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::file::{FdTypes, FifoEntry, FileEntry, PipeDataEntry, PipeEntry};
use crate::image::{Directory, Kind, Writer};

/// What pipes and fifos held at the dump.
#[derive(Debug)]
pub(crate) struct PipeData {
    seen: HashSet<u32>,
    pipes: Writer,
    fifos: Writer,
}

impl Default for PipeData {
    fn default() -> Self {
        Self {
            seen: HashSet::new(),
            pipes: Writer::new("pipes-data.img", Kind::PipesData),
            fifos: Writer::new("fifo-data.img", Kind::FifoData),
        }
    }
}

impl PipeData {
    /// Writes the images, if there was anything.
    pub(crate) fn save(self, images: &Directory) -> Result<()> {
        self.pipes.save(images)?;
        self.fifos.save(images)
    }
}

/// Dumps one end of a pipe, and the pipe's content with its first end.
pub(crate) fn dump(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    let pipe_id = descriptor.stat.st_ino as u32;
    dump_content(descriptor, pipe_id, false, dump)?;
    let mut entry = new_entry(FdTypes::Pipe, descriptor.id);
    entry.pipe = Some(PipeEntry {
        id: descriptor.id,
        pipe_id,
        flags: descriptor.flags,
        fown: owner::dump(&descriptor.file),
    });
    Ok(entry)
}

/// Dumps a pipe with a name: its path as a regular file, and its content.
pub(crate) fn dump_fifo(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    let pipe_id = descriptor.stat.st_ino as u32;
    dump_content(descriptor, pipe_id, true, dump)?;
    let mut path = regular::dump(descriptor, dump)?;
    let id = dump.files.new_id();
    path.id = id;
    if let Some(reg) = &mut path.reg {
        reg.id = id;
        for remap in dump
            .remaps
            .iter_mut()
            .filter(|remap| remap.orig_id == descriptor.id)
        {
            remap.orig_id = id;
        }
    }
    dump.files.entries.push(path);
    let mut entry = new_entry(FdTypes::Fifo, descriptor.id);
    entry.fifo = Some(FifoEntry {
        id: descriptor.id,
        pipe_id,
        regf_id: Some(id),
    });
    Ok(entry)
}

fn dump_content(
    descriptor: &Descriptor,
    pipe_id: u32,
    fifo: bool,
    dump: &mut Dump<'_>,
) -> Result<()> {
    if !dump.pipe_data.seen.insert(pipe_id) || descriptor.flags & libc::O_PATH as u32 != 0 {
        return Ok(());
    }
    let size = rustix::pipe::fcntl_getpipe_size(&descriptor.file)
        .during("ask for the size of", &descriptor.link)?;
    let bytes = copy(&descriptor.file, size).during("copy the content of", &descriptor.link)?;
    let entry = PipeDataEntry {
        pipe_id,
        bytes: bytes.len() as u32,
        size: Some(size as u32),
    };
    let writer = if fifo {
        &mut dump.pipe_data.fifos
    } else {
        &mut dump.pipe_data.pipes
    };
    writer.entry(&entry);
    writer.raw(&bytes);
    Ok(())
}

fn copy(end: &OwnedFd, size: usize) -> sys::Result<Vec<u8>> {
    // Whichever end we have, a reading one can be opened from it while the owner stands still.
    let reader = reopen(end, OFlags::RDONLY | OFlags::NONBLOCK)?;
    if rustix::io::ioctl_fionread(&reader)? == 0 {
        return Ok(Vec::new());
    }
    let (from, to) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    rustix::pipe::fcntl_setpipe_size(&to, size)?;
    let copied = rustix::pipe::tee(&reader, &to, size, SpliceFlags::NONBLOCK)?;
    let mut bytes = vec![0; copied];
    let mut got = 0;
    while got < copied {
        got += rustix::io::read(&from, &mut bytes[got..])?;
    }
    Ok(bytes)
}

fn reopen(file: &OwnedFd, flags: OFlags) -> sys::Result<OwnedFd> {
    rustix::fs::open(
        format!("{}/self/fd/{}", crate::procfs::root(), file.as_raw_fd()),
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// A pipe of a restore, both ends held.
#[derive(Debug)]
pub(crate) struct Pipe {
    reader: OwnedFd,
    /// `None`: a fifo, whose one descriptor does both.
    writer: Option<OwnedFd>,
    /// Access modes whose own description has been handed out.
    given: Vec<u32>,
}

impl Pipe {
    /// A new pipe with its content.
    pub(crate) fn new(images: &Directory, pipe_id: u32) -> Result<Self> {
        let (reader, writer) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during("create pipe", pipe_id)?;
        fill(images, "pipes-data.img", Kind::PipesData, pipe_id, &writer)?;
        Ok(Self {
            reader,
            writer: Some(writer),
            given: Vec::new(),
        })
    }

    /// The fifo at `path` with its content.
    pub(crate) fn open(images: &Directory, pipe_id: u32, path: &str) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let both = rustix::fs::open(path, flags, Mode::empty()).during("open fifo", path)?;
        fill(images, "fifo-data.img", Kind::FifoData, pipe_id, &both)?;
        Ok(Self {
            reader: both,
            writer: None,
            given: Vec::new(),
        })
    }

    /// A description of one end with the flags of the image.
    ///
    /// One that pipe(2) made has no O_LARGEFILE, one that was opened by name in `/proc` has.
    pub(crate) fn end(&mut self, flags: u32) -> Result<OwnedFd> {
        let access = flags & libc::O_ACCMODE as u32;
        let made_by_open = flags & O_LARGEFILE != 0 || self.given.contains(&access);
        let own = if access == libc::O_RDONLY as u32 {
            Some(&self.reader)
        } else {
            self.writer.as_ref()
        };
        let kept =
            flags & (libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_PATH) as u32;
        match own {
            Some(own)
                if !made_by_open && self.writer.is_some() && access != libc::O_RDWR as u32 =>
            {
                let fd = super::duplicate(own, "pipe")?;
                let settable = OFlags::from_bits_retain(kept & !(libc::O_ACCMODE as u32));
                rustix::fs::fcntl_setfl(&fd, settable).during("set flags of", "pipe")?;
                self.given.push(access);
                Ok(fd)
            }
            // The reading end's name in /proc leads to the same pipe.
            _ => reopen(&self.reader, OFlags::from_bits_retain(kept)).during("open", "pipe"),
        }
    }
}

/// The C library calls it 0 on 64-bit machines; the kernel does not.
const O_LARGEFILE: u32 = 0o100_000;

fn fill(images: &Directory, name: &str, kind: Kind, pipe_id: u32, pipe: impl AsFd) -> Result<()> {
    let Some(mut reader) = images.reader(name, kind)? else {
        return Ok(());
    };
    while let Some(entry) = reader.entry::<PipeDataEntry>()? {
        let bytes = reader.raw(entry.bytes as usize)?;
        if entry.pipe_id != pipe_id {
            continue;
        }
        if let Some(size) = entry.size.filter(|size| *size != 0) {
            rustix::pipe::fcntl_setpipe_size(&pipe, size as usize)
                .during("set the size of pipe", pipe_id)?;
        }
        let room =
            rustix::pipe::fcntl_getpipe_size(&pipe).during("ask for the size of pipe", pipe_id)?;
        if bytes.len() > room {
            return Err(Error::because(
                "fill pipe",
                pipe_id,
                "its content exceeds its size",
            ));
        }
        let mut put = 0;
        while put < bytes.len() {
            put += rustix::io::write(&pipe, &bytes[put..]).during("fill pipe", pipe_id)?;
        }
        return Ok(());
    }
    Ok(())
}
