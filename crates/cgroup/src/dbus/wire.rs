//! The format of messages.

use super::Target;

/// The fixed part of a header, with the length of its fields.
pub(super) const HEADER_LENGTH: usize = 16;

/// systemd's answers to us are far smaller; a longer message is a mistake or an attack.
const LONGEST: usize = 1 << 20;

/// A value that goes out. Only the types that systemd's manager wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Bool(bool),
    U32(u32),
    I32(i32),
    U64(u64),
    Bytes(Vec<u8>),
    Numbers(Vec<u32>),
    Texts(Vec<String>),
    /// `a(ss)`
    TextPairs(Vec<(String, String)>),
    /// `a(sv)`
    Properties(Vec<(String, Value)>),
    /// `a(sa(sv))`, always empty: units that we do not start along.
    NoUnits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
    Unknown,
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(super) kind: Kind,
    pub(super) reply_serial: Option<u32>,
    pub(super) error_name: Option<String>,
    pub(crate) member: Option<String>,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// The body's argument of this index if it is a text, an object path, or a variant with one.
    pub(crate) fn text(&self, index: usize) -> Option<String> {
        let mut reader = Reader {
            bytes: &self.body,
            at: 0,
        };
        for (position, kind) in self.signature.chars().enumerate() {
            if position < index {
                match kind {
                    's' | 'o' => drop(reader.text()?),
                    'u' | 'i' | 'b' => drop(reader.u32()?),
                    _ => return None,
                }
                continue;
            }
            return match kind {
                's' | 'o' => reader.text(),
                'v' => matches!(reader.signature()?.as_str(), "s" | "o").then(|| reader.text())?,
                _ => None,
            };
        }
        None
    }
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Bool(_) => "b",
            Self::U32(_) => "u",
            Self::I32(_) => "i",
            Self::U64(_) => "t",
            Self::Bytes(_) => "ay",
            Self::Numbers(_) => "au",
            Self::Texts(_) => "as",
            Self::TextPairs(_) => "a(ss)",
            Self::Properties(_) => "a(sv)",
            Self::NoUnits => "a(sa(sv))",
        }
    }
}

/// The bytes of a method call; `None` if it is too long.
pub(super) fn call(
    serial: u32,
    target: &Target<'_>,
    method: &str,
    arguments: &[Value],
) -> Option<Vec<u8>> {
    let mut body = Writer::default();
    let mut signature = String::new();
    for argument in arguments {
        signature.push_str(argument.signature());
        body.value(argument);
    }
    let mut header = Writer::default();
    // Little endian, a method call, no flags, version 1.
    header.bytes.extend([b'l', 1, 0, 1]);
    header.u32(u32::try_from(body.bytes.len()).ok()?);
    header.u32(serial);
    header.array(8, |fields| {
        fields.field(1, "o", |writer| writer.text(target.path));
        fields.field(2, "s", |writer| writer.text(target.interface));
        fields.field(3, "s", |writer| writer.text(method));
        fields.field(6, "s", |writer| writer.text(target.destination));
        if !signature.is_empty() {
            fields.field(8, "g", |writer| writer.signature(&signature));
        }
    });
    header.align(8);
    header.bytes.extend(body.bytes);
    (header.bytes.len() <= LONGEST).then_some(header.bytes)
}

/// How long the message is that begins with these bytes, at least sixteen; `None` if they are
/// not a message's, or it is too long.
pub(super) fn total_length(start: &[u8]) -> Option<usize> {
    // We write little endian, and systemd on the same machine answers in its own order.
    let order = *start.first()?;
    if order != b'l' || *start.get(3)? != 1 {
        return None;
    }
    let number = |at: usize| {
        let bytes: [u8; 4] = start.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (body, fields) = (number(4)?, number(12)?);
    let fields_end = HEADER_LENGTH
        .checked_add(fields)?
        .checked_next_multiple_of(8)?;
    fields_end
        .checked_add(body)
        .filter(|length| *length <= LONGEST)
}

/// A whole message; `None` if it is malformed.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    let kind = match bytes.get(1)? {
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => Kind::Unknown,
    };
    let mut message = Message {
        kind,
        reply_serial: None,
        error_name: None,
        member: None,
        signature: String::new(),
        body: Vec::new(),
    };
    let mut reader = Reader { bytes, at: 12 };
    let fields = usize::try_from(reader.u32()?).ok()?;
    let end = reader.at.checked_add(fields)?;
    while reader.at < end {
        reader.align(8)?;
        let code = reader.byte()?;
        let signature = reader.signature()?;
        match (code, signature.as_str()) {
            (3, "s") => message.member = Some(reader.text()?),
            (4, "s") => message.error_name = Some(reader.text()?),
            (5, "u") => message.reply_serial = Some(reader.u32()?),
            (8, "g") => message.signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.u32()?),
            _ => return None,
        }
    }
    reader.at = end;
    reader.align(8)?;
    message.body = bytes.get(reader.at..)?.to_vec();
    Some(message)
}

#[derive(Debug, Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, signature: &str) {
        // Ours have a few letters; the format has 255 at most.
        self.bytes
            .push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    fn length(&mut self, length: usize) {
        // What does not fit is refused as too long a message.
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    /// An array counts its elements' bytes without the padding before the first.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        elements(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(slot) = self.bytes.get_mut(length_at..length_at + 4) {
            slot.copy_from_slice(&length.to_le_bytes());
        }
    }

    fn field(&mut self, code: u8, signature: &str, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.bytes.push(code);
        self.signature(signature);
        value(self);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.text(text),
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::U32(value) => self.u32(*value),
            Value::I32(value) => self.u32(value.cast_unsigned()),
            Value::U64(value) => {
                self.align(8);
                self.bytes.extend(value.to_le_bytes());
            }
            Value::Bytes(bytes) => self.array(1, |array| array.bytes.extend(bytes)),
            Value::Numbers(numbers) => {
                self.array(4, |array| {
                    numbers.iter().for_each(|number| array.u32(*number));
                });
            }
            Value::Texts(texts) => {
                self.array(4, |array| texts.iter().for_each(|text| array.text(text)));
            }
            Value::TextPairs(pairs) => self.array(8, |array| {
                for (first, second) in pairs {
                    array.align(8);
                    array.text(first);
                    array.text(second);
                }
            }),
            Value::Properties(properties) => self.array(8, |array| {
                for (name, value) in properties {
                    array.align(8);
                    array.text(name);
                    array.signature(value.signature());
                    array.value(value);
                }
            }),
            Value::NoUnits => self.array(8, |_| {}),
        }
    }
}

/// Reads what another process wrote: every step is checked, none panics.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        let bytes: [u8; 4] = self.bytes.get(self.at..)?.get(..4)?.try_into().ok()?;
        self.at += 4;
        Some(u32::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.terminated(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Option<String> {
        let end = self.at.checked_add(length)?;
        let text = self.bytes.get(self.at..end)?;
        if *self.bytes.get(end)? != 0 {
            return None;
        }
        self.at = end + 1;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
