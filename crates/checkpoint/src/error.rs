//! The crate's one error: what was done, to what, and why it did not work.

use std::fmt;

use sys::Errno;

/// Shorthand of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// ``operation `object`: cause``.
#[derive(Debug)]
pub struct Error {
    operation: String,
    object: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Errno(Errno),
    Text(String),
}

impl Error {
    /// An error with the kernel's cause.
    pub fn kernel(operation: &str, object: impl fmt::Display, errno: Errno) -> Self {
        let cause = Cause::Errno(errno);
        Self {
            operation: operation.to_owned(),
            object: object.to_string(),
            cause,
        }
    }

    /// An error with a cause of our own words.
    pub fn because(operation: &str, object: impl fmt::Display, cause: impl Into<String>) -> Self {
        let cause = Cause::Text(cause.into());
        Self {
            operation: operation.to_owned(),
            object: object.to_string(),
            cause,
        }
    }

    /// The kernel's error number, where the cause is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self.cause {
            Cause::Errno(errno) => Some(errno),
            Cause::Text(_) => None,
        }
    }

    /// As bytes, for another process.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let cause = match &self.cause {
            Cause::Errno(errno) => format!("E{}", errno.raw_os_error()),
            Cause::Text(text) => format!("T{text}"),
        };
        [self.operation.as_str(), &self.object, &cause]
            .join("\0")
            .into_bytes()
    }

    /// What [`Error::encode`] made.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut parts = text.splitn(3, '\0').map(str::to_owned);
        let operation = parts.next().unwrap_or_default();
        let object = parts.next().unwrap_or_default();
        let cause = parts.next().unwrap_or_default();
        let errno = cause.strip_prefix('E').and_then(|text| text.parse().ok());
        let cause = match errno {
            Some(errno) => Cause::Errno(Errno::from_raw_os_error(errno)),
            None => Cause::Text(cause.get(1..).unwrap_or_default().to_owned()),
        };
        Self {
            operation,
            object,
            cause,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `", self.operation)?;
        write_line(f, &self.object)?;
        f.write_str("`: ")?;
        match &self.cause {
            Cause::Errno(errno) => f.write_str(&sys::errno::describe(*errno)),
            Cause::Text(text) => write_line(f, text),
        }
    }
}

/// More of a text than this is left out.
const MAX_TEXT: usize = 500;

/// Names come from images and from programs: they must not break the line or fill the screen.
fn write_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for letter in text.chars().take(MAX_TEXT) {
        if letter.is_control() {
            write!(f, "{}", letter.escape_default())?;
        } else {
            write!(f, "{letter}")?;
        }
    }
    if text.chars().nth(MAX_TEXT).is_some() {
        f.write_str("…")?;
    }
    Ok(())
}

impl std::error::Error for Error {}

/// Adds operation and object to a kernel error.
pub(crate) trait Context<T> {
    /// ``operation `object`: …``
    fn during(self, operation: &str, object: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for sys::Result<T> {
    fn during(self, operation: &str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|errno| Error::kernel(operation, object, errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn during(self, operation: &str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => Error::kernel(operation, object, errno),
            None => Error::because(operation, object, error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_operation_object_cause() {
        let error = Error::kernel("open", "/x", Errno::NOENT);
        assert_eq!(
            error.to_string(),
            "open `/x`: no such file or directory (ENOENT)"
        );
        let error = Error::because("read", "core-1.img", "truncated");
        assert_eq!(
            Error::decode(&error.encode()).to_string(),
            error.to_string()
        );
        assert_eq!(error.to_string(), "read `core-1.img`: truncated");
        let error = Error::because("open", "a\n\u{1b}b", "x".repeat(900));
        let text = error.to_string();
        assert!(text.starts_with("open `a\\n\\u{1b}b`: xx"), "{text}");
        assert_eq!(text.chars().filter(|letter| *letter == 'x').count(), 500);
    }
}
