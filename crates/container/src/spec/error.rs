//! What is wrong with a document, in one line.

use std::fmt;

/// Longer texts are cut: a document's own strings must not flood a log.
const MAX_TEXT: usize = 300;

/// What is wrong with a document: `config.json: process.rlimits[2].hard: invalid type: …`.
///
/// The text is one line without control characters, whatever the document holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    document: String,
    field: String,
    cause: String,
}

impl Error {
    /// An error about `field` (a path such as `mounts[3].destination`; empty: the whole document).
    #[must_use]
    pub fn new(document: &str, field: &str, cause: &str) -> Self {
        let field = if field == "." { "" } else { field };
        Self {
            document: one_line(document),
            field: one_line(field),
            cause: one_line(cause),
        }
    }

    /// The path of the field at fault; empty for the whole document.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.document)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Error {}

/// Escapes control characters and cuts the middle out of a long text.
fn one_line(text: &str) -> String {
    let clean = |part: &str| -> String {
        part.chars()
            .flat_map(|c| {
                let escape = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
                let plain = (!escape).then_some(c);
                let escaped = escape.then(|| c.escape_default());
                plain.into_iter().chain(escaped.into_iter().flatten())
            })
            .collect()
    };
    if text.len() <= MAX_TEXT {
        return clean(text);
    }
    let head = text.floor_char_boundary(MAX_TEXT / 2);
    let tail = text.ceil_char_boundary(text.len() - MAX_TEXT / 2);
    format!("{} … {}", clean(&text[..head]), clean(&text[tail..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_document_field_and_cause() {
        for (field, text) in [
            ("a[1].b", "c.json: a[1].b: bad"),
            ("", "c.json: bad"),
            (".", "c.json: bad"),
        ] {
            assert_eq!(Error::new("c.json", field, "bad").to_string(), text);
        }
    }

    #[test]
    fn stays_one_short_printable_line() {
        for text in [
            "a\nb",
            "\x1b[31mred",
            "\u{2028}",
            &"x".repeat(100_000),
            &"é\n".repeat(5000),
        ] {
            let error = Error::new(text, text, text).to_string();
            assert!(!error.chars().any(char::is_control), "{error}");
            assert!(error.len() < 10 * MAX_TEXT, "{}", error.len());
        }
    }
}
