//! Open files: which description is behind each descriptor, and what each description is.
//!
//! Dump: `pidfd_getfd` brings a description into the engine, where plain calls read its state;
//! kcmp tells which descriptors share one. Restore: see [`crate::restore`].

pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod fanotify;
pub(crate) mod ghost;
pub(crate) mod inet_socket;
pub(crate) mod inotify;
pub(crate) mod memfd;
pub(crate) mod namespace;
pub(crate) mod netlink_socket;
pub(crate) mod owner;
pub(crate) mod packet_socket;
pub(crate) mod pidfd;
pub(crate) mod pipe;
pub(crate) mod regular;
pub(crate) mod signalfd;
pub(crate) mod socket;
pub(crate) mod tcp;
pub(crate) mod timerfd;
pub(crate) mod tty;
pub(crate) mod tty_data;
pub(crate) mod unix_socket;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::Stat;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::image::file::{FdTypes, FdinfoEntry, FileEntry};
use crate::procfs::{self, Lines};

/// A descriptor of a stopped process, with a duplicate of it in the engine.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) process: Pid,
    pub(crate) number: u32,
    /// The id of its description in the images.
    pub(crate) id: u32,
    pub(crate) file: OwnedFd,
    pub(crate) stat: Stat,
    /// What `/proc/PID/fd/N` points at.
    pub(crate) link: String,
    /// `/proc/PID/fdinfo/N`.
    pub(crate) info: String,
    /// Status flags, without O_CLOEXEC.
    pub(crate) flags: u32,
    pub(crate) position: u64,
    pub(crate) close_on_exec: bool,
}

impl Descriptor {
    fn open(process: Pid, pidfd: &OwnedFd, number: u32) -> Result<Self> {
        let object = format!("descriptor {number} of process {process}");
        let file = rustix::process::pidfd_getfd(pidfd, number as i32, PidfdGetfdFlags::empty())
            .during("duplicate", &object)?;
        Self::describe(process, file, number)
    }

    fn describe(process: Pid, file: OwnedFd, number: u32) -> Result<Self> {
        let object = format!("descriptor {number} of process {process}");
        let stat = rustix::fs::fstat(&file).during("stat", &object)?;
        let link = std::fs::read_link(format!("{}/{process}/fd/{number}", procfs::root()))
            .during("read link of", &object)?;
        let info = procfs::read(process, &format!("fdinfo/{number}"))?;
        let lines = Lines::parse(&info);
        let flags = lines.octal("flags");
        Ok(Self {
            process,
            number,
            id: 0,
            file,
            stat,
            link: link.to_string_lossy().into_owned(),
            position: lines.number("pos"),
            flags: flags & !(libc::O_CLOEXEC as u32),
            close_on_exec: flags & libc::O_CLOEXEC as u32 != 0,
            info,
        })
    }

    /// For messages.
    pub(crate) fn object(&self) -> String {
        let comm = procfs::read(self.process, "comm").unwrap_or_default();
        format!(
            "descriptor {} of process {} ({}): {}",
            self.number,
            self.process,
            comm.trim(),
            self.link
        )
    }

    /// The word in `anon_inode:[word]`.
    pub(crate) fn anonymous_kind(&self) -> Option<&str> {
        // Since Linux 6.9 pidfds live on a file system of their own.
        if self.link.starts_with("pidfd:[") {
            return Some("pidfd");
        }
        let kind = self.link.strip_prefix("anon_inode:")?;
        Some(kind.trim_start_matches('[').trim_end_matches(']'))
    }
}

/// What of two descriptions must be equal before kcmp is asked.
type Likeness = (u64, u64, u32, u64);

/// All descriptions seen so far.
#[derive(Debug, Default)]
pub(crate) struct FileTable {
    pub(crate) entries: Vec<FileEntry>,
    known: HashMap<Likeness, Vec<(u32, Pid, u32)>>,
    last_id: u32,
}

impl FileTable {
    pub(crate) fn new_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    fn find(&self, descriptor: &Descriptor) -> Result<Option<u32>> {
        let candidates = self.known.get(&likeness(descriptor));
        for (id, process, number) in candidates.into_iter().flatten() {
            let kind = sys::kcmp::Kind::File(*number, descriptor.number);
            let order = sys::kcmp::compare(*process, descriptor.process, kind)
                .map_err(|errno| Error::kernel("compare", descriptor.object(), errno))?;
            if order.is_eq() {
                return Ok(Some(*id));
            }
        }
        Ok(None)
    }

    /// A description of the socket with this inode.
    pub(crate) fn socket(&self, inode: u64) -> Option<u32> {
        let is = |likeness: &Likeness| likeness.1 == inode;
        let mut known = self.known.iter().filter(|(likeness, _)| is(likeness));
        known.find_map(|(_, descriptions)| Some(descriptions.first()?.0))
    }

    pub(crate) fn entry(&self, id: u32) -> Option<&FileEntry> {
        self.entries.iter().find(|entry| entry.id == id)
    }
}

fn likeness(descriptor: &Descriptor) -> Likeness {
    let stat = &descriptor.stat;
    (
        stat.st_dev,
        stat.st_ino,
        descriptor.flags,
        descriptor.position,
    )
}

/// Dumps the table of descriptors of a process; returns what `fdinfo-ID.img` holds.
pub(crate) fn dump_table(process: Pid, dump: &mut Dump<'_>) -> Result<Vec<FdinfoEntry>> {
    let pidfd = rustix::process::pidfd_open(process, PidfdFlags::empty())
        .during("open process", process)?;
    let mut table = Vec::new();
    for number in procfs::numbers_in(process, "fd")? {
        let mut descriptor = Descriptor::open(process, &pidfd, number as u32)?;
        let id = match dump.files.find(&descriptor)? {
            Some(id) => id,
            None => dump_new(&mut descriptor, dump)?,
        };
        descriptor.id = id;
        crate::lock::dump(&descriptor, dump);
        let kind = dump.files.entry(id).map_or(0, |entry| entry.r#type);
        table.push(FdinfoEntry {
            id,
            flags: u32::from(descriptor.close_on_exec),
            r#type: kind,
            fd: descriptor.number,
            ..FdinfoEntry::default()
        });
    }
    Ok(table)
}

/// Dumps a file that was found travelling in a message; returns its id.
pub(crate) fn dump_in_flight(file: OwnedFd, dump: &mut Dump<'_>) -> Result<u32> {
    let engine = rustix::process::getpid();
    let number = file.as_raw_fd() as u32;
    let mut descriptor =
        Descriptor::describe(engine, duplicate(&file, "a file in flight")?, number)?;
    if let Some(id) = dump.files.find(&descriptor)? {
        return Ok(id);
    }
    let id = dump_new(&mut descriptor, dump)?;
    dump.in_flight.push(file);
    Ok(id)
}

/// A second descriptor of the same description in the engine.
pub(crate) fn duplicate(file: impl AsFd, what: &str) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(file, 0).during("duplicate", what)
}

/// Sets what F_SETFL can set.
pub(crate) fn set_status_flags(file: &OwnedFd, flags: u32) -> Result<()> {
    let settable = (libc::O_NONBLOCK | libc::O_APPEND) as u32;
    let flags = rustix::fs::OFlags::from_bits_retain(flags & settable);
    rustix::fs::fcntl_setfl(file, flags).during("set flags of", "a file")
}

fn dump_new(descriptor: &mut Descriptor, dump: &mut Dump<'_>) -> Result<u32> {
    crate::obstacle::check_descriptor(descriptor)?;
    descriptor.id = dump.files.new_id();
    let entry = describe(descriptor, dump).map_err(|error| {
        let cause = error.to_string();
        Error::because("dump", descriptor.object(), cause)
    })?;
    dump.files.entries.push(entry);
    let known = (descriptor.id, descriptor.process, descriptor.number);
    dump.files
        .known
        .entry(likeness(descriptor))
        .or_default()
        .push(known);
    Ok(descriptor.id)
}

/// Asks the file that knows this kind of object.
fn describe(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    use rustix::fs::FileType;
    let link = &descriptor.link;
    match FileType::from_raw_mode(descriptor.stat.st_mode) {
        FileType::RegularFile if memfd::is_memfd(link) => memfd::dump(descriptor, dump),
        FileType::RegularFile if namespace::kind(link).is_some() => namespace::dump(descriptor),
        _ if descriptor.anonymous_kind().is_some() => describe_anonymous(descriptor, dump),
        FileType::CharacterDevice
            if tty::is_terminal(descriptor.stat.st_rdev)
                && descriptor.flags & libc::O_PATH as u32 == 0 =>
        {
            tty::dump(descriptor, dump)
        }
        FileType::RegularFile
        | FileType::Directory
        | FileType::BlockDevice
        | FileType::Symlink
        | FileType::CharacterDevice => regular::dump(descriptor, dump),
        FileType::Fifo if link.starts_with("pipe:[") => pipe::dump(descriptor, dump),
        FileType::Fifo if descriptor.flags & libc::O_PATH as u32 != 0 => {
            regular::dump(descriptor, dump)
        }
        FileType::Fifo => pipe::dump_fifo(descriptor, dump),
        FileType::Socket if descriptor.flags & libc::O_PATH as u32 != 0 => {
            regular::dump(descriptor, dump)
        }
        FileType::Socket => describe_socket(descriptor, dump),
        _ => Err(Error::because(
            "dump file",
            link,
            "floe cannot dump this kind of file yet",
        )),
    }
}

fn describe_socket(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    match inet_socket::check_family(descriptor)? {
        libc::AF_UNIX => unix_socket::dump(descriptor, dump),
        libc::AF_INET | libc::AF_INET6 => inet_socket::dump(descriptor, dump),
        libc::AF_NETLINK => netlink_socket::dump(descriptor),
        libc::AF_PACKET => packet_socket::dump(descriptor),
        family => {
            let cause = format!("sockets of family {family} cannot be dumped");
            Err(Error::because("dump file", &descriptor.link, cause))
        }
    }
}

fn describe_anonymous(descriptor: &Descriptor, dump: &mut Dump<'_>) -> Result<FileEntry> {
    match descriptor.anonymous_kind() {
        Some("eventfd") => Ok(eventfd::dump(descriptor)),
        Some("timerfd") => Ok(timerfd::dump(descriptor)),
        Some("signalfd") => Ok(signalfd::dump(descriptor)),
        Some("eventpoll") => epoll::dump(descriptor),
        Some("inotify") => inotify::dump(descriptor, dump),
        Some("fanotify") => fanotify::dump(descriptor, dump),
        Some("pidfd") => Ok(pidfd::dump(descriptor)),
        _ => {
            let cause = "this kind of kernel object cannot be dumped";
            Err(Error::because("dump file", &descriptor.link, cause))
        }
    }
}

/// An entry of this type and id, for its maker to fill.
pub(crate) fn new_entry(kind: FdTypes, id: u32) -> FileEntry {
    FileEntry {
        r#type: kind as i32,
        id,
        ..FileEntry::default()
    }
}
