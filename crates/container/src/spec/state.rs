//! What the runtime tells hooks, seccomp agents and `state` (runtime.md, "State").

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::go::{is_default, or_default};

/// The state of a container, as hooks read it on their standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    pub status: Status,
    /// The container's process as the runtime sees it; 0, and left out, when there is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: i32,
    /// Absolute.
    pub bundle: PathBuf,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// Where a container is in its life. `Paused` is not in the specification; peers have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

/// What `linux.seccomp.listenerPath` is sent along with the notification fd
/// (config-linux.md, "The Container Process State").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProcessState {
    pub oci_version: String,
    /// The names of the fds passed, in their order in `SCM_RIGHTS`.
    pub fds: Vec<String>,
    pub pid: i32,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub metadata: String,
    pub state: State,
}

/// The name of the seccomp notification fd in [`ContainerProcessState::fds`].
pub const SECCOMP_FD_NAME: &str = "seccompFd";
