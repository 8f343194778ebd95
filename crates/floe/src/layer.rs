//! Carries a [`RootPlan`] out on disk: the root directory, the writable layers, what hides.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use crate::plan::identity::IdMaps;
use crate::plan::root::{Directory, Hidden, RootPlan};
use crate::plan::spec::{OverlayMount, is_plain};

/// A file that floe writes into the new container.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A writable layer below `base`: `root`, and `N/{upper,work}` for overlay N of the plan.
#[derive(Debug)]
pub(crate) struct Layer<'a> {
    pub(crate) base: &'a Path,
    /// The container's user namespace: its root owns the layer.
    pub(crate) id_maps: Option<&'a IdMaps>,
    /// Whether the caller may give files away.
    pub(crate) privileged: bool,
}

/// Files larger than this are not copied from the top of the host's root.
const COPY_LIMIT: u64 = 16 * 1024 * 1024;

impl Layer<'_> {
    #[must_use]
    pub(crate) fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    /// Where the writable layer keeps a path of the container.
    fn place(&self, plan: &RootPlan, path: &Path) -> PathBuf {
        let overlay = plan.overlay_of(path).and_then(|overlay| {
            let index = plan.overlays.iter().position(|other| other == overlay)?;
            Some((index, path.strip_prefix(&overlay.path).ok()?))
        });
        match overlay {
            Some((index, rest)) => self.base.join(format!("{index}/upper")).join(rest),
            None => self.root().join(path.strip_prefix("/").unwrap_or(path)),
        }
    }

    /// Makes everything and gives the overlays to mount.
    ///
    /// # Errors
    /// Those of making files and directories.
    pub(crate) fn make(&self, plan: &RootPlan, seeds: &[Seed]) -> Result<Vec<OverlayMount>> {
        let root = self.root();
        self.directory(&root, 0o755, None)?;
        for Directory { path, mode } in &plan.directories {
            self.directories_to(plan, path)?;
            self.directory(&self.place(plan, path), *mode, None)?;
        }
        let mut mounts = Vec::with_capacity(plan.overlays.len());
        for (index, overlay) in plan.overlays.iter().enumerate() {
            let (upper, work) = (
                self.base.join(format!("{index}/upper")),
                self.base.join(format!("{index}/work")),
            );
            self.directory(&self.base.join(index.to_string()), 0o711, None)?;
            let model = overlay
                .lower
                .first()
                .and_then(|lower| std::fs::metadata(lower).ok());
            self.directory(&upper, 0o755, model.as_ref())?;
            self.directory(&work, 0o755, None)?;
            // The mount point.
            self.directories_to(plan, &overlay.path)?;
            if !plan.overlays[..index]
                .iter()
                .any(|outer| overlay.path.starts_with(&outer.path))
            {
                self.directory(&self.place_outside(plan, index), 0o755, None)?;
            }
            let lower = self.nameable(index, &overlay.lower)?;
            mounts.push(OverlayMount {
                path: overlay.path.clone(),
                lower,
                upper,
                work,
            });
        }
        for link in &plan.links {
            self.directories_to(plan, &link.path)?;
            let place = self.place(plan, &link.path);
            unless_there(symlink(&link.target, &place))
                .with_context(|| format!("link `{}`", place.display()))?;
        }
        for (source, path) in &plan.copies {
            self.copy(source, &self.place(plan, path));
        }
        for hidden in &plan.hidden {
            self.hide(plan, hidden)?;
        }
        for seed in seeds {
            self.seed(plan, seed)?;
        }
        Ok(mounts)
    }

    /// The mount point of an overlay that lies in no other.
    fn place_outside(&self, plan: &RootPlan, index: usize) -> PathBuf {
        let path = &plan.overlays[index].path;
        self.root().join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Makes the directories above a path, in whichever layer they lie.
    fn directories_to(&self, plan: &RootPlan, path: &Path) -> Result<()> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        for directory in above.into_iter().skip(1) {
            let Some(overlay) = plan.overlay_of(directory) else {
                self.directory(&self.place(plan, directory), 0o755, None)?;
                continue;
            };
            if overlay.path == directory {
                continue;
            }
            // A directory that the lower side has shows through and must keep its looks.
            let rest = directory.strip_prefix(&overlay.path).unwrap_or(directory);
            let lower = overlay
                .lower
                .iter()
                .find_map(|lower| lower.join(rest).metadata().ok());
            self.directory(&self.place(plan, directory), 0o755, lower.as_ref())?;
        }
        Ok(())
    }

    /// Makes a directory with a mode, or looking like another.
    fn directory(&self, place: &Path, mode: u32, model: Option<&std::fs::Metadata>) -> Result<()> {
        let mode = model.map_or(mode, |model| model.mode() & 0o7777);
        match std::fs::DirBuilder::new().mode(mode).create(place) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error).context(format!("make `{}`", place.display())),
        }
        if self.privileged {
            match (model, self.id_maps.and_then(IdMaps::root)) {
                (_, Some((uid, gid))) => chown(place, Some(uid), Some(gid)),
                (Some(model), None) => chown(place, Some(model.uid()), Some(model.gid())),
                (None, None) => Ok(()),
            }
            .with_context(|| format!("give `{}` away", place.display()))?;
        }
        // The mask of the caller took bits away, and chown some more.
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode))
            .with_context(|| format!("set mode of `{}`", place.display()))
    }

    /// Lower directories under names that mount options can hold.
    fn nameable(&self, index: usize, lower: &[PathBuf]) -> Result<Vec<PathBuf>> {
        let name = |(number, path): (usize, &PathBuf)| {
            if is_plain(path) {
                return Ok(path.clone());
            }
            let link = self.base.join(format!("{index}/lower{number}"));
            unless_there(symlink(path, &link))
                .with_context(|| format!("link `{}`", link.display()))?;
            Ok(link)
        };
        lower.iter().enumerate().map(name).collect()
    }

    /// Copies a file of the host's. One that the caller cannot read is left out: it is the same
    /// for the container.
    fn copy(&self, source: &Path, place: &Path) {
        let Ok(metadata) = std::fs::symlink_metadata(source) else {
            return;
        };
        if !metadata.is_file() || metadata.len() > COPY_LIMIT {
            return;
        }
        if std::fs::copy(source, place).is_ok() && self.privileged && self.id_maps.is_none() {
            // The copy is usable without its owner.
            let _ = chown(place, Some(metadata.uid()), Some(metadata.gid()));
            let _ = std::fs::set_permissions(place, metadata.permissions());
        }
    }

    /// Covers a path of the lower side, if it is there.
    fn hide(&self, plan: &RootPlan, hidden: &Hidden) -> Result<()> {
        let Some(overlay) = plan.overlay_of(&hidden.path) else {
            return Ok(());
        };
        let rest = hidden
            .path
            .strip_prefix(&overlay.path)
            .unwrap_or(&hidden.path);
        let exists = overlay
            .lower
            .iter()
            .any(|lower| lower.join(rest).symlink_metadata().is_ok());
        if !exists {
            return Ok(());
        }
        self.directories_to(plan, &hidden.path)?;
        let place = self.place(plan, &hidden.path);
        let Some(mode) = hidden.empty else {
            // An overlay takes a character device 0:0 for "deleted" (since Linux 5.8 anybody may
            // make one).
            let made = mknodat(CWD, &place, FileType::CharacterDevice, Mode::empty(), 0);
            return unless_there(made.map_err(Into::into))
                .with_context(|| format!("hide `{}`", hidden.path.display()));
        };
        self.directory(&place, mode, None)?;
        let attribute = if self.id_maps.is_some() {
            "user.overlay.opaque"
        } else {
            "trusted.overlay.opaque"
        };
        setxattr(&place, attribute, b"y", XattrFlags::empty())
            .with_context(|| format!("hide what `{}` holds", hidden.path.display()))
    }

    fn seed(&self, plan: &RootPlan, seed: &Seed) -> Result<()> {
        self.directories_to(plan, &seed.path)?;
        let place = self.place(plan, &seed.path);
        // A file from an image may be a link that leads anywhere: never write through it.
        match std::fs::remove_file(&place) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(format!("replace `{}`", place.display())),
        }
        std::fs::write(&place, &seed.text)
            .with_context(|| format!("write `{}`", place.display()))?;
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o644))?;
        if let (true, Some((uid, gid))) = (self.privileged, self.id_maps.and_then(IdMaps::root)) {
            lchown(&place, Some(uid), Some(gid))
                .with_context(|| format!("give `{}` away", place.display()))?;
        }
        Ok(())
    }
}

fn unless_there(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
