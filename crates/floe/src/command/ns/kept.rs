//! Namespaces kept under names: bind mounts below `/run/floe/ns`.

use std::path::PathBuf;

use crate::store::Store;

/// The directory of a name.
pub(super) fn directory(store: &Store, name: &str) -> PathBuf {
    store.run.join("ns").join(name)
}

/// Every kept namespace: its name and file.
pub(super) fn all(store: &Store) -> Vec<(String, PathBuf)> {
    let names = std::fs::read_dir(store.run.join("ns"))
        .into_iter()
        .flatten()
        .flatten();
    names
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .flat_map(|(name, path)| {
            let files = std::fs::read_dir(path).into_iter().flatten().flatten();
            files
                .map(move |file| (name.clone(), file.path()))
                .collect::<Vec<_>>()
        })
        .collect()
}
