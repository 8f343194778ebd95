//! What floe remembers of a container: `config.json` in its directory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::plan::identity::{IdMaps, User};
use crate::plan::root::RootPlan;

/// The definition of a container, as `create` made it and `update` and `rename` changed it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    /// RFC 3339.
    pub(crate) created: String,
    /// What the root file system is made of, for people.
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) hostname: String,
    pub(crate) network: String,
    pub(crate) terminal: bool,
    pub(crate) interactive: bool,
    pub(crate) detach_keys: String,
    pub(crate) remove: bool,
    pub(crate) restart: String,
    pub(crate) stop_signal: i32,
    /// Seconds.
    pub(crate) stop_timeout: u64,
    /// Bytes.
    pub(crate) log_size: u64,
    /// systemd makes the group, as a scope.
    pub(crate) systemd_group: bool,
    pub(crate) no_enter: bool,
    pub(crate) user: User,
    pub(crate) id_maps: Option<IdMaps>,
    /// Where the writable layer lies; the container's own directory, or memory.
    pub(crate) layer: PathBuf,
    /// The root is this directory of the user's, written to directly; there is no layer.
    pub(crate) direct_root: Option<PathBuf>,
    pub(crate) root: RootPlan,
    /// Paths that floe itself wrote into the layer.
    pub(crate) seeds: Vec<PathBuf>,
    /// Named volumes that it mounts.
    pub(crate) volumes: Vec<String>,
}
