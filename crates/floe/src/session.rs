//! A connection to a container's monitor: start, attach, wait.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use monitor::files::SOCKET;
use monitor::wire::{CHUNK, Reply, Request};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use rustix::process::Signal;

use crate::runtime::Runtime;
use crate::store::container::Container;
use crate::terminal::{self, DetachKeys, Raw};

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The container has ended with this status.
    Exited(u8),
    /// The user typed the detach keys.
    Detached,
    /// The runtime could not start the container.
    Failed,
    /// The monitor is gone without a word.
    Lost,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    socket: OwnedFd,
}

/// What to pass between the caller's streams and the container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    pub(crate) input: bool,
    pub(crate) terminal: bool,
    /// Pass on the signals that the caller gets.
    pub(crate) signals: bool,
}

impl Session {
    /// Connects to the monitor of a container.
    ///
    /// # Errors
    /// No monitor is there.
    pub(crate) fn connect(container: &Container) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let told = || format!("container `{}` has no monitor", container.record.name);
        // Through the directory's descriptor, because a socket's address is at most 107 bytes.
        let directory = rustix::fs::open(&container.run_dir, flags, Mode::empty());
        let directory = directory.with_context(told)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path.as_str())?).with_context(told)?;
        Ok(Self { socket })
    }

    /// Sends a request that fits the socket's buffer.
    ///
    /// # Errors
    /// The monitor is gone.
    pub(crate) fn request(&self, request: &Request<'_>) -> Result<()> {
        send(&self.socket, &request.encode(), SendFlags::NOSIGNAL)
            .map(drop)
            .context("speak to the monitor")
    }

    /// Starts the container and waits until it runs.
    ///
    /// # Errors
    /// The monitor is gone.
    pub(crate) fn start(&self) -> Result<Outcome> {
        self.request(&Request::Start)?;
        let mut buffer = vec![0; CHUNK + 1];
        loop {
            match self.receive(&mut buffer)? {
                Some(Reply::Started) => return Ok(Outcome::Detached),
                Some(Reply::Failed) => return Ok(Outcome::Failed),
                Some(Reply::Exited(code)) => return Ok(Outcome::Exited(code)),
                Some(Reply::Output(_) | Reply::Errors(_)) => {}
                None => return Ok(Outcome::Lost),
            }
        }
    }

    /// Waits for the container's end, at most this long; `None` if it has not come.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn wait(&self, timeout: Option<std::time::Duration>) -> Result<Option<Outcome>> {
        let end = timeout.map(|timeout| std::time::Instant::now() + timeout);
        let mut buffer = vec![0; CHUNK + 1];
        loop {
            let left = end.map(|end| end.saturating_duration_since(std::time::Instant::now()));
            let left = left.and_then(|left| rustix::event::Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(sys::Errno::INTR) => continue,
                Err(errno) => return Err(errno).context("wait for the monitor"),
            }
            match self.receive(&mut buffer)? {
                Some(Reply::Exited(code)) => return Ok(Some(Outcome::Exited(code))),
                Some(_) => {}
                None => return Ok(Some(Outcome::Lost)),
            }
        }
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<Reply<'a>>> {
        match rustix::io::retry_on_intr(|| recv(&self.socket, &mut *buffer, RecvFlags::empty())) {
            Ok((0, _)) | Err(sys::Errno::CONNRESET) => Ok(None),
            Ok((length, _)) => match Reply::decode(&buffer[..length]) {
                Some(reply) => Ok(Some(reply)),
                None => bail!("the monitor speaks another protocol: it is of another version"),
            },
            Err(errno) => Err(errno).context("listen to the monitor"),
        }
    }

    /// Connects the caller's streams with the container's until it ends or the user detaches.
    /// With `start`, the container is started once the streams are connected.
    ///
    /// # Errors
    /// Those of the caller's own streams, and a monitor of another version.
    pub(crate) fn attach(
        self,
        container: &Container,
        runtime: &Runtime,
        streams: Streams,
        start: bool,
    ) -> Result<Outcome> {
        let forwarded: &[Signal] = if streams.signals {
            &[
                Signal::WINCH,
                Signal::INT,
                Signal::TERM,
                Signal::HUP,
                Signal::QUIT,
                Signal::USR1,
                Signal::USR2,
            ]
        } else {
            &[Signal::WINCH]
        };
        let numbers: Vec<i32> = forwarded.iter().map(|signal| signal.as_raw()).collect();
        let signals = sys::signal::block_to_fd(Some(&numbers)).context("watch signals")?;
        self.request(&Request::Attach)?;
        self.send_size(streams)?;
        if start {
            self.request(&Request::Start)?;
        }
        let raw_mode = streams.terminal && streams.input && terminal::is_input();
        let keys = if raw_mode {
            crate::parse::detach_keys(&container.record.detach_keys)?
        } else {
            Vec::new()
        };
        let mut pump = Pump {
            session: self,
            keys: DetachKeys::new(keys),
            input_open: streams.input,
            unsent: None,
            interrupts: 0,
        };
        let _raw = raw_mode.then(Raw::enter).transpose()?;
        pump.run(container, runtime, streams, &signals)
    }

    fn send_size(&self, streams: Streams) -> Result<()> {
        match terminal::size() {
            Some((rows, columns)) if streams.terminal => {
                self.request(&Request::Resize { rows, columns })
            }
            _ => Ok(()),
        }
    }
}

/// The loop of an attached session.
struct Pump {
    session: Session,
    keys: DetachKeys,
    input_open: bool,
    /// Input that the monitor had no room for; nothing is read meanwhile. Sending must not block:
    /// the container may be waiting for us to read its output.
    unsent: Option<Vec<u8>>,
    interrupts: u32,
}

impl Pump {
    fn run(
        &mut self,
        container: &Container,
        runtime: &Runtime,
        streams: Streams,
        signals: &OwnedFd,
    ) -> Result<Outcome> {
        let mut buffer = vec![0; CHUNK + 1];
        let input = std::io::stdin();
        loop {
            let mut wanted = PollFlags::IN;
            if self.unsent.is_some() {
                wanted |= PollFlags::OUT;
            }
            let read_input = self.input_open && self.unsent.is_none();
            let mut fds = [
                PollFd::new(&self.session.socket, wanted),
                PollFd::new(signals, PollFlags::IN),
                PollFd::new(
                    &input,
                    if read_input {
                        PollFlags::IN
                    } else {
                        PollFlags::empty()
                    },
                ),
            ];
            let fds = if read_input {
                &mut fds[..]
            } else {
                &mut fds[..2]
            };
            match poll(fds, None) {
                Ok(_) => {}
                Err(sys::Errno::INTR) => continue,
                Err(errno) => return Err(errno).context("wait for input"),
            }
            let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            if ready[0].contains(PollFlags::OUT)
                && let Some(message) = self.unsent.take()
            {
                self.send(message)?;
            }
            if !ready[1].is_empty() {
                self.take_signals(container, runtime, streams, signals)?;
            }
            if ready.get(2).is_some_and(|flags| !flags.is_empty())
                && self.take_input(&mut buffer)?
            {
                return Ok(Outcome::Detached);
            }
            if ready[0].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                && let Some(outcome) = self.take_reply(&mut buffer)?
            {
                return Ok(outcome);
            }
        }
    }

    fn send(&mut self, message: Vec<u8>) -> Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match send(&self.session.socket, &message, flags) {
            Ok(_) => {}
            Err(sys::Errno::AGAIN | sys::Errno::NOBUFS) => self.unsent = Some(message),
            // The container has ended; its status is on the way.
            Err(sys::Errno::PIPE | sys::Errno::CONNRESET) => self.input_open = false,
            Err(errno) => return Err(errno).context("speak to the monitor"),
        }
        Ok(())
    }

    /// Whether the user detached.
    fn take_input(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let length = match rustix::io::read(std::io::stdin().as_fd(), &mut buffer[..CHUNK]) {
            Ok(length) => length,
            Err(sys::Errno::AGAIN | sys::Errno::INTR) => return Ok(false),
            // A background job may not read its terminal.
            Err(_) => 0,
        };
        if length == 0 {
            self.input_open = false;
            self.send(Request::InputEnd.encode())?;
            return Ok(false);
        }
        let (pass, detached) = self.keys.feed(&buffer[..length]);
        if !pass.is_empty() {
            self.send(Request::Input(&pass).encode())?;
        }
        Ok(detached)
    }

    fn take_reply(&mut self, buffer: &mut [u8]) -> Result<Option<Outcome>> {
        Ok(match self.session.receive(buffer)? {
            Some(Reply::Output(data)) => {
                pass_on(&mut std::io::stdout().lock(), data)?;
                None
            }
            Some(Reply::Errors(data)) => {
                pass_on(&mut std::io::stderr().lock(), data)?;
                None
            }
            Some(Reply::Started) => None,
            Some(Reply::Failed) => Some(Outcome::Failed),
            Some(Reply::Exited(code)) => Some(Outcome::Exited(code)),
            None => Some(Outcome::Lost),
        })
    }

    fn take_signals(
        &mut self,
        container: &Container,
        runtime: &Runtime,
        streams: Streams,
        signals: &OwnedFd,
    ) -> Result<()> {
        while let Some(signal) = sys::signal::next(signals).context("read signal")? {
            if signal == Signal::WINCH.as_raw() {
                self.session.send_size(streams)?;
                continue;
            }
            let mut forwarded = signal;
            if signal == Signal::INT.as_raw() {
                // A first process without a handler never sees an interrupt; whoever presses the
                // key three times means it.
                self.interrupts += 1;
                if self.interrupts >= 3 {
                    self.session.request(&Request::Hold)?;
                    forwarded = Signal::KILL.as_raw();
                }
            }
            // It may have ended by itself; then its status is on the way.
            let _ = runtime.kill(&container.record.id, forwarded);
        }
        Ok(())
    }
}

/// Copies output to the caller at once. The caller's reader may be gone (`floe run … | head`):
/// then this program ends like any other in a pipe.
fn pass_on(stream: &mut dyn Write, data: &[u8]) -> Result<()> {
    stream
        .write_all(data)
        .and_then(|()| stream.flush())
        .context("write output")
}
