//! The caller's terminal, lent to a container's terminal while a command runs in the foreground.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// The process to wait for, and what belongs to it.
#[derive(Debug)]
pub(crate) struct Foreground<'a> {
    pub(crate) pidfd: &'a OwnedFd,
    /// Reads every signal that is sent to us.
    pub(crate) signals: &'a OwnedFd,
    /// The master of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
}

/// The caller's terminal in raw mode; dropping it gives the old mode back.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Raw> {
        let saved = tcgetattr(stdin()).ok()?; // not a terminal: nothing to change
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Raw(saved))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _unchanged = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}

/// What poll(2) found.
#[derive(Debug, Clone, Copy)]
struct Ready {
    process: bool,
    signal: bool,
    input: bool,
    output: bool,
    room: bool,
}

/// What the caller typed and the terminal has not taken yet.
#[derive(Debug)]
struct Input {
    waiting: Vec<u8>,
    open: bool,
}

/// Carries input, output, sizes and signals until the process ends.
pub(crate) fn attend(foreground: &Foreground<'_>) -> anyhow::Result<()> {
    let _raw = foreground.terminal.as_ref().and_then(|_| Raw::enter());
    resize(foreground);
    if let Some(terminal) = &foreground.terminal {
        // A program that does not read must not keep us from its output and from signals.
        rustix::io::ioctl_fionbio(terminal, true).context("prepare the terminal")?;
    }
    let mut output_open = foreground.terminal.is_some();
    let mut input = Input {
        waiting: Vec::new(),
        open: output_open,
    };
    loop {
        let ready = wait(foreground, &input, output_open)?;
        if ready.signal {
            signals(foreground)?;
        }
        if let Some(terminal) = &foreground.terminal {
            if ready.output {
                // An error is the end: the last process has closed the terminal, and a descriptor
                // that only reports that would keep us awake.
                output_open = show(terminal);
            }
            if ready.input {
                input.read();
            }
            if ready.input || ready.room {
                input.write(terminal);
            }
        }
        if ready.process {
            return drain(foreground);
        }
    }
}

fn wait(foreground: &Foreground<'_>, input: &Input, output_open: bool) -> anyhow::Result<Ready> {
    let terminal = foreground.terminal.as_ref().map(AsFd::as_fd);
    let wanted = [
        (Some(foreground.pidfd.as_fd()), PollFlags::IN),
        (Some(foreground.signals.as_fd()), PollFlags::IN),
        (terminal.filter(|_| output_open), PollFlags::IN),
        (Some(stdin()).filter(|_| input.wants_more()), PollFlags::IN),
        (
            terminal.filter(|_| !input.waiting.is_empty()),
            PollFlags::OUT,
        ),
    ];
    let asked = wanted
        .iter()
        .filter_map(|(fd, events)| fd.map(|fd| (fd, *events)));
    let asked: Vec<_> = asked.collect();
    let mut fds: Vec<_> = asked
        .iter()
        .map(|(fd, events)| PollFd::new(fd, *events))
        .collect();
    rustix::io::retry_on_intr(|| poll(&mut fds, None)).context("wait")?;
    // The answers come in the order of those that were asked.
    let mut answers = fds.iter().map(|fd| !fd.revents().is_empty());
    let [process, signal, output, input, room] =
        wanted.map(|(fd, _)| fd.is_some() && answers.next().unwrap_or_default());
    Ok(Ready {
        process,
        signal,
        output,
        input,
        room,
    })
}

impl Input {
    /// What is typed meanwhile stays with the caller's terminal.
    fn wants_more(&self) -> bool {
        self.open && self.waiting.is_empty()
    }

    fn read(&mut self) {
        let mut buffer = [0; BUFFER];
        match rustix::io::retry_on_intr(|| rustix::io::read(stdin(), &mut buffer)) {
            Ok(0) | Err(_) => self.open = false,
            Ok(length) => self.waiting.extend_from_slice(&buffer[..length]),
        }
    }

    fn write(&mut self, terminal: &OwnedFd) {
        match rustix::io::retry_on_intr(|| rustix::io::write(terminal, &self.waiting)) {
            Ok(written) => drop(self.waiting.drain(..written)),
            Err(sys::Errno::AGAIN) => {}
            Err(_) => {
                self.open = false;
                self.waiting.clear();
            }
        }
    }
}

const BUFFER: usize = 16 * 1024;

/// Copies output that is there; whether more may come.
fn show(terminal: &OwnedFd) -> bool {
    let mut buffer = [0; BUFFER];
    let length = match rustix::io::retry_on_intr(|| rustix::io::read(terminal, &mut buffer)) {
        Err(sys::Errno::AGAIN) => return true,
        Ok(0) | Err(_) => return false,
        Ok(length) => length,
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(stdout(), rest)) {
            Ok(written) => rest = &rest[written..],
            // The caller's own choice: another program made its terminal non-blocking.
            Err(sys::Errno::AGAIN) => {
                let _interrupted = poll(&mut [PollFd::new(&stdout(), PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
    true
}

/// Output that the process wrote before it ended is still in the terminal.
fn drain(foreground: &Foreground<'_>) -> anyhow::Result<()> {
    let Some(terminal) = &foreground.terminal else {
        return Ok(());
    };
    loop {
        let mut fds = [PollFd::new(terminal, PollFlags::IN)];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now))).context("wait")?;
        if ready == 0 || !fds[0].revents().contains(PollFlags::IN) || !show(terminal) {
            return Ok(());
        }
    }
}

fn signals(foreground: &Foreground<'_>) -> anyhow::Result<()> {
    while let Some(number) = sys::signal::next(foreground.signals)? {
        match sys::signal::from_number(number) {
            Some(Signal::WINCH) => resize(foreground),
            // A terminal's own matters and the ends of children are not the container's.
            Some(Signal::CHILD | Signal::URG | Signal::TTIN | Signal::TTOU) | None => {}
            // A process that has just ended needs no signal.
            Some(signal) => drop(pidfd_send_signal(foreground.pidfd, signal)),
        }
    }
    Ok(())
}

/// Gives the container's terminal the size of the caller's.
fn resize(foreground: &Foreground<'_>) {
    if let (Some(terminal), Ok(size)) = (&foreground.terminal, tcgetwinsize(stdin())) {
        let _unsized = tcsetwinsize(terminal, size);
    }
}

/// Receives the terminal's master from the container's process.
pub(crate) fn receive(socket: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let (_, fds) = sys::message::receive(socket, &mut [0; 64]).context("receive the terminal")?;
    fds.into_iter()
        .next()
        .context("receive the terminal: none was sent")
}
