//! `floe diff`

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use crate::output::{self, Format};
use crate::store::Store;
use crate::store::container::Container;
use crate::store::record::Record;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Shows what the writable layer holds: A added, C changed, D deleted.
pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let container = store.find(&flags.container)?;
    if container.record.direct_root.is_some() {
        bail!(
            "container `{}` writes to its root directly: nothing is kept apart",
            container.record.name
        );
    }
    let changes = changes(&container)?;
    match flags.format {
        Format::Json => {
            let list: Vec<_> = changes
                .iter()
                .map(|(kind, path)| json!({ "kind": kind.to_string(), "path": path }))
                .collect();
            output::json(&list)?;
        }
        Format::Table => {
            for (kind, path) in &changes {
                output::line(&format!(
                    "{kind} {}",
                    crate::text::plain(&path.to_string_lossy())
                ))?;
            }
        }
    }
    Ok(0)
}

fn changes(container: &Container) -> Result<Vec<(char, PathBuf)>> {
    let record = &container.record;
    let mut walk = Walk {
        record,
        own: own_paths(container)?,
        changes: Vec::new(),
    };
    walk.directory(&record.layer.join("root"), Path::new("/"), &[])?;
    for (index, overlay) in record.root.overlays.iter().enumerate() {
        let upper = record.layer.join(format!("{index}/upper"));
        walk.directory(&upper, &overlay.path, &overlay.lower)?;
    }
    walk.changes.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(walk.changes)
}

/// Paths that floe or the runtime made, not the container.
fn own_paths(container: &Container) -> Result<Vec<PathBuf>> {
    let record = &container.record;
    let root = &record.root;
    let mut own: Vec<PathBuf> = record.seeds.clone();
    own.extend(
        root.directories
            .iter()
            .map(|directory| directory.path.clone()),
    );
    own.extend(root.links.iter().map(|link| link.path.clone()));
    own.extend(root.copies.iter().map(|(_, path)| path.clone()));
    own.extend(root.overlays.iter().map(|overlay| overlay.path.clone()));
    let bundle = container.bundle().join("config.json");
    let spec = std::fs::read(&bundle).with_context(|| format!("read `{}`", bundle.display()))?;
    let spec: serde_json::Value =
        serde_json::from_slice(&spec).with_context(|| format!("read `{}`", bundle.display()))?;
    let mounts = spec["mounts"].as_array().into_iter().flatten();
    own.extend(mounts.filter_map(|mount| Some(PathBuf::from(mount["destination"].as_str()?))));
    // The way to each of them.
    let above: Vec<PathBuf> = own
        .iter()
        .flat_map(|path| path.ancestors().skip(1).map(Path::to_owned))
        .collect();
    own.extend(above);
    Ok(own)
}

struct Walk<'a> {
    record: &'a Record,
    own: Vec<PathBuf>,
    changes: Vec<(char, PathBuf)>,
}

impl Walk<'_> {
    fn directory(&mut self, place: &Path, path: &Path, lower: &[PathBuf]) -> Result<()> {
        let entries =
            std::fs::read_dir(place).with_context(|| format!("list `{}`", place.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list `{}`", place.display()))?;
            let Ok(metadata) = entry.path().symlink_metadata() else {
                continue;
            };
            let path = path.join(entry.file_name());
            let lower: Vec<PathBuf> = lower
                .iter()
                .map(|lower| lower.join(entry.file_name()))
                .filter(|lower| lower.symlink_metadata().is_ok())
                .collect();
            let hidden = self
                .record
                .root
                .hidden
                .iter()
                .any(|hidden| hidden.path == path);
            let own = hidden || self.own.contains(&path);
            if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
                if !hidden {
                    self.changes.push(('D', path));
                }
            } else if metadata.is_dir() {
                // A directory that only leads to a change has not changed itself.
                let before = self.changes.len();
                // What is hidden of the lower side is not there to be changed.
                let below = if hidden { &[][..] } else { &lower };
                self.directory(&entry.path(), &path, below)?;
                if !own && lower.is_empty() {
                    self.changes.push(('A', path));
                } else if !own && self.changes.len() > before {
                    self.changes.push(('C', path));
                }
            } else if !own {
                self.changes
                    .push((if lower.is_empty() { 'A' } else { 'C' }, path));
            }
        }
        Ok(())
    }
}
