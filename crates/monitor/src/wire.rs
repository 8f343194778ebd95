//! Messages on a monitor's socket, a `SOCK_SEQPACKET` one: the kernel keeps their boundaries, so
//! a message is one kind byte and its payload.

/// The largest payload of input or output in one message, in bytes.
pub const CHUNK: usize = 16 * 1024;

/// What a client asks of the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Send this client the container's output from now on.
    Attach,
    /// Bytes for the container's standard input.
    Input(&'a [u8]),
    /// No more input: close the container's standard input.
    InputEnd,
    /// The client's terminal has this size.
    Resize { rows: u16, columns: u16 },
    /// Run the created container.
    Start,
    /// The next exit is asked for: do not start the container again.
    Hold,
    /// It is not, after all.
    Release,
    /// Replace the restart policy by this text.
    Policy(&'a [u8]),
}

/// What the monitor tells a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Bytes from standard output (or the terminal).
    Output(&'a [u8]),
    /// Bytes from standard error.
    Errors(&'a [u8]),
    /// The container runs.
    Started,
    /// The runtime refused to start the container; its message is in the runtime's log.
    Failed,
    /// The container has ended with this status (128 + signal if killed) and will not be
    /// started again.
    Exited(u8),
}

impl<'a> Request<'a> {
    /// Reads a message; `None` if it is not one.
    #[must_use]
    pub fn decode(message: &'a [u8]) -> Option<Self> {
        let (kind, payload) = message.split_first()?;
        Some(match (kind, payload) {
            (b'A', []) => Self::Attach,
            (b'I', bytes) => Self::Input(bytes),
            (b'E', []) => Self::InputEnd,
            (b'R', &[r0, r1, c0, c1]) => Self::Resize {
                rows: u16::from_be_bytes([r0, r1]),
                columns: u16::from_be_bytes([c0, c1]),
            },
            (b'S', []) => Self::Start,
            (b'H', []) => Self::Hold,
            (b'U', []) => Self::Release,
            (b'P', text) => Self::Policy(text),
            _ => return None,
        })
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Attach => b"A".to_vec(),
            Self::Input(bytes) => tagged(b'I', bytes),
            Self::InputEnd => b"E".to_vec(),
            Self::Resize { rows, columns } => {
                let ([r0, r1], [c0, c1]) = (rows.to_be_bytes(), columns.to_be_bytes());
                vec![b'R', r0, r1, c0, c1]
            }
            Self::Start => b"S".to_vec(),
            Self::Hold => b"H".to_vec(),
            Self::Release => b"U".to_vec(),
            Self::Policy(text) => tagged(b'P', text),
        }
    }
}

impl<'a> Reply<'a> {
    /// Reads a message; `None` if it is not one.
    #[must_use]
    pub fn decode(message: &'a [u8]) -> Option<Self> {
        let (kind, payload) = message.split_first()?;
        Some(match (kind, payload) {
            (b'O', bytes) => Self::Output(bytes),
            (b'e', bytes) => Self::Errors(bytes),
            (b's', []) => Self::Started,
            (b'F', []) => Self::Failed,
            (b'X', &[code]) => Self::Exited(code),
            _ => return None,
        })
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Output(bytes) => tagged(b'O', bytes),
            Self::Errors(bytes) => tagged(b'e', bytes),
            Self::Started => b"s".to_vec(),
            Self::Failed => b"F".to_vec(),
            Self::Exited(code) => vec![b'X', *code],
        }
    }
}

fn tagged(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(payload.len() + 1);
    message.push(kind);
    message.extend_from_slice(payload);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        for request in [
            Request::Attach,
            Request::Input(b"\0hello\n"),
            Request::Input(b""),
            Request::InputEnd,
            Request::Resize {
                rows: 24,
                columns: 300,
            },
            Request::Start,
            Request::Hold,
            Request::Policy(b"on-failure:3"),
        ] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
    }

    #[test]
    fn replies_survive_the_wire() {
        for reply in [
            Reply::Output(b"x"),
            Reply::Errors(b""),
            Reply::Started,
            Reply::Failed,
            Reply::Exited(137),
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        for bytes in [&b""[..], b"?", b"R123", b"R12345", b"Ax", b"X", b"Xab"] {
            assert_eq!(Request::decode(bytes), None, "{bytes:?}");
            assert_eq!(Reply::decode(bytes), None, "{bytes:?}");
        }
    }
}
