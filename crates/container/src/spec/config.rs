//! The configuration as a whole (config.md).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::go::{is_default, or_default, or_none};
use super::{Hooks, IdMapping, Linux, Process};

/// A bundle's `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The version of the specification that the document follows (SemVer).
    #[serde(deserialize_with = "or_default")]
    pub oci_version: String,
    /// What runs. `create` may do without it; `start` may not.
    #[serde(skip_serializing_if = "is_default")]
    pub process: Option<Process>,
    /// The container's root file system; required on Linux.
    #[serde(skip_serializing_if = "is_default")]
    pub root: Option<Root>,
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub hostname: Option<String>,
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub domainname: Option<String>,
    /// Mounts in addition to `root`, in the order in which they are made.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub hooks: Hooks,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub linux: Option<Linux>,
}

/// The root file system (config.md, "Root").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Root {
    /// A directory, absolute or relative to the bundle.
    #[serde(deserialize_with = "or_default")]
    pub path: PathBuf,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub readonly: bool,
}

/// One mount (config.md, "Mounts").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// Absolute inside the container. A relative one is taken from its root, as runc does.
    #[serde(deserialize_with = "or_default")]
    pub destination: PathBuf,
    /// A file system type, or `bind`; `None` with the option `bind` is a bind mount.
    #[serde(
        rename = "type",
        deserialize_with = "or_none",
        skip_serializing_if = "is_default"
    )]
    pub kind: Option<String>,
    /// A device, a name, or for bind mounts a path, absolute or relative to the bundle.
    #[serde(deserialize_with = "or_none", skip_serializing_if = "is_default")]
    pub source: Option<String>,
    /// Options as in fstab(5), and those of config.md, "Linux mount options".
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub options: Vec<String>,
    /// Mappings of an idmapped mount (mount_setattr(2), Linux 5.12).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub gid_mappings: Vec<IdMapping>,
}
