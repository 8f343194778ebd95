//! The crate's error: what was done, to what, and why it failed.

use std::fmt;

use sys::Errno;

/// An operation that failed. Prints as ``mount `proc` on `/proc`: operation not permitted (EPERM)``.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    operation: String,
    cause: Option<String>,
}

/// What callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No container has this id.
    NotFound,
    /// The container's process is gone.
    NotRunning,
    Other,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with its cause; `operation` names its object in backticks.
    pub fn new(operation: impl Into<String>, cause: impl fmt::Display) -> Error {
        let cause = Some(cause.to_string());
        Error {
            kind: Kind::Other,
            operation: operation.into(),
            cause,
        }
    }

    /// An error that needs no further cause.
    pub fn plain(text: impl Into<String>) -> Error {
        Error {
            kind: Kind::Other,
            operation: text.into(),
            cause: None,
        }
    }

    /// A container is asked for that does not exist. Engines match the text "does not exist".
    pub(crate) fn not_found(id: &str) -> Error {
        let text = format!("container `{id}` does not exist");
        Error {
            kind: Kind::NotFound,
            ..Error::plain(text)
        }
    }

    /// The container's process is gone. Engines match the text "container not running".
    pub(crate) fn not_running() -> Error {
        Error {
            kind: Kind::NotRunning,
            ..Error::plain("container not running")
        }
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Puts the error below a wider operation.
    #[must_use]
    pub(crate) fn within(self, operation: impl Into<String>) -> Error {
        let kind = self.kind;
        Error {
            kind,
            ..Error::new(operation, self)
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(formatter, "{}: {cause}", self.operation),
            None => formatter.write_str(&self.operation),
        }
    }
}

impl std::error::Error for Error {}

/// Says during what a lower error happened.
pub(crate) trait During<T> {
    /// The operation is only put into words when it failed.
    fn during<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T>;
}

impl<T> During<T> for sys::Result<T> {
    fn during<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| Error::new(operation(), sys::errno::describe(errno)))
    }
}

impl<T> During<T> for std::io::Result<T> {
    fn during<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => Error::new(operation(), sys::errno::describe(errno)),
            None => Error::new(operation(), error),
        })
    }
}

impl<T> During<T> for Result<T> {
    fn during<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.within(operation()))
    }
}

/// Takes the middle out of a text of more than 4000 bytes. What is reported about a configuration
/// has parts of it, which may be long; what it is about comes first and the cause last.
#[must_use]
pub fn shorten(text: String) -> String {
    const MAX: usize = 4000;
    if text.len() <= MAX {
        return text;
    }
    let head = text.floor_char_boundary(MAX / 2);
    let tail = text.ceil_char_boundary(text.len() - MAX / 2);
    format!("{}…{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_loses_its_middle() {
        let text = shorten(format!("first {} last", "ä".repeat(5000)));
        assert!(text.len() < 4010 && text.starts_with("first ä") && text.ends_with("ä last"));
        assert_eq!(shorten("short".to_owned()), "short");
    }
}
