//! As much of D-Bus as talking to systemd takes: one synchronous connection, method calls, and
//! waiting for a signal. D-Bus Specification 0.43.

mod address;
mod wire;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use wire::{HEADER_LENGTH, Kind, total_length};
pub(crate) use wire::{Message, Value};

use crate::error::{Error, Result};

/// How long an answer may take. Under load systemd takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a bus, or straight to the program that answers.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    serial: u32,
    /// What was read beyond the message that was asked for.
    unread: Vec<u8>,
    /// Signals that came while an answer was awaited.
    signals: Vec<Message>,
}

/// Who answers, and about what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
}

const BUS: Target<'_> = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

impl Connection {
    /// Connects to the first address of a list (`unix:path=…;unix:abstract=…`) that answers, and
    /// proves who we are by the socket's credentials.
    pub(crate) fn open(addresses: &str) -> Result<Self> {
        let stream = address::connect(addresses)
            .map_err(|error| Error::text("connect to bus", addresses, &error.to_string()))?;
        let mut connection = Self {
            stream,
            serial: 0,
            unread: Vec::new(),
            signals: Vec::new(),
        };
        connection
            .authenticate()
            .map_err(|error| Error::text("authenticate to bus", addresses, &error.to_string()))?;
        Ok(connection)
    }

    /// Says hello to a bus; a program at the other end without a bus between wants none.
    pub(crate) fn hello(&mut self) -> Result<()> {
        self.call(&BUS, "Hello", &[]).map(drop)
    }

    /// Asks the bus for signals.
    pub(crate) fn add_match(&mut self, rule: &str) -> Result<()> {
        self.call(&BUS, "AddMatch", &[Value::Text(rule.to_owned())])
            .map(drop)
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// The answer is an error, whose D-Bus name then stands in front of the cause.
    pub(crate) fn call(
        &mut self,
        target: &Target<'_>,
        method: &str,
        arguments: &[Value],
    ) -> Result<Message> {
        let fails = |cause: &str| Error::text("call", method, cause);
        self.serial += 1;
        let serial = self.serial;
        let bytes = wire::call(serial, target, method, arguments)
            .ok_or_else(|| fails("too large for a message"))?;
        self.stream
            .write_all(&bytes)
            .map_err(|error| fails(&error.to_string()))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self
                .receive(deadline)
                .map_err(|error| fails(&error.to_string()))?;
            match message.kind {
                Kind::Return if message.reply_serial == Some(serial) => return Ok(message),
                Kind::Error if message.reply_serial == Some(serial) => {
                    let name = message.error_name.clone().unwrap_or_default();
                    let text = message.text(0).unwrap_or_default();
                    return Err(fails(&format!("{name}: {text}")));
                }
                Kind::Signal => self.signals.push(message),
                Kind::Call | Kind::Return | Kind::Error | Kind::Unknown => {}
            }
        }
    }

    /// Waits for a signal that `wanted` accepts; others are forgotten.
    pub(crate) fn wait_signal<T>(
        &mut self,
        what: &str,
        wanted: impl Fn(&Message) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        if let Some(found) = self.signals.drain(..).find_map(|signal| wanted(&signal)) {
            return Ok(found);
        }
        loop {
            let message = self
                .receive(deadline)
                .map_err(|error| Error::text("wait for", what, &error.to_string()))?;
            if message.kind == Kind::Signal
                && let Some(found) = wanted(&message)
            {
                return Ok(found);
            }
        }
    }

    /// EXTERNAL without a name: the other end takes the socket's credentials, which are right
    /// inside a user namespace too, where our own idea of our uid is not the other end's.
    fn authenticate(&mut self) -> std::io::Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream
            .write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.line(deadline)?;
            match line.split(' ').next() {
                Some("DATA") => {}
                Some("OK") => return Ok(()),
                _ => return Err(std::io::Error::other(format!("refused: {line}"))),
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> std::io::Result<String> {
        const LONGEST: usize = 16 * 1024;
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.unread.len() > LONGEST {
                return Err(std::io::Error::other("endless line"));
            }
            self.fill(deadline)?;
        }
    }

    fn receive(&mut self, deadline: Instant) -> std::io::Result<Message> {
        let broken = |what: &'static str| std::io::Error::new(ErrorKind::InvalidData, what);
        loop {
            if self.unread.len() >= HEADER_LENGTH {
                let length = total_length(&self.unread).ok_or_else(|| broken("not a message"))?;
                if self.unread.len() >= length {
                    let bytes: Vec<u8> = self.unread.drain(..length).collect();
                    return wire::parse(&bytes).ok_or_else(|| broken("malformed message"));
                }
            }
            self.fill(deadline)?;
        }
    }

    fn fill(&mut self, deadline: Instant) -> std::io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.unread.extend(chunk.iter().take(length));
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            // A socket's own word for a timeout.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[path = "dbus_tests.rs"]
mod tests;
