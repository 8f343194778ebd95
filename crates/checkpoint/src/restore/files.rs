//! Opens every file description once, in the table that engine and stubs share, above all numbers
//! that a process wants; then each process takes a copy of the table and puts its own in place.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::Pid;

use super::load::{Plan, Task};
use super::mounts::MountNamespaces;
use super::tree::{Forest, Stub};
use crate::error::{Context, Error, Result};
use crate::external;
use crate::files::ghost::Ghosts;
use crate::files::memfd::Memfds;
use crate::files::pipe::Pipe;
use crate::files::tty::Terminals;
use crate::files::unix_socket::UnixSockets;
use crate::files::{
    duplicate, epoll, eventfd, fanotify, inet_socket, inotify, memfd, namespace, netlink_socket,
    owner, packet_socket, pidfd, regular, signalfd, socket, tcp, timerfd, tty,
};
use crate::image::Directory;
use crate::image::event::{
    EventfdFileEntry, EventpollFileEntry, FanotifyFileEntry, InotifyFileEntry, PidfdEntry,
    SignalfdEntry, TimerfdEntry,
};
use crate::image::file::{
    FdTypes, FifoEntry, FileEntry, NsFileEntry, PipeEntry, RegFileEntry, RemapType,
};
use crate::image::memory::{MemfdFileEntry, VmaEntry};
use crate::image::socket::{InetSkEntry, NetlinkSkEntry, PacketSockEntry};
use crate::image::tty::TtyFileEntry;
use crate::lock;
use crate::memory::{HUGE_FLAGS, status};
use crate::shared_memory;
use crate::tape::Tape;

/// A file of the images, by what it is.
enum FileObject<'a> {
    Regular(&'a RegFileEntry),
    Pipe(&'a PipeEntry),
    Fifo(&'a FifoEntry),
    Eventfd(&'a EventfdFileEntry),
    Timerfd(&'a TimerfdEntry),
    Signalfd(&'a SignalfdEntry),
    Epoll(&'a EventpollFileEntry),
    Inotify(&'a InotifyFileEntry),
    Fanotify(&'a FanotifyFileEntry),
    Namespace(&'a NsFileEntry),
    Pidfd(&'a PidfdEntry),
    Memfd(&'a MemfdFileEntry),
    Inet(&'a InetSkEntry),
    Netlink(&'a NetlinkSkEntry),
    Packet(&'a PacketSockEntry),
    Terminal(&'a TtyFileEntry),
}

impl<'a> FileObject<'a> {
    fn of(entry: &'a FileEntry) -> Result<Self> {
        let kind = FdTypes::try_from(entry.r#type).unwrap_or(FdTypes::Und);
        let object = match kind {
            FdTypes::Reg => entry.reg.as_ref().map(Self::Regular),
            FdTypes::Pipe => entry.pipe.as_ref().map(Self::Pipe),
            FdTypes::Fifo => entry.fifo.as_ref().map(Self::Fifo),
            FdTypes::Eventfd => entry.efd.as_ref().map(Self::Eventfd),
            FdTypes::Timerfd => entry.tfd.as_ref().map(Self::Timerfd),
            FdTypes::Signalfd => entry.sgfd.as_ref().map(Self::Signalfd),
            FdTypes::Eventpoll => entry.epfd.as_ref().map(Self::Epoll),
            FdTypes::Inotify => entry.ify.as_ref().map(Self::Inotify),
            FdTypes::Fanotify => entry.ffy.as_ref().map(Self::Fanotify),
            FdTypes::Ns => entry.nsf.as_ref().map(Self::Namespace),
            FdTypes::Pidfd => entry.pidfd.as_ref().map(Self::Pidfd),
            FdTypes::Memfd => entry.memfd.as_ref().map(Self::Memfd),
            FdTypes::Inetsk => entry.isk.as_ref().map(Self::Inet),
            FdTypes::Tty => entry.tty.as_ref().map(Self::Terminal),
            FdTypes::Netlinksk => entry.nlsk.as_ref().map(Self::Netlink),
            FdTypes::Packetsk => entry.psk.as_ref().map(Self::Packet),
            _ => None,
        };
        object.ok_or_else(|| {
            Error::because(
                "open file",
                entry.id,
                format!("floe cannot restore {kind:?} yet"),
            )
        })
    }
}

/// Open files of a restore.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    images: &'a Directory,
    plan: &'a Plan,
    /// By the id of the description.
    open: HashMap<u32, OwnedFd>,
    /// By file id and flags: files that are only mapped.
    mapped: HashMap<(u32, u32), OwnedFd>,
    shared: HashMap<u64, OwnedFd>,
    pipes: HashMap<u32, Pipe>,
    memfds: Memfds,
    /// While their queues are not yet full.
    unix_sockets: Option<UnixSockets<'a>>,
    /// TCP connections in repair mode, by file id.
    connections: HashMap<u32, tcp::Connection>,
    terminals: Terminals,
    dead: pidfd::Dead,
    /// What inotify and fanotify descriptions watch, by file id; made when nothing else happens.
    watches: HashMap<u32, Vec<inotify::Watch<'a>>>,
    marks: HashMap<u32, Vec<fanotify::Mark<'a>>>,
    root: Pid,
    /// Descriptions whose registrations and owners are set.
    finished: HashSet<u32>,
    /// What the caller gives, by key.
    inherited: &'a [(String, OwnedFd)],
    /// Of each mount namespace.
    ghosts: HashMap<usize, Ghosts>,
    /// With the mount namespace.
    links: Vec<(usize, String)>,
    pub(super) mounts: MountNamespaces,
    /// First number that no process wants.
    base: i32,
}

impl<'a> Files<'a> {
    pub(crate) fn new(
        images: &'a Directory,
        plan: &'a Plan,
        inherited: &'a [(String, OwnedFd)],
        terminals: Terminals,
    ) -> Result<Self> {
        let numbers = plan
            .tasks
            .iter()
            .flat_map(|task| &task.descriptors)
            .map(|descriptor| descriptor.fd);
        let base = numbers.max().unwrap_or(0) as i32 + 1;
        raise_limit().during("raise the limit of", "open files")?;
        Ok(Self {
            images,
            plan,
            open: HashMap::new(),
            mapped: HashMap::new(),
            shared: HashMap::new(),
            pipes: HashMap::new(),
            memfds: Memfds::default(),
            unix_sockets: None,
            connections: HashMap::new(),
            terminals,
            dead: pidfd::Dead::default(),
            watches: HashMap::new(),
            marks: HashMap::new(),
            root: rustix::process::getpid(),
            finished: HashSet::new(),
            inherited,
            ghosts: HashMap::new(),
            links: Vec::new(),
            mounts: MountNamespaces::default(),
            base,
        })
    }

    /// Moves a descriptor to a number that no process wants.
    fn lift(&self, fd: OwnedFd) -> Result<OwnedFd> {
        if fd.as_raw_fd() >= self.base {
            return Ok(fd);
        }
        rustix::io::fcntl_dupfd_cloexec(&fd, self.base).during("place descriptor", self.base)
    }

    fn entry(&self, id: u32) -> Result<&'a FileEntry> {
        let plan = self.plan;
        plan.files
            .get(&id)
            .ok_or_else(|| Error::because("open file", id, "files.img does not have it"))
    }

    /// Opens all descriptions that a process has a descriptor of.
    pub(crate) fn open_all(&mut self, plan: &Plan, forest: &Forest) -> Result<()> {
        self.root = forest.stubs[0].pid;
        self.create_unix_sockets()?;
        self.set_up_terminals(forest)?;
        self.open_controlling(forest)?;
        let mut inet: Vec<&InetSkEntry> = plan
            .files
            .values()
            .filter_map(|entry| entry.isk.as_ref())
            .collect();
        // Listeners first: a connection may be bound beside a listener, not the other way round.
        inet.sort_by_key(|entry| (inet_socket::is_connected_tcp(entry), entry.id));
        for entry in inet
            .iter()
            .filter(|entry| !inet_socket::is_connected_tcp(entry))
        {
            self.description(entry.id)?;
        }
        for entry in inet
            .iter()
            .filter(|entry| inet_socket::is_connected_tcp(entry))
        {
            let mut connection = tcp::restore(self.images, entry)?;
            connection.fd = self.lift(connection.fd)?;
            self.connections.insert(entry.id, connection);
        }
        for descriptor in plan.tasks.iter().flat_map(|task| &task.descriptors) {
            self.description(descriptor.id)?;
        }
        self.fill_unix_sockets()?;
        for entry in inet
            .iter()
            .filter(|entry| !inet_socket::is_connected_tcp(entry))
        {
            inet_socket::restore_reuse(&self.open[&entry.id], entry)?;
        }
        self.terminals.configure(&plan.terminals)?;
        self.terminals.refill(self.images, &plan.terminals)?;
        self.pipes.clear();
        self.dead = pidfd::Dead::default();
        Ok(())
    }

    fn create_unix_sockets(&mut self) -> Result<()> {
        let entries = self
            .plan
            .files
            .values()
            .filter_map(|entry| entry.usk.as_ref());
        let mut sockets = UnixSockets::new(entries);
        sockets.create_all()?;
        self.unix_sockets = Some(sockets);
        Ok(())
    }

    /// Everything that can travel in a message is open, or is opened now.
    fn fill_unix_sockets(&mut self) -> Result<()> {
        let Some(sockets) = self.unix_sockets.take() else {
            return Ok(());
        };
        let packets = socket::load_queues(self.images)?;
        sockets.refill(&packets, |id| match sockets.descriptor(id) {
            Some(fd) => Ok(fd.as_raw_fd()),
            None => self.description(id),
        })?;
        for (id, fd) in sockets.finish()? {
            let fd = self.lift(fd)?;
            self.open.insert(id, fd);
        }
        Ok(())
    }

    /// The number of description `id`, which is opened if it is not.
    fn description(&mut self, id: u32) -> Result<i32> {
        if let Some(fd) = self.open.get(&id) {
            return Ok(fd.as_raw_fd());
        }
        if let Some(connection) = self.connections.get(&id) {
            return Ok(connection.fd.as_raw_fd());
        }
        let entry = self.entry(id)?;
        if entry.usk.is_some() && self.unix_sockets.is_some() {
            return Ok(-1);
        }
        let fd = match self.inherited(entry)? {
            Some(fd) => fd,
            None => self.open_new(entry)?,
        };
        let fd = self.lift(fd)?;
        let number = fd.as_raw_fd();
        self.open.insert(id, fd);
        Ok(number)
    }

    /// What the caller gives instead of opening the file.
    fn inherited(&self, entry: &FileEntry) -> Result<Option<OwnedFd>> {
        let keys = external::keys_of(entry);
        let given = self.inherited.iter().find(|(key, _)| keys.contains(key));
        if given.is_none()
            && entry
                .reg
                .as_ref()
                .is_some_and(|reg| reg.ext.unwrap_or(false))
        {
            let cause = "it was outside of the tree, and the caller gives nothing for it";
            return Err(Error::because("open file", keys.join(" or "), cause));
        }
        given.map(|(key, fd)| duplicate(fd, key)).transpose()
    }

    fn open_new(&mut self, entry: &'a FileEntry) -> Result<OwnedFd> {
        let entry = FileObject::of(entry)?;
        self.mounts.go(0)?;
        match entry {
            FileObject::Regular(reg) => {
                let path = self.path(reg)?;
                regular::restore(reg, &path)
            }
            FileObject::Pipe(pipe) => self.pipe(pipe.pipe_id, None)?.end(pipe.flags),
            FileObject::Fifo(fifo) => {
                let entry = self.entry(fifo.regf_id.unwrap_or(fifo.id))?;
                let reg = entry.reg.as_ref();
                let reg =
                    reg.ok_or_else(|| Error::because("open fifo", fifo.id, "it has no path"))?;
                let path = self.path(reg)?;
                self.pipe(fifo.pipe_id, Some(&path))?.end(reg.flags)
            }
            FileObject::Eventfd(entry) => eventfd::restore(entry),
            FileObject::Timerfd(entry) => timerfd::restore(entry),
            FileObject::Signalfd(entry) => signalfd::restore(entry),
            FileObject::Epoll(entry) => epoll::restore(entry),
            FileObject::Inotify(entry) => {
                for watch in &entry.wd {
                    let path = self.path_of_ghost(watch.f_handle.path.as_deref())?;
                    let watch = inotify::Watch::find(watch, path.as_deref())?;
                    self.watches.entry(entry.id).or_default().push(watch);
                }
                inotify::restore(entry)
            }
            FileObject::Fanotify(entry) => {
                for mark in &entry.mark {
                    let known = mark.ie.as_ref().and_then(|ie| ie.f_handle.path.as_deref());
                    let path = self.path_of_ghost(known)?;
                    let mark = fanotify::Mark::find(mark, path.as_deref())?;
                    self.marks.entry(entry.id).or_default().push(mark);
                }
                fanotify::restore(entry)
            }
            FileObject::Namespace(entry) => namespace::restore(entry, self.root),
            FileObject::Pidfd(entry) => pidfd::restore(entry, &mut self.dead),
            FileObject::Terminal(entry) => self.open_terminal(entry),
            FileObject::Inet(entry) => inet_socket::restore(entry),
            FileObject::Netlink(entry) => netlink_socket::restore(entry),
            FileObject::Packet(entry) => packet_socket::restore(entry),
            FileObject::Memfd(entry) => self.memfd(entry),
        }
    }

    fn open_terminal(&mut self, entry: &TtyFileEntry) -> Result<OwnedFd> {
        let info = self
            .plan
            .terminals
            .iter()
            .find(|info| info.id == entry.tty_info_id);
        let missing = || {
            Error::because(
                "open terminal",
                entry.tty_info_id,
                "tty-info.img does not have it",
            )
        };
        let path = entry
            .regf_id
            .and_then(|id| self.plan.files.get(&id))
            .and_then(|entry| entry.reg.as_ref());
        let path = path.map_or("", |reg| reg.name.as_str());
        self.terminals.open(entry, info.ok_or_else(missing)?, path)
    }

    /// Makes every pty and gives it to its session; then `/dev/tty` can be opened from inside.
    fn set_up_terminals(&mut self, forest: &Forest) -> Result<()> {
        let plan = self.plan;
        for info in &plan.terminals {
            match &info.pty {
                Some(pty) if tty::is_master(info) => self.terminals.master(pty.index)?,
                Some(pty) => self.terminals.adopt(pty.index)?,
                None => {}
            }
        }
        let mut controlled = HashSet::new();
        for info in &plan.terminals {
            let Some(pty) = info
                .pty
                .as_ref()
                .filter(|pty| self.terminals.has(pty.index))
            else {
                continue;
            };
            let leader = plan
                .tasks
                .iter()
                .position(|task| task.pid == info.sid as i32 && task.is_session_leader());
            let Some(leader) = leader.filter(|_| controlled.insert(info.sid)) else {
                continue;
            };
            let injector = &forest.stubs[leader].injector;
            self.terminals.control(pty.index, injector)?;
            if info.pgrp != 0 {
                self.terminals
                    .set_group(pty.index, info.pgrp, injector, forest.scratch())?;
            }
        }
        Ok(())
    }

    /// Opens `/dev/tty` in the first process that has it open, which has its terminal by now.
    fn open_controlling(&mut self, forest: &Forest) -> Result<()> {
        let plan = self.plan;
        for (task, stub) in plan.tasks.iter().zip(&forest.stubs) {
            for descriptor in &task.descriptors {
                let Some(entry) = self.entry(descriptor.id)?.tty.as_ref() else {
                    continue;
                };
                let info = plan
                    .terminals
                    .iter()
                    .find(|info| info.id == entry.tty_info_id);
                if self.open.contains_key(&descriptor.id) || !info.is_some_and(tty::is_controlling)
                {
                    continue;
                }
                let path = forest.scratch();
                sys::process_memory::write_all(stub.pid, path, b"/dev/tty\0")
                    .during("write into", stub.pid)?;
                let kept = (libc::O_ACCMODE | libc::O_NONBLOCK) as u32;
                let flags = u64::from(entry.flags & kept) | libc::O_CLOEXEC as u64;
                let arguments = [libc::AT_FDCWD as u64, path, flags, 0, 0, 0];
                let number = stub
                    .injector
                    .call("open /dev/tty in", libc::SYS_openat, arguments)?;
                let fd = sys::fd::adopt(number as i32).during("take over", "/dev/tty")?;
                let fd = self.lift(fd)?;
                self.open.insert(descriptor.id, fd);
            }
        }
        Ok(())
    }

    /// The pipe with this id, or the fifo at `path`; both ends are held until all is open.
    fn pipe(&mut self, id: u32, path: Option<&str>) -> Result<&mut Pipe> {
        let images = self.images;
        match self.pipes.entry(id) {
            Entry::Occupied(made) => Ok(made.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(match path {
                None => Pipe::new(images, id)?,
                Some(path) => Pipe::open(images, id, path)?,
            })),
        }
    }

    /// Where a file that has lost this name can be opened now; `None`: it has not.
    fn path_of_ghost(&mut self, name: Option<&str>) -> Result<Option<String>> {
        let plan = self.plan;
        let lost = |reg: &&RegFileEntry| {
            Some(reg.name.as_str()) == name && plan.remaps.contains_key(&reg.id)
        };
        let mut files = plan.files.values().filter_map(|entry| entry.reg.as_ref());
        files.find(lost).map(|reg| self.path(reg)).transpose()
    }

    /// Where the file of an image can be opened now, in the mount namespace where that leads there,
    /// which the engine is in afterwards.
    fn path(&mut self, reg: &RegFileEntry) -> Result<String> {
        let at = self.mounts.visit(reg.mnt_id)?;
        let Some(remap) = self.plan.remaps.get(&reg.id) else {
            return Ok(reg.name.clone());
        };
        match remap.remap_type() {
            RemapType::Ghost => {
                let ghosts = self.ghosts.entry(at).or_default();
                ghosts.path(self.images, remap.remap_id, &reg.name)
            }
            RemapType::Linked => {
                let entry = self.entry(remap.remap_id)?;
                let name = entry
                    .reg
                    .as_ref()
                    .map(|reg| reg.name.clone())
                    .unwrap_or_default();
                let (temporary, old) = ((at, name.clone()), (at, reg.name.clone()));
                if !self.links.contains(&temporary) {
                    self.links.push(temporary);
                }
                // The old name again while the file is opened, so that /proc shows it.
                if std::fs::symlink_metadata(&reg.name).is_err()
                    && std::fs::hard_link(&name, &reg.name).is_ok()
                {
                    self.links.push(old);
                    return Ok(reg.name.clone());
                }
                if self.links.contains(&old) {
                    return Ok(reg.name.clone());
                }
                Ok(name)
            }
            RemapType::Procfs => {
                // What had this directory is dead; somebody must live there while it is opened.
                self.dead.live_at(remap.remap_id)?;
                Ok(reg.name.clone())
            }
        }
    }

    /// The descriptor that a mapping is made from.
    pub(crate) fn for_mapping(&mut self, vma: &VmaEntry) -> Result<u64> {
        if vma.status & status::ANON_SHARED != 0 {
            return self.shared_object(vma.shmid);
        }
        let id = u32::try_from(vma.shmid).unwrap_or(u32::MAX);
        let entry = self.entry(id)?;
        if vma.status & status::SOCKET != 0 {
            return self.description(id).map(|number| number as u64);
        }
        if let Some(memfd) = &entry.memfd {
            return self.mapped_memfd(memfd, vma.fdflags.unwrap_or(memfd.flags));
        }
        let reg = entry.reg.as_ref().ok_or_else(|| {
            let cause = "the mapped file is no regular one";
            Error::because("map file", id, cause)
        })?;
        self.mapped_file(reg, vma.fdflags.unwrap_or(reg.flags))
    }

    fn mapped_file(&mut self, reg: &RegFileEntry, flags: u32) -> Result<u64> {
        let flags = flags & libc::O_ACCMODE as u32;
        if let Some(fd) = self.mapped.get(&(reg.id, flags)) {
            return Ok(fd.as_raw_fd() as u64);
        }
        let path = self.path(reg)?;
        let fd = self.lift(regular::open(&path, reg, flags)?)?;
        let number = fd.as_raw_fd() as u64;
        self.mapped.insert((reg.id, flags), fd);
        Ok(number)
    }

    fn mapped_memfd(&mut self, memfd: &MemfdFileEntry, flags: u32) -> Result<u64> {
        if let Some(fd) = self.mapped.get(&(memfd.id, flags)) {
            return Ok(fd.as_raw_fd() as u64);
        }
        let entry = MemfdFileEntry {
            flags,
            pos: 0,
            ..memfd.clone()
        };
        let fd = self.memfd(&entry)?;
        let fd = self.lift(fd)?;
        let number = fd.as_raw_fd() as u64;
        self.mapped.insert((memfd.id, flags), fd);
        Ok(number)
    }

    fn memfd(&mut self, entry: &MemfdFileEntry) -> Result<OwnedFd> {
        let plan = self.plan;
        let inode_id = u64::from(entry.inode_id);
        let inode = plan.memfds.iter().find(|inode| inode.inode_id == inode_id);
        if let Some(inode) = inode.filter(|inode| memfd::is_shared_memory(inode)) {
            let shmid = u64::from(inode.shmid);
            self.shared_object(shmid)?;
            let fd = crate::files::duplicate(&self.shared[&shmid], "shared memory")?;
            self.memfds.adopt(inode_id, fd);
        }
        self.memfds.open(self.images, &plan.memfds, entry)
    }

    /// Makes an object of shared memory, large enough for all that use it.
    fn shared_object(&mut self, shmid: u64) -> Result<u64> {
        if let Some(fd) = self.shared.get(&shmid) {
            return Ok(fd.as_raw_fd() as u64);
        }
        let mappings = self.plan.tasks.iter().flat_map(|task| &task.mm.vmas);
        let same: Vec<&VmaEntry> = mappings
            .filter(|vma| vma.shmid == shmid && vma.status & status::ANON_SHARED != 0)
            .collect();
        let ends = same
            .iter()
            .map(|vma| vma.pgoff.saturating_add(vma.end - vma.start));
        let memfds = self.plan.memfds.iter();
        let sizes = memfds
            .filter(|inode| u64::from(inode.shmid) == shmid)
            .map(|inode| inode.size);
        let size = ends.chain(sizes).max().unwrap_or(0);
        let huge = same.iter().map(|vma| vma.flags & HUGE_FLAGS).max();
        let huge = huge.unwrap_or(0) as i32;
        let fd = self.lift(shared_memory::restore(self.images, shmid, size, huge)?)?;
        let number = fd.as_raw_fd() as u64;
        self.shared.insert(shmid, fd);
        Ok(number)
    }

    /// The descriptor of the program's file.
    pub(crate) fn for_program(&mut self, id: u32) -> Result<u64> {
        let reg = self.entry(id)?.reg.as_ref();
        let reg = reg.ok_or_else(|| Error::because("open program", id, "it is no regular file"))?;
        self.mapped_file(reg, libc::O_RDONLY as u32)
    }

    /// Gives a process its own table, directories and umask.
    pub(crate) fn place(&mut self, task: &Task, stub: &Stub) -> Result<()> {
        if task.is_dead() {
            return Ok(());
        }
        let mut tape = Tape::new(stub.arena);
        tape.call(
            "leave the shared table of",
            task.pid,
            libc::SYS_unshare,
            &[libc::CLONE_FILES as u64],
        );
        self.enter_directories(task, &mut tape)?;
        let mut numbers = Vec::new();
        for descriptor in &task.descriptors {
            let from = self.description(descriptor.id)? as u64;
            let flags = if descriptor.flags & 1 != 0 {
                libc::O_CLOEXEC as u64
            } else {
                0
            };
            let arguments = [from, u64::from(descriptor.fd), flags];
            tape.call(
                "place descriptor",
                descriptor.fd,
                libc::SYS_dup3,
                &arguments,
            );
            numbers.push(descriptor.fd);
        }
        for descriptor in &task.descriptors {
            if !self.finished.insert(descriptor.id) {
                continue;
            }
            let entry = self.entry(descriptor.id)?;
            if let Some(entry) = &entry.epfd {
                epoll::register(entry, descriptor.fd, &mut tape);
            }
            if let Some(owner) = owner::of(entry) {
                owner::restore(owner, descriptor.fd, &mut tape);
            }
            if let Some(flags) = owner::asynchronous(entry) {
                let arguments = [
                    u64::from(descriptor.fd),
                    libc::F_SETFL as u64,
                    u64::from(flags),
                ];
                tape.call(
                    "set flags of descriptor",
                    descriptor.fd,
                    libc::SYS_fcntl,
                    &arguments,
                );
            }
        }
        close_others(&mut numbers, &mut tape);
        lock::restore(task, &self.plan.locks, &mut tape);
        tape.play(&stub.injector).map(drop)
    }

    fn enter_directories(&mut self, task: &Task, tape: &mut Tape) -> Result<()> {
        let path = |id: u32, files: &mut Self| -> Result<(String, u64)> {
            let reg = files.entry(id)?.reg.as_ref();
            let reg =
                reg.ok_or_else(|| Error::because("enter directory", id, "it is no directory"))?;
            let fd = files.mapped_file(reg, libc::O_RDONLY as u32)?;
            Ok((reg.name.clone(), fd))
        };
        let (root, root_fd) = path(task.fs.root_id, self)?;
        let (cwd, cwd_fd) = path(task.fs.cwd_id, self)?;
        if root != "/" {
            let here = tape.text(".");
            tape.call("enter", &root, libc::SYS_fchdir, &[root_fd]);
            tape.call("change root to", &root, libc::SYS_chroot, &[here]);
        }
        tape.call("enter", &cwd, libc::SYS_fchdir, &[cwd_fd]);
        tape.call(
            "set umask of",
            task.pid,
            libc::SYS_umask,
            &[u64::from(task.fs.umask.unwrap_or(0o22))],
        );
        Ok(())
    }

    /// Terminals whose other end was gone lose it again; the processes have their own tables.
    pub(crate) fn hang_up(&mut self) {
        self.terminals.hang_up(&self.plan.terminals);
    }

    /// All sockets exist, and none may speak yet.
    pub(crate) fn close_halves(&self) -> Result<()> {
        let mut connections = self.connections.values();
        connections.try_for_each(tcp::Connection::close_halves)
    }

    /// All processes have what they need.
    ///
    /// Returns the masters of terminals whose other end is outside, by number.
    pub(crate) fn finish(&mut self) -> Result<Vec<(u32, OwnedFd)>> {
        self.memfds.seal()?;
        let consoles = self.terminals.finish(&self.plan.terminals)?;
        for (_, connection) in self.connections.drain() {
            connection.go()?;
        }
        for (at, link) in std::mem::take(&mut self.links) {
            self.mounts.go(at)?;
            let _ = std::fs::remove_file(link);
        }
        for (at, ghosts) in std::mem::take(&mut self.ghosts) {
            self.mounts.go(at)?;
            drop(ghosts);
        }
        self.mounts.go(0)?;
        for (id, mut watches) in self.watches.drain() {
            inotify::watch_all(&self.open[&id], &mut watches)?;
        }
        for (id, marks) in self.marks.drain() {
            fanotify::mark_all(&self.open[&id], &marks)?;
        }
        self.open.clear();
        self.mapped.clear();
        self.shared.clear();
        Ok(consoles)
    }
}

fn raise_limit() -> sys::Result<()> {
    use rustix::process::{Resource, Rlimit};
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
}

/// Closes every number that is not in the list.
fn close_others(numbers: &mut [u32], tape: &mut Tape) {
    numbers.sort_unstable();
    let mut from = 0;
    for &number in numbers.iter() {
        if number > from {
            tape.call(
                "close from",
                from,
                libc::SYS_close_range,
                &[u64::from(from), u64::from(number - 1), 0],
            );
        }
        from = number + 1;
    }
    tape.call(
        "close from",
        from,
        libc::SYS_close_range,
        &[u64::from(from), u64::from(u32::MAX), 0],
    );
}
