//! Everything that a runtime process and the container's first process say to each other.
//!
//! They are joined by a socket pair that keeps message borders. A closed end is a message too: the
//! child gives up when its parent is gone, and to `exec` it means that the program now runs, for
//! the child's end is close-on-exec.

use std::os::fd::AsFd;

use crate::error::{During, Error, Result};

/// One message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Launcher to parent: the child it made has this pid in the parent's numbering.
    Born { pid: i32 },
    /// Parent to child: id maps, groups, limits and devices are set; this is the child's pid in the
    /// parent's numbering, which it cannot know.
    Proceed { pid: i32 },
    /// Child to parent: the mounts stand, pivot_root comes next; the runtime's hooks may run.
    Mounted,
    /// Parent to child: they have run.
    HooksDone,
    /// Child to parent: nothing is left but to wait for `start` (or, in `exec`, to execute).
    Ready,
    /// Child to parent: the step that failed and why.
    Failed { text: String },
}

/// The longest message; a longer text is shortened.
const MAX: usize = 4096;

impl Message {
    fn encode(&self) -> Vec<u8> {
        match self {
            Message::Born { pid } => [&[b'b'][..], &pid.to_le_bytes()].concat(),
            Message::Proceed { pid } => [&[b'p'][..], &pid.to_le_bytes()].concat(),
            Message::Mounted => vec![b'm'],
            Message::HooksDone => vec![b'h'],
            Message::Ready => vec![b'r'],
            Message::Failed { text } => {
                let text = crate::error::shorten(text.clone());
                [&[b'f'][..], text.as_bytes()].concat()
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Message> {
        let (tag, rest) = bytes.split_first()?;
        let number = || Some(i32::from_le_bytes(rest.try_into().ok()?));
        match (tag, rest) {
            (b'b', _) => Some(Message::Born { pid: number()? }),
            (b'p', _) => Some(Message::Proceed { pid: number()? }),
            (b'm', []) => Some(Message::Mounted),
            (b'h', []) => Some(Message::HooksDone),
            (b'r', []) => Some(Message::Ready),
            (b'f', text) => Some(Message::Failed {
                text: String::from_utf8_lossy(text).into_owned(),
            }),
            _ => None,
        }
    }
}

/// Sends one message.
pub(crate) fn send(socket: impl AsFd, message: &Message) -> Result<()> {
    sys::message::send(socket, &message.encode()).during(|| format!("send {message:?}"))
}

/// Receives one message; `None` when the other end is closed.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<Message>> {
    let mut buffer = [0; MAX];
    let (length, _) = match sys::message::receive(socket, &mut buffer) {
        // A peer that died with unread messages of ours resets the connection.
        Err(sys::Errno::CONNRESET) => return Ok(None),
        other => other.during(|| "receive a message")?,
    };
    if length == 0 {
        return Ok(None);
    }
    let message = Message::decode(&buffer[..length]);
    message
        .map(Some)
        .ok_or_else(|| Error::plain("receive a message: not one of ours"))
}

/// Receives the one message that may come now. A failure of the peer becomes ours.
pub(crate) fn expect(socket: impl AsFd, wanted: &Message) -> Result<()> {
    match receive(socket)? {
        Some(message) if message == *wanted => Ok(()),
        Some(Message::Failed { text }) => Err(Error::plain(text)),
        Some(other) => Err(Error::plain(format!(
            "expected {wanted:?}, received {other:?}"
        ))),
        None => Err(Error::plain(format!(
            "the other process ended before {wanted:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        for message in [
            Message::Born { pid: 4242 },
            Message::Proceed { pid: 7 },
            Message::Mounted,
            Message::HooksDone,
            Message::Ready,
            Message::Failed {
                text: "mount `proc`: no".into(),
            },
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        for hostile in [&b""[..], b"x", b"b12", b"p1"] {
            assert_eq!(Message::decode(hostile), None);
        }
    }
}
