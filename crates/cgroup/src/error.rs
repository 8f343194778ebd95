//! What went wrong with a group: operation, object, cause.

use std::fmt;
use std::path::Path;

use sys::Errno;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The crate's one error. A teardown that went on after an error reports all of them in one.
#[derive(Debug)]
pub struct Error {
    operation: String,
    object: String,
    cause: Cause,
    rest: Vec<Error>,
}

#[derive(Debug)]
enum Cause {
    Kernel(Errno),
    Text(String),
    /// This controller is not there, or does not reach the group.
    NoController(String),
}

impl Error {
    pub(crate) fn kernel(operation: &str, object: &Path, cause: Errno) -> Self {
        Self::new(
            operation,
            object.display().to_string(),
            Cause::Kernel(cause),
        )
    }

    pub(crate) fn text(operation: &str, object: impl Into<String>, cause: &str) -> Self {
        Self::new(operation, object.into(), Cause::Text(cause.to_owned()))
    }

    pub(crate) fn no_controller(operation: &str, object: &str, controller: &str) -> Self {
        Self::new(
            operation,
            object.to_owned(),
            Cause::NoController(controller.to_owned()),
        )
    }

    pub(crate) fn misses_controller(&self) -> bool {
        matches!(self.cause, Cause::NoController(_))
    }

    fn new(operation: &str, object: String, cause: Cause) -> Self {
        Self {
            operation: operation.to_owned(),
            object,
            cause,
            rest: Vec::new(),
        }
    }

    /// The same error with its cause in words of ours.
    pub(crate) fn explained(mut self, cause: String) -> Self {
        self.cause = Cause::Text(cause);
        self
    }

    /// One error for a list of them; `Ok` if it is empty.
    pub(crate) fn all(errors: Vec<Self>) -> Result<()> {
        let mut errors = errors.into_iter();
        let Some(mut first) = errors.next() else {
            return Ok(());
        };
        first.rest.extend(errors);
        Err(first)
    }

    /// Whether the cause is this error of D-Bus.
    pub(crate) fn is_about(&self, name: &str) -> bool {
        matches!(&self.cause, Cause::Text(text) if text.starts_with(name))
    }

    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self.cause {
            Cause::Kernel(errno) => Some(errno),
            Cause::Text(_) | Cause::NoController(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: ", self.operation, self.object)?;
        match &self.cause {
            Cause::Kernel(errno) => f.write_str(&sys::errno::describe(*errno))?,
            Cause::Text(text) => f.write_str(text)?,
            Cause::NoController(name) => write!(f, "no usable {name} controller on this host")?,
        }
        self.rest
            .iter()
            .try_for_each(|error| write!(f, "; {error}"))
    }
}

impl std::error::Error for Error {}
