//! The words in which floe sets a group's resources: `subsystem.key=value`, the same on every
//! layout.
//!
//! Each key has one [`Entry`], which says in what unit its value is, and which file has it on v1
//! and on v2. [`plan`] turns assignments into writes, [`read`] the kernel's files back into values.
//! Both are pure: they see the group's files through [`Files`]. What a layout lacks is an error
//! before anything is written; what the kernel rounds is seen by reading it back.

mod plan;
mod rates;
mod read;
mod table;
mod value;

use std::fmt;

use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::plan::Place;

pub use plan::{Step, plan};
pub use read::{Reading, read};
pub use table::{Entry, entries};
pub use value::{Unit, Value};

/// A version of the kernel's groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1,
    V2,
}

/// What an assignment is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Of the vocabulary, in its own spelling; the index into [`entries`], and what stands for
    /// the `*` in its name (the page size of `hugetlb.2MB.max`).
    Known { index: usize, variable: String },
    /// `v1:FILE` or `v2:FILE`: written as it is.
    Raw { version: Version, file: String },
}

/// `key=value`, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub key: Key,
    /// `None` = the kernel's default.
    pub value: Option<Value>,
}

/// A group's files: of the group itself (level 0), its parent (1), and on up to the mount point.
/// `None` where there is no such group or file.
pub type Files<'a> = dyn Fn(usize, Place, &str) -> Option<String> + 'a;

/// The kernel takes a page less one byte in a write.
const LONGEST_VALUE: usize = 4000;

impl Key {
    /// Understands a key. `cpuset.mems` and the other knobs of memory nodes are `memset`'s.
    ///
    /// # Errors
    /// There is no such key.
    pub fn parse(text: &str) -> Result<Self> {
        let fails = |cause: &str| Err(Error::text("key", text, cause));
        for (prefix, version) in [("v1:", Version::V1), ("v2:", Version::V2)] {
            if let Some(file) = text.strip_prefix(prefix) {
                // It becomes a file's name, which may not lead out of the group.
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                if !file.bytes().all(plain) || file.starts_with('.') || !file.contains('.') {
                    return fails("not the name of a file of a group");
                }
                let controller = file.split('.').next().and_then(Controller::named);
                if version == Version::V1 && controller.is_none() {
                    return fails("not a file of a v1 controller");
                }
                let file = file.to_owned();
                return Ok(Self::Raw { version, file });
            }
        }
        match table::find(text) {
            Some((index, variable)) => Ok(Self::Known { index, variable }),
            None => fails("no such key; `floe group keys` lists them"),
        }
    }

    /// The entry of a key of the vocabulary.
    #[must_use]
    pub fn entry(&self) -> Option<&'static Entry> {
        match self {
            Self::Known { index, .. } => entries().get(*index),
            Self::Raw { .. } => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known { index, variable } => {
                let name = entries().get(*index).map_or("", |entry| entry.name);
                f.write_str(&name.replacen('*', variable, 1))
            }
            Self::Raw { version, file } => {
                let version = match version {
                    Version::V1 => "v1",
                    Version::V2 => "v2",
                };
                write!(f, "{version}:{file}")
            }
        }
    }
}

impl Assignment {
    /// Understands `key=value`; the value `default` is the kernel's.
    ///
    /// # Errors
    /// No such key, or a value in another unit.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Error::text("set", text, "not of the form key=value"));
        };
        Self::new(Key::parse(key.trim())?, value.trim())
    }

    /// The value of a key.
    ///
    /// # Errors
    /// A value in another unit.
    pub fn new(key: Key, text: &str) -> Result<Self> {
        let fails = |cause: &str| {
            let object = format!("{key}={text}");
            Err(Error::text("set", object, cause))
        };
        // A policy goes to no file.
        let is_policy = key.entry().is_some_and(|entry| entry.unit == Unit::Policy);
        if (text.len() > LONGEST_VALUE && !is_policy) || text.contains(['\0', '\n']) {
            return fails("not a value");
        }
        let Some(entry) = key.entry() else {
            let value = Some(Value::Text(text.to_owned()));
            return Ok(Self { key, value });
        };
        if text == "default" {
            return Ok(Self { key, value: None });
        }
        match Value::parse(entry.unit, text) {
            Ok(value) => Ok(Self {
                key,
                value: Some(value),
            }),
            Err(cause) => fails(&cause),
        }
    }

    /// The value as this vocabulary writes it.
    #[must_use]
    pub fn text(&self) -> String {
        let unit = self.key.entry().map_or(Unit::Text, |entry| entry.unit);
        self.value
            .as_ref()
            .map_or_else(|| "default".to_owned(), |value| value.print(unit))
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.text())
    }
}

#[cfg(test)]
#[path = "vocabulary_tests.rs"]
mod tests;
