//! Root file systems that come as files: tar archives and OCI image layouts.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::plan::process::ImageProcess;
use crate::store::Store;

pub(crate) fn archive_layer(_store: &Store, path: &Path) -> Result<PathBuf> {
    bail!("--rootfs `{}`: not yet", path.display())
}

pub(crate) fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file()
}

pub(crate) fn open_layout(
    _store: &Store,
    path: &Path,
    _tag: Option<&str>,
) -> Result<(Vec<PathBuf>, ImageProcess)> {
    bail!("--rootfs `{}`: not yet", path.display())
}
