//! Programs run at points of the container's life (config.md, "POSIX-platform Hooks").

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::go::{is_default, or_default};

/// The six kinds of hooks, each run in the order given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// In the runtime's namespaces, once the container's exist, before `createRuntime` (deprecated).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, once the container's exist, before pivot_root.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before pivot_root; paths are the runtime's.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub create_container: Vec<Hook>,
    /// In the container, after `start` was called and before the process is executed.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the process was executed.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container was deleted.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub poststop: Vec<Hook>,
}

/// One hook. It is given the container's [`State`](super::State) on its standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hook {
    /// Absolute.
    #[serde(deserialize_with = "or_default")]
    pub path: PathBuf,
    /// argv, with argv\[0\]; empty: the path alone.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// The whole environment, `NAME=value`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// Seconds, more than 0; `None` = no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: Option<i64>,
}
