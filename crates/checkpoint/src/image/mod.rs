//! CRIU's image files: the container format, and the messages inside (one module per subject).
//!
//! A file is two magic numbers, then entries: a 32-bit length and a protobuf message, where the
//! kind of file says so followed by raw bytes. Images are hostile input: nothing here trusts a
//! length, and decoding allocates no more than the file holds.

pub mod checksum;
pub mod core;
pub mod event;
pub mod file;
pub mod ipc;
pub mod memory;
pub mod namespace;
pub mod network;
pub mod socket;
pub mod tree;
pub mod tty;

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error, Result};
use checksum::{Checksum, Written};

/// First magic number of an image.
const COMMON: u32 = 0x5456_4319;
/// First magic number of a service file (statistics, caches).
const SERVICE: u32 = 0x5510_5940;
/// An entry longer than this is refused.
const MAX_ENTRY: usize = 64 << 20;

/// What an image holds: the second magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// `inventory.img`
    Inventory = 0x5831_3116,
    /// `pstree.img`
    Pstree = 0x5027_3030,
    /// `core-TID.img`
    Core = 0x5505_3847,
    /// `ids-PID.img`
    Ids = 0x5443_2030,
    /// `mm-PID.img`
    Mm = 0x5749_2820,
    /// `pagemap-PID.img`, `pagemap-shmem-ID.img`
    Pagemap = 0x5608_4025,
    /// `files.img`
    Files = 0x5630_3138,
    /// `fdinfo-ID.img`
    Fdinfo = 0x5621_3732,
    /// `fs-PID.img`
    Fs = 0x5140_3912,
    /// `seccomp.img`
    Seccomp = 0x6441_3049,
    /// `timens-N.img`
    Timens = 0x4311_4433,
    /// `pidns-N.img`
    Pidns = 0x6115_7326,
    /// `userns-N.img`
    Userns = 0x5547_4906,
    /// `utsns-N.img`
    Utsns = 0x5447_3203,
    /// `mountpoints-N.img`
    Mounts = 0x5556_3928,
    /// `netns-N.img`
    Netns = 0x5593_3752,
    /// `netdev-N.img`
    Netdev = 0x5737_3951,
    /// `ipcns-var-N.img`
    IpcnsVar = 0x5311_5007,
    /// `pipes-data.img`
    PipesData = 0x5645_3709,
    /// `fifo-data.img`
    FifoData = 0x5933_3054,
    /// `sk-queues.img`
    SkQueues = 0x5626_4026,
    /// `tcp-stream-INO.img`
    TcpStream = 0x5146_5506,
    /// `tty-info.img`
    TtyInfo = 0x5945_3036,
    /// `tty-data.img`
    TtyData = 0x5941_3026,
    /// `filelocks.img`
    FileLocks = 0x5432_3616,
    /// `remap-fpath.img`
    RemapFpath = 0x5913_3954,
    /// `ghost-file-ID.img`
    GhostFile = 0x5258_3605,
    /// `memfd.img`
    MemfdInode = 0x4845_3499,
    /// `cgroup.img`
    Cgroup = 0x5938_3330,
    /// `cpuinfo.img`
    Cpuinfo = 0x6140_4013,
    /// `ipcns-shm-N.img`
    IpcnsShm = 0x4628_3044,
    /// `ipcns-msg-N.img`
    IpcnsMsg = 0x5545_3737,
    /// `ipcns-sem-N.img`
    IpcnsSem = 0x5957_3019,
    /// `floe-checksums.img`; floe's own.
    Checksums = 0x464c_4f45,
    /// `stats-dump`, `stats-restore`
    Stats = 0x5709_3306,
}

impl Kind {
    /// The inventory is older than the common magic number and does without.
    fn first_magic(self) -> Option<u32> {
        match self {
            Self::Inventory => None,
            Self::Stats => Some(SERVICE),
            _ => Some(COMMON),
        }
    }
}

/// The directory that holds the images of one dump.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: String,
    written: RefCell<Written>,
}

impl Directory {
    /// Opens `path`.
    ///
    /// # Errors
    /// It is no directory.
    pub fn open(path: &str) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).during("open", path)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            written: RefCell::default(),
        })
    }

    /// Creates the file `name`, emptying it if it exists.
    ///
    /// # Errors
    /// The directory is not writable.
    pub fn create_raw(&self, name: &str) -> Result<RawImage> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let fd = rustix::fs::openat(self.fd.as_fd(), name, flags | OFlags::NOFOLLOW, mode)
            .during("create image", name)?;
        Ok(RawImage {
            name: name.to_owned(),
            file: File::from(fd),
            sum: Checksum::default(),
            size: 0,
        })
    }

    /// Forgets what was written: another dump begins.
    pub(crate) fn begin(&self) {
        self.written.take();
    }

    /// Writes `floe-checksums.img` about all images that were written through this value.
    ///
    /// # Errors
    /// The directory is not writable.
    pub fn save_checksums(&self) -> Result<()> {
        checksum::save(self, self.written.take())
    }

    /// Opens the file `name` for reading; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_raw(&self, name: &str) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(self.fd.as_fd(), name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(sys::Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::kernel("open image", name, errno)),
        }
    }

    /// Writes an image of these entries.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write<M: prost::Message>(&self, name: &str, kind: Kind, entries: &[M]) -> Result<()> {
        let mut writer = Writer::new(name, kind);
        for entry in entries {
            writer.entry(entry);
        }
        writer.save(self)
    }

    /// Opens an image for reading; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or its magic numbers are not those of `kind`.
    pub fn reader(&self, name: &str, kind: Kind) -> Result<Option<Reader>> {
        let Some(mut file) = self.open_raw(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).during("read image", name)?;
        Reader::new(name, kind, bytes).map(Some)
    }

    /// All entries of an image; none if there is no such file.
    ///
    /// # Errors
    /// The image is damaged.
    pub fn read<M: prost::Message + Default>(&self, name: &str, kind: Kind) -> Result<Vec<M>> {
        let mut entries = Vec::new();
        if let Some(mut reader) = self.reader(name, kind)? {
            while let Some(entry) = reader.entry()? {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// The only entry of an image that must exist.
    ///
    /// # Errors
    /// There is none, or the image is damaged.
    pub fn read_one<M: prost::Message + Default>(&self, name: &str, kind: Kind) -> Result<M> {
        let mut reader = self
            .reader(name, kind)?
            .ok_or_else(|| Error::because("read image", name, format!("not in `{}`", self.path)))?;
        reader
            .entry()?
            .ok_or_else(|| Error::because("read image", name, "it has no entry"))
    }
}

/// A file of raw bytes in the making.
#[derive(Debug)]
pub struct RawImage {
    name: String,
    file: File,
    sum: Checksum,
    size: u64,
}

impl Write for RawImage {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let put = self.file.write(bytes)?;
        self.sum.add(&bytes[..put]);
        self.size += put as u64;
        Ok(put)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl RawImage {
    /// Appends bytes.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).during("write image", &self.name)
    }

    /// Remembers the checksum of what was written.
    pub fn finish(self, directory: &Directory) {
        let about = (self.size, self.sum.finish());
        directory.written.borrow_mut().insert(self.name, about);
    }
}

/// An image in the making.
#[derive(Debug)]
pub struct Writer {
    name: String,
    bytes: Vec<u8>,
}

impl Writer {
    /// An image without entries.
    #[must_use]
    pub fn new(name: &str, kind: Kind) -> Self {
        let mut bytes = Vec::new();
        if let Some(magic) = kind.first_magic() {
            bytes.extend_from_slice(&magic.to_le_bytes());
        }
        bytes.extend_from_slice(&(kind as u32).to_le_bytes());
        Self {
            name: name.to_owned(),
            bytes,
        }
    }

    /// Appends an entry.
    pub fn entry(&mut self, message: &impl prost::Message) {
        let encoded = message.encode_to_vec();
        self.bytes
            .extend_from_slice(&(encoded.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&encoded);
    }

    /// Appends raw bytes, which belong to the last entry.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(self, directory: &Directory) -> Result<()> {
        let mut file = directory.create_raw(&self.name)?;
        file.append(&self.bytes)?;
        file.finish(directory);
        Ok(())
    }
}

/// An image being read.
#[derive(Debug)]
pub struct Reader {
    name: String,
    bytes: Vec<u8>,
    position: usize,
}

impl Reader {
    /// Starts after the magic numbers.
    ///
    /// # Errors
    /// They are not those of `kind`.
    pub fn new(name: &str, kind: Kind, bytes: Vec<u8>) -> Result<Self> {
        let mut reader = Self {
            name: name.to_owned(),
            bytes,
            position: 0,
        };
        for magic in kind.first_magic().into_iter().chain([kind as u32]) {
            if reader.number()? != magic {
                return Err(reader.damaged("it is not an image of this kind"));
            }
        }
        Ok(reader)
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// The file is truncated or the message does not decode.
    pub fn entry<M: prost::Message + Default>(&mut self) -> Result<Option<M>> {
        if self.position == self.bytes.len() {
            return Ok(None);
        }
        let length = self.number()? as usize;
        if length > MAX_ENTRY {
            return Err(self.damaged("an entry is too long"));
        }
        let name = self.name.clone();
        let message = M::decode(self.raw(length)?);
        message
            .map(Some)
            .map_err(|error| Error::because("decode image", name, error.to_string()))
    }

    /// How many bytes of the file are read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next `length` raw bytes.
    ///
    /// # Errors
    /// The file is truncated.
    pub fn raw(&mut self, length: usize) -> Result<&[u8]> {
        let end = self
            .position
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.damaged("it is truncated"));
        };
        let start = std::mem::replace(&mut self.position, end);
        Ok(&self.bytes[start..end])
    }

    fn number(&mut self) -> Result<u32> {
        let bytes = self.raw(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn damaged(&self, cause: &str) -> Error {
        Error::because("read image", &self.name, cause)
    }
}

#[cfg(test)]
mod tests {
    use super::tree::PstreeEntry;
    use super::*;

    fn bytes_of(entries: &[PstreeEntry]) -> Vec<u8> {
        let mut writer = Writer::new("pstree.img", Kind::Pstree);
        entries.iter().for_each(|entry| writer.entry(entry));
        writer.bytes
    }

    #[test]
    fn entries_survive_the_round_trip() {
        let entries: Vec<_> = (1..4)
            .map(|pid| PstreeEntry {
                pid,
                ppid: 0,
                pgid: 7,
                sid: 7,
                threads: vec![pid, pid + 9],
            })
            .collect();
        let bytes = bytes_of(&entries);
        let mut reader = Reader::new("pstree.img", Kind::Pstree, bytes).unwrap();
        let mut read = Vec::new();
        while let Some(entry) = reader.entry::<PstreeEntry>().unwrap() {
            read.push(entry);
        }
        assert_eq!(read, entries);
    }

    #[test]
    fn every_truncation_is_an_error_or_ends_at_an_entry() {
        let whole = bytes_of(&[PstreeEntry {
            pid: 5,
            threads: vec![5],
            ..Default::default()
        }]);
        for length in 0..whole.len() {
            let cut = whole[..length].to_vec();
            let entry = Reader::new("pstree.img", Kind::Pstree, cut)
                .and_then(|mut reader| reader.entry::<PstreeEntry>());
            assert!(
                matches!((&entry, length), (Err(_), _) | (Ok(None), 8)),
                "{length}: {entry:?}"
            );
        }
    }

    #[test]
    fn another_kind_of_image_is_refused() {
        let error = Reader::new("core-1.img", Kind::Core, bytes_of(&[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "read image `core-1.img`: it is not an image of this kind"
        );
    }
}
