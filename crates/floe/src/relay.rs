//! Copies between the caller's streams and a program's pipes or terminal.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::terminal;

/// Our ends of a program's streams.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) input: Option<OwnedFd>,
    pub(crate) output: OwnedFd,
    pub(crate) errors: Option<OwnedFd>,
}

/// The loop.
#[derive(Debug)]
pub(crate) struct Relay {
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    terminal: bool,
    /// Input that the program has not taken yet; nothing is read meanwhile.
    unwritten: Vec<u8>,
}

const CHUNK: usize = 16 * 1024;

impl Relay {
    #[must_use]
    pub(crate) fn new(streams: Streams, terminal: bool) -> Self {
        Self {
            input: streams.input,
            output: Some(streams.output),
            errors: streams.errors,
            terminal,
            unwritten: Vec::new(),
        }
    }

    /// Copies until the program has ended and its output is read, or nobody holds its output.
    ///
    /// # Errors
    /// Those of the caller's streams.
    pub(crate) fn run(&mut self, pid: Pid) -> Result<()> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("watch the program")?;
        let signals =
            sys::signal::block_to_fd(Some(&[Signal::WINCH.as_raw()])).context("watch signals")?;
        self.resize();
        for fd in [&self.input, &self.output, &self.errors]
            .into_iter()
            .flatten()
        {
            rustix::io::ioctl_fionbio(fd, true).context("make pipe non-blocking")?;
        }
        let mut ended = false;
        while !ended || self.output.is_some() || self.errors.is_some() {
            let ready = self.wait(&pidfd, &signals, ended)?;
            if ended && ready.iter().all(PollFlags::is_empty) {
                // Others that it left behind hold its output: they are not waited for.
                break;
            }
            ended |= !ready[0].is_empty();
            while !ready[1].is_empty() && sys::signal::next(&signals).is_ok_and(|s| s.is_some()) {
                self.resize();
            }
            if !ready[2].is_empty() {
                copy_out(&mut self.output, &mut std::io::stdout().lock())?;
            }
            if !ready[3].is_empty() {
                copy_out(&mut self.errors, &mut std::io::stderr().lock())?;
            }
            if !ready[4].is_empty() {
                self.read_input();
            }
            if !ready[5].is_empty() {
                self.write_input();
            }
        }
        Ok(())
    }

    /// What is ready of: end, signals, output, errors, the caller's input, the program's input.
    fn wait(&self, pidfd: &OwnedFd, signals: &OwnedFd, ended: bool) -> Result<[PollFlags; 6]> {
        let caller = std::io::stdin();
        let idle = self.unwritten.is_empty();
        let wanted = [
            (!ended).then_some((pidfd.as_fd(), PollFlags::IN)),
            Some((signals.as_fd(), PollFlags::IN)),
            self.output.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            self.errors.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            (self.input.is_some() && idle && !ended).then_some((caller.as_fd(), PollFlags::IN)),
            self.input
                .as_ref()
                .filter(|_| !idle)
                .map(|fd| (fd.as_fd(), PollFlags::OUT)),
        ];
        let mut fds: Vec<PollFd<'_>> = wanted
            .iter()
            .flatten()
            .map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        let soon = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        match poll(&mut fds, ended.then_some(&soon)) {
            Ok(_) => {}
            Err(sys::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for the program"),
        }
        let mut ready = [PollFlags::empty(); 6];
        let slots = wanted
            .iter()
            .enumerate()
            .filter(|(_, wanted)| wanted.is_some());
        for ((slot, _), fd) in slots.zip(&fds) {
            ready[slot] = fd.revents();
        }
        Ok(ready)
    }

    fn read_input(&mut self) {
        let mut buffer = vec![0; CHUNK];
        match rustix::io::read(std::io::stdin(), &mut buffer) {
            Err(sys::Errno::AGAIN | sys::Errno::INTR) => {}
            Ok(0) | Err(_) if self.terminal => {
                // End of input, as a terminal has it.
                self.unwritten.push(4);
                self.write_input();
                self.input = None;
            }
            Ok(0) | Err(_) => self.input = None,
            Ok(length) => {
                self.unwritten.extend_from_slice(&buffer[..length]);
                self.write_input();
            }
        }
    }

    fn write_input(&mut self) {
        let Some(input) = &self.input else { return };
        match rustix::io::write(input, &self.unwritten) {
            Ok(length) => drop(self.unwritten.drain(..length)),
            Err(sys::Errno::AGAIN | sys::Errno::INTR) => {}
            // It reads no more.
            Err(_) => {
                self.unwritten.clear();
                self.input = None;
            }
        }
    }

    fn resize(&self) {
        if let (true, Some(output), Some((rows, columns))) =
            (self.terminal, &self.output, terminal::size())
        {
            // A terminal that was hung up has no size to set.
            let _ = sys::terminal::set_size(output, rows, columns);
        }
    }
}

fn copy_out(from: &mut Option<OwnedFd>, to: &mut dyn Write) -> Result<()> {
    let Some(fd) = from else { return Ok(()) };
    let mut buffer = vec![0; CHUNK];
    match rustix::io::read(&*fd, &mut buffer) {
        Err(sys::Errno::AGAIN | sys::Errno::INTR) => Ok(()),
        // A terminal's master says EIO when its last slave is closed.
        Ok(0) | Err(_) => {
            *from = None;
            Ok(())
        }
        Ok(length) => to
            .write_all(&buffer[..length])
            .and_then(|()| to.flush())
            .context("write output"),
    }
}
