//! The monitor's state and its event loop.

use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use monitor::clock::Moment;
use monitor::files::{EXIT, Exit, Phase, SOCKET, STATUS, Status};
use monitor::log::Stream;
use monitor::restart::{History, Policy};
use monitor::wire::{CHUNK, Reply, Request};
use rustix::event::epoll::{self, EventFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recv, socket_with,
};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::account::Groups;
use super::clients::Client;
use super::options::Options;
use super::output::Log;
use super::watch::Watch;
use super::{code_of, runtime, told};

/// How long a created container waits for somebody who starts it.
const UNCLAIMED: Duration = Duration::from_secs(30);
/// How long output is awaited after the exit, where other processes still hold the pipe.
const DRAIN: Duration = Duration::from_millis(200);

/// What woke the loop; the number is the token in the epoll set.
#[derive(Debug, Clone, Copy)]
enum Event {
    Signals,
    Listener,
    Timer,
    Output,
    Errors,
    Input,
    Client(usize),
}

impl Event {
    const FIRST_CLIENT: u64 = 6;

    fn token(self) -> u64 {
        match self {
            Self::Signals => 0,
            Self::Listener => 1,
            Self::Timer => 2,
            Self::Output => 3,
            Self::Errors => 4,
            Self::Input => 5,
            Self::Client(slot) => Self::FIRST_CLIENT + slot as u64,
        }
    }

    fn of(token: u64) -> Self {
        match token {
            0 => Self::Signals,
            1 => Self::Listener,
            2 => Self::Timer,
            3 => Self::Output,
            4 => Self::Errors,
            5 => Self::Input,
            slot => Self::Client(usize::try_from(slot - Self::FIRST_CLIENT).unwrap_or(usize::MAX)),
        }
    }
}

/// Where the container is in its life. What the one timer means follows from it.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Made; the timer ends the wait for `Start`.
    Created,
    /// The timer kills after a stop signal.
    Running(Instant),
    /// The first process has ended with this status; the timer ends the wait for output.
    Draining(Instant, u8),
    /// The timer starts the container again.
    Waiting(u8),
    /// Over; clients get what they have not read yet.
    Ended(u8),
}

/// One container's monitor.
#[derive(Debug)]
pub(super) struct Machine {
    options: Options,
    /// Locked as long as we live.
    _lock: OwnedFd,
    epoll: OwnedFd,
    signals: Watch,
    listener: Watch,
    timer: Watch,
    init: Option<Pid>,
    groups: Groups,
    input: Option<Watch>,
    /// Close `input` when all that clients sent is written.
    close_input: bool,
    output: Option<Watch>,
    errors: Option<Watch>,
    clients: Vec<Option<Client>>,
    /// Bytes of output and errors that were not read yet when the first process ended: its own, so
    /// they are waited for however long clients take.
    owed: [u64; 2],
    log: Log,
    state: State,
    started: String,
    history: History,
    /// The next exit was asked for.
    held: bool,
    /// The start is just done: much of the program was used that will not be for long.
    busy: bool,
    buffer: Vec<u8>,
}

impl Machine {
    /// Makes the container and everything that watches it.
    pub(super) fn create(options: Options, lock: OwnedFd) -> Result<Self, String> {
        let flags = epoll::CreateFlags::CLOEXEC;
        let watched = [
            Signal::CHILD.as_raw(),
            Signal::TERM.as_raw(),
            Signal::INT.as_raw(),
        ];
        let signals = sys::signal::block_to_fd(Some(&watched)).map_err(told("watch signals"))?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        );
        let log = Log::open(
            options.state_dir.join("log"),
            options.log_size,
            options.log_files,
        )
        .map_err(|error| format!("open log: {error}"))?;
        let mut machine = Self {
            _lock: lock,
            epoll: epoll::create(flags).map_err(told("make epoll set"))?,
            signals: Watch::new(signals, Event::Signals.token()),
            listener: Watch::new(listen_on_socket()?, Event::Listener.token()),
            timer: Watch::new(timer.map_err(told("make timer"))?, Event::Timer.token()),
            init: None,
            groups: Groups::default(),
            input: None,
            close_input: false,
            output: None,
            errors: None,
            clients: Vec::new(),
            owed: [0; 2],
            log,
            state: State::Created,
            started: String::new(),
            history: History::default(),
            held: false,
            busy: false,
            buffer: vec![0; CHUNK],
            options,
        };
        machine.make_container()?;
        machine.set_timer(Some(UNCLAIMED));
        Ok(machine)
    }

    /// Handles events until the container is over and every client has been told. The second
    /// value is the program that removes the container.
    pub(super) fn run(mut self) -> (u8, Option<Command>) {
        let mut events = Vec::with_capacity(16);
        let code = loop {
            if self.watch().is_err() {
                break 125;
            }
            if let State::Ended(code) = self.state
                && self
                    .clients
                    .iter()
                    .flatten()
                    .all(|client| !client.is_behind())
            {
                break code;
            }
            if self.busy && self.clients.iter().all(Option::is_none) {
                self.busy = false;
                // Detached: from here on it mostly waits. Without /proc it only stays larger.
                let _ = sys::resident::drop_clean_pages();
            }
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(sys::Errno::INTR) => {}
                Err(_) => break 125,
            }
            for event in events.drain(..) {
                let (token, flags) = (event.data.u64(), event.flags);
                match Event::of(token) {
                    Event::Signals => self.take_signals(),
                    Event::Listener => self.accept_client(),
                    Event::Timer => self.take_timer(),
                    Event::Output => self.copy_output(Stream::Output),
                    Event::Errors => self.copy_output(Stream::Errors),
                    Event::Input => self.write_input(),
                    Event::Client(slot) => self.serve_client(slot, flags),
                }
            }
        };
        // Unlink first: whoever finds the socket after this would wait for nobody.
        let _ = std::fs::remove_file(SOCKET);
        let remover = self.options.remove_with.take().map(|floe| {
            let mut command = Command::new(floe);
            command.args(["rm", "--ended", &self.options.id]);
            sys::child::unblock_signals(&mut command);
            command
        });
        (code, remover)
    }

    /// Tells epoll what each descriptor waits for now.
    fn watch(&mut self) -> sys::Result<()> {
        let epoll = &self.epoll;
        self.signals.set(epoll, EventFlags::IN)?;
        self.listener.set(epoll, EventFlags::IN)?;
        self.timer.set(epoll, EventFlags::IN)?;
        // A client that cannot keep up holds the container back, as a pipe would.
        let behind = self.clients.iter().flatten().any(Client::is_behind);
        let read = if behind {
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        for output in [&mut self.output, &mut self.errors].into_iter().flatten() {
            output.set(epoll, read)?;
        }
        let unwritten = self
            .clients
            .iter()
            .flatten()
            .any(|client| !client.unwritten.is_empty());
        if let Some(input) = &mut self.input {
            let write = if unwritten {
                EventFlags::OUT
            } else {
                EventFlags::empty()
            };
            input.set(epoll, write)?;
        }
        for client in self.clients.iter_mut().flatten() {
            let interest = client.interest();
            client.socket.set(epoll, interest)?;
        }
        Ok(())
    }

    fn make_container(&mut self) -> Result<(), String> {
        let created = runtime::create(&self.options).inspect_err(|_| {
            // Whatever a failed create left: nothing is lost if there is nothing.
            let _ = runtime::delete(&self.options, true);
        })?;
        self.init = Some(created.init);
        self.groups = Groups::of(created.init);
        self.input = created.input.map(|fd| Watch::new(fd, Event::Input.token()));
        self.close_input = false;
        self.output = Some(Watch::new(created.output, Event::Output.token()));
        self.errors = created
            .errors
            .map(|fd| Watch::new(fd, Event::Errors.token()));
        self.state = State::Created;
        self.save_status();
        Ok(())
    }

    /// Runs the created container and tells everybody.
    fn start(&mut self) {
        if !matches!(self.state, State::Created) {
            return;
        }
        self.set_timer(None);
        // What was restored runs already; another life begins at the beginning.
        let restored = self.options.restore.take().is_some();
        if !restored && runtime::start(&self.options).is_err() {
            self.tell_all(&Reply::Failed);
            self.discard("the runtime could not start it");
            return;
        }
        self.held = false;
        self.state = State::Running(Instant::now());
        self.started = Moment::now().to_string();
        self.save_status();
        self.record("start", &[]);
        self.tell_all(&Reply::Started);
        self.busy = true;
    }

    /// Ends a container that never ran.
    fn discard(&mut self, error: &str) {
        if let Err(message) = runtime::delete(&self.options, true) {
            self.record("error", &[("message", &message)]);
        }
        self.close_streams();
        self.end(Exit {
            code: 255,
            error: error.to_owned(),
            ..Exit::default()
        });
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = sys::signal::next(self.signals.fd()) {
            if signal == Signal::CHILD.as_raw() {
                self.reap();
                continue;
            }
            match self.state {
                State::Created => self.discard("its monitor was told to end"),
                State::Running(_) => {
                    self.held = true;
                    if let Some(init) = self.init {
                        super::signal(init, self.options.stop_signal);
                    }
                    self.set_timer(Some(self.options.stop_timeout));
                }
                State::Draining(..) => self.held = true,
                State::Waiting(code) => self.end(Exit {
                    code,
                    asked: true,
                    ..Exit::default()
                }),
                // Told twice: clients that do not read are left.
                State::Ended(_) => self.clients.clear(),
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if Some(pid) != self.init {
                continue;
            }
            self.init = None;
            match self.state {
                State::Running(since) => {
                    self.state = State::Draining(since, code_of(status));
                    self.owed = [&self.output, &self.errors].map(unread);
                    self.set_timer(Some(DRAIN));
                    self.finish_if_drained();
                }
                State::Created => self.discard("it was killed before it was started"),
                State::Draining(..) | State::Waiting(_) | State::Ended(_) => {}
            }
        }
    }

    fn take_timer(&mut self) {
        let mut count = [0; 8];
        if rustix::io::read(self.timer.fd(), &mut count).is_err() {
            return;
        }
        match self.state {
            State::Created => self.discard("nobody started it"),
            State::Running(_) => {
                if let Some(init) = self.init {
                    super::signal(init, Signal::KILL.as_raw());
                }
            }
            State::Draining(..)
                if self.owed != [0; 2] || self.clients.iter().flatten().any(Client::is_behind) =>
            {
                self.set_timer(Some(DRAIN));
            }
            State::Draining(..) => {
                self.close_streams();
                self.finish_if_drained();
            }
            State::Waiting(code) => match self.make_container() {
                Ok(()) => self.start(),
                Err(error) => self.end(Exit {
                    code,
                    error,
                    ..Exit::default()
                }),
            },
            State::Ended(_) => {}
        }
    }

    /// After an exit and the last of its output: clean up, then start again or end.
    fn finish_if_drained(&mut self) {
        let State::Draining(since, code) = self.state else {
            return;
        };
        if self.output.is_some() || self.errors.is_some() {
            return;
        }
        self.close_streams();
        self.groups.account(&self.options, &self.started);
        let error = runtime::delete(&self.options, false)
            .or_else(|_| runtime::delete(&self.options, true))
            .err()
            .unwrap_or_default();
        let policy = if self.held {
            Policy::No
        } else {
            self.options.restart
        };
        self.record("exit", &[("code", &code.to_string())]);
        let exit = Exit {
            code,
            asked: self.held,
            error,
            ..Exit::default()
        };
        match self.history.after_exit(policy, code, since.elapsed()) {
            Some(wait) => {
                self.save_exit(exit);
                self.state = State::Waiting(code);
                self.save_status();
                self.set_timer(Some(wait));
            }
            None => self.end(exit),
        }
    }

    fn end(&mut self, exit: Exit) {
        let code = exit.code;
        self.save_exit(exit);
        self.state = State::Ended(code);
        self.set_timer(None);
        self.save_status();
        self.tell_all(&Reply::Exited(code));
    }

    fn copy_output(&mut self, stream: Stream) {
        let source = match stream {
            Stream::Output => &mut self.output,
            Stream::Errors => &mut self.errors,
        };
        let Some(watch) = source else { return };
        match rustix::io::read(watch.fd(), &mut self.buffer) {
            Err(sys::Errno::AGAIN | sys::Errno::INTR) => {}
            // A terminal's master says EIO when its last slave is closed. Before the start that
            // only means that the runtime has closed its own.
            Ok(0) | Err(_) => {
                // Before the close: a duplicate of this descriptor would keep it in the set.
                let _ = watch.set(&self.epoll, EventFlags::empty());
                *source = None;
                self.owed[stream as usize] = 0;
                self.finish_if_drained();
            }
            Ok(length) => {
                let data = &self.buffer[..length];
                let owed = &mut self.owed[stream as usize];
                *owed = owed.saturating_sub(length as u64);
                // A full disk must not stop the container.
                let _ = self.log.write(stream, data);
                let reply = match stream {
                    Stream::Output => Reply::Output(data),
                    Stream::Errors => Reply::Errors(data),
                };
                tell(&mut self.clients, &reply, |client| client.attached);
            }
        }
    }

    fn write_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        for client in self.clients.iter_mut().flatten() {
            while !client.unwritten.is_empty() {
                match rustix::io::write(input.fd(), &client.unwritten) {
                    Ok(length) => drop(client.unwritten.drain(..length)),
                    Err(sys::Errno::AGAIN) => return,
                    // The container reads no more: what is left has no reader.
                    Err(_) => client.unwritten.clear(),
                }
            }
        }
        if self.close_input {
            self.close_streams_input();
        }
    }

    fn close_streams_input(&mut self) {
        if let Some(mut input) = self.input.take() {
            let _ = input.set(&self.epoll, EventFlags::empty());
        }
    }

    fn close_streams(&mut self) {
        self.close_streams_input();
        for mut output in [self.output.take(), self.errors.take()]
            .into_iter()
            .flatten()
        {
            let _ = output.set(&self.epoll, EventFlags::empty());
        }
        self.clients
            .iter_mut()
            .flatten()
            .for_each(|client| client.unwritten.clear());
    }

    fn accept_client(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = accept_with(self.listener.fd(), flags) else {
            return;
        };
        let free = self.clients.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        let mut client = Client::new(socket, Event::Client(slot).token());
        let there = match self.state {
            State::Ended(code) => client.tell(&Reply::Exited(code)),
            State::Created | State::Running(_) | State::Draining(..) | State::Waiting(_) => true,
        };
        self.clients[slot] = there.then_some(client);
    }

    fn serve_client(&mut self, slot: usize, flags: EventFlags) {
        let Some(Some(client)) = self.clients.get_mut(slot) else {
            return;
        };
        if flags.contains(EventFlags::OUT) && !client.flush() {
            self.clients[slot] = None;
            return;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        let mut message = vec![0; CHUNK + 1];
        let length = match recv(client.socket.fd(), &mut message[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => None,
            Ok((length, _)) => Some(length),
            Err(sys::Errno::AGAIN | sys::Errno::INTR) => return,
            Err(_) => None,
        };
        let request = length.and_then(|length| Request::decode(message.get(..length)?));
        match request {
            // Closed, or not one of ours.
            None => self.clients[slot] = None,
            Some(request) => self.serve(slot, &request),
        }
    }

    fn serve(&mut self, slot: usize, request: &Request<'_>) {
        let Some(Some(client)) = self.clients.get_mut(slot) else {
            return;
        };
        match *request {
            Request::Attach => client.attached = true,
            Request::Input(bytes) => {
                if self.input.is_some() {
                    client.unwritten.extend_from_slice(bytes);
                    self.write_input();
                }
            }
            Request::InputEnd if self.options.terminal => {}
            Request::InputEnd => {
                self.close_input = true;
                if self
                    .clients
                    .iter()
                    .flatten()
                    .all(|client| client.unwritten.is_empty())
                {
                    self.close_streams_input();
                }
            }
            Request::Resize { rows, columns } => {
                if let (true, Some(output)) = (self.options.terminal, &self.output) {
                    // A terminal that was hung up has no size to set.
                    let _ = sys::terminal::set_size(output.fd(), rows, columns);
                }
            }
            Request::Start => self.start(),
            Request::Hold => self.hold(),
            Request::Release => self.held = false,
            Request::Policy(text) => {
                if let Some(policy) = std::str::from_utf8(text).ok().and_then(Policy::parse) {
                    self.options.restart = policy;
                }
            }
        }
    }

    fn hold(&mut self) {
        self.held = true;
        match self.state {
            State::Waiting(code) => self.end(Exit {
                code,
                asked: true,
                ..Exit::default()
            }),
            State::Created | State::Running(_) | State::Draining(..) | State::Ended(_) => {}
        }
    }

    fn tell_all(&mut self, reply: &Reply<'_>) {
        tell(&mut self.clients, reply, |_| true);
    }

    fn set_timer(&mut self, wait: Option<Duration>) {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = wait
            .and_then(|wait| Timespec::try_from(wait).ok())
            .unwrap_or(zero);
        let setting = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        // Of valid times on a valid descriptor nothing can be refused.
        let _ = timerfd_settime(self.timer.fd(), TimerfdTimerFlags::empty(), &setting);
    }

    fn save_status(&mut self) {
        let phase = match self.state {
            State::Created => Phase::Created,
            State::Running(_) | State::Draining(..) => Phase::Running,
            State::Waiting(_) => Phase::Restarting,
            State::Ended(_) => Phase::Exited,
        };
        let status = Status {
            phase,
            monitor: rustix::process::getpid().as_raw_nonzero().get(),
            pid: self.init.map_or(0, |pid| pid.as_raw_nonzero().get()),
            started: self.started.clone(),
            restarts: self.history.restarts,
        };
        if let Err(error) = monitor::files::replace(STATUS.as_ref(), status.format().as_bytes()) {
            self.record("error", &[("message", &format!("write status: {error}"))]);
        }
    }

    fn save_exit(&mut self, exit: Exit) {
        let exit = Exit {
            started: self.started.clone(),
            finished: Moment::now().to_string(),
            ..exit
        };
        let path = self.options.state_dir.join(EXIT);
        if let Err(error) = monitor::files::replace(&path, exit.format().as_bytes()) {
            self.record(
                "error",
                &[("message", &format!("write exit status: {error}"))],
            );
        }
    }

    fn record(&self, action: &str, details: &[(&str, &str)]) {
        // Events are for onlookers: the container does not depend on them.
        let _ = monitor::events::append(&self.options.events, &self.options.id, action, details);
    }
}

/// How much can be read at once; nothing where the kernel does not tell.
fn unread(source: &Option<Watch>) -> u64 {
    let count = source
        .as_ref()
        .map(|watch| rustix::io::ioctl_fionread(watch.fd()));
    count.and_then(Result::ok).unwrap_or(0)
}

/// Tells the clients that want to know, and forgets those that are gone.
fn tell(clients: &mut [Option<Client>], reply: &Reply<'_>, wants: impl Fn(&Client) -> bool) {
    for slot in clients {
        if let Some(client) = slot
            && wants(client)
            && !client.tell(reply)
        {
            *slot = None;
        }
    }
}

fn listen_on_socket() -> Result<OwnedFd, String> {
    // Of an earlier monitor that was killed; we hold the lock.
    let _ = std::fs::remove_file(SOCKET);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(told("make socket"))?;
    let address = SocketAddrUnix::new(SOCKET).map_err(told("name socket"))?;
    bind(&socket, &address).map_err(told("bind socket"))?;
    listen(&socket, 64).map_err(told("listen on socket"))?;
    Ok(socket)
}
