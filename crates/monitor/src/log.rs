//! The log of a container: one line per line of output, `TIME STREAM TAG DATA`.
//!
//! This is the format container engines under Kubernetes write (CRI). Unlike JSON it keeps bytes
//! that are not UTF-8 as they are. The tag is `F` for a full line and `P` for a piece of one that
//! was cut because it was too long or the container ended within it.

/// Which of the container's outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Output,
    Errors,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Errors => "stderr",
        }
    }
}

/// One line of a log; the data is without its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: &'a str,
    pub stream: Stream,
    /// Whether a newline followed the data.
    pub full: bool,
    pub data: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads one line, without its newline; `None` if it is not a log line.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Output,
            b"stderr" => Stream::Errors,
            _ => return None,
        };
        let full = match fields.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self {
            time,
            stream,
            full,
            data: fields.next()?,
        })
    }
}

/// Appends `data` to `text` as log lines, all with the same `time`.
pub fn format(text: &mut Vec<u8>, time: &str, stream: Stream, data: &[u8]) {
    for piece in data.split_inclusive(|byte| *byte == b'\n') {
        let (line, tag) = match piece.strip_suffix(b"\n") {
            Some(line) => (line, b" F "),
            None => (piece, b" P "),
        };
        text.extend_from_slice(time.as_bytes());
        text.push(b' ');
        text.extend_from_slice(stream.name().as_bytes());
        text.extend_from_slice(tag);
        text.extend_from_slice(line);
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-22T03:04:05.000000007Z";

    #[test]
    fn lines_survive_with_any_byte() {
        let mut text = Vec::new();
        format(&mut text, TIME, Stream::Errors, b"a b\n\n\xff\x1b[2Jtail");
        let lines: Vec<_> = text
            .split(|b| *b == b'\n')
            .filter_map(Line::parse)
            .collect();
        let line = |full, data| Line {
            time: TIME,
            stream: Stream::Errors,
            full,
            data,
        };
        assert_eq!(
            lines,
            [
                line(true, &b"a b"[..]),
                line(true, b""),
                line(false, b"\xff\x1b[2Jtail")
            ]
        );
    }

    #[test]
    fn other_lines_are_refused() {
        for text in [
            &b""[..],
            b"x",
            b"t stdout F",
            b"t stdlog F x",
            b"t stdout Q x",
        ] {
            assert_eq!(Line::parse(text), None, "{text:?}");
        }
    }
}
