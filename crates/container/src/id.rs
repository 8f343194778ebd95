//! Container ids.

use std::fmt;

use crate::error::{Error, Result};

/// A name that is safe as a directory name and in messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// As a directory name, below the kernel's limit with room for suffixes.
const MAX: usize = 1024;

impl ContainerId {
    /// Accepts what runc accepts: letters, digits, `_`, `+`, `-`, `.`; neither `.` nor `..`.
    ///
    /// # Errors
    /// The text is empty, too long, or holds another character.
    pub fn new(text: &str) -> Result<ContainerId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let fine = text.bytes().all(allowed) && !matches!(text, "" | "." | "..");
        if fine && text.len() <= MAX {
            Ok(ContainerId(text.to_owned()))
        } else {
            let text = text.chars().take(64).collect::<String>();
            let cause = "letters, digits and `_+-.` only, up to 1024 of them";
            Err(Error::new(format!("container id {text:?}"), cause))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_their_directory() {
        for good in ["a", "web-1", "0_+.x"] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "a\0",
            "a\n",
            "ä",
            &"x".repeat(1025),
        ] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?}");
        }
    }
}
