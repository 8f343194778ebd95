//! Finds what a container's root file system is made of.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::flags::RootFlags;
use crate::host;
use crate::image;
use crate::plan::identity::{Accounts, IdMaps};
use crate::plan::process::ImageProcess;
use crate::plan::root::{Entry, Host, RootPlan, plan_host, plan_layers};
use crate::plan::visibility;
use crate::store::Store;

/// A root file system.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) kind: RootKind,
    /// What it is, for people.
    pub(super) name: String,
    pub(super) is_host: bool,
    pub(super) image: ImageProcess,
    pub(super) accounts: Accounts,
    /// Where its program starts.
    pub(super) directory: String,
}

#[derive(Debug)]
pub(super) enum RootKind {
    /// A directory of the user's, written to directly.
    Direct(PathBuf),
    /// A writable layer over directories that stay as they are.
    Layered(RootPlan),
}

impl Root {
    pub(super) fn find(store: &Store, flags: &RootFlags, maps: Option<&IdMaps>) -> Result<Self> {
        let Some(text) = &flags.rootfs else {
            return Self::host(store, flags, maps.is_some());
        };
        if let Some(directory) = text.strip_suffix(":rw") {
            return Self::direct(directory);
        }
        let path =
            std::fs::canonicalize(text).with_context(|| format!("--rootfs: look at `{text}`"))?;
        if !path.is_dir() {
            let layer = image::archive_layer(store, &path, maps)?;
            return Self::layered(text, &[layer], ImageProcess::default());
        }
        if image::is_layout(&path) {
            let (layers, process) = image::open_layout(store, &path, flags.tag.as_deref(), maps)?;
            return Self::layered(text, &layers, process);
        }
        Self::layered(text, &[path], ImageProcess::default())
    }

    /// The default: a throw-away copy of this machine.
    fn host(store: &Store, flags: &RootFlags, user_namespace: bool) -> Result<Self> {
        let current = std::env::current_dir().context("find current directory")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let mut shown = visibility::path_directories(&path, home.as_deref());
        for path in &flags.show {
            let path = current.join(path);
            if !path.exists() {
                bail!("--show: `{}` is not there", path.display());
            }
            shown.push(path);
        }
        let mut directory = "/".to_owned();
        // The root of such a container is another user of the host, who cannot enter root's own.
        let reachable = |path: &Path| store.rootless || !user_namespace || is_open_to_all(path);
        shown.retain(|path| reachable(path));
        if visibility::may_show_current(&current) && reachable(&current) {
            directory = current.to_string_lossy().into_owned();
            shown.push(current);
        }
        let mounts = host::mounts()?;
        let plan = plan_host(&Host {
            list: &host::list,
            mounts: &mounts.real,
            pseudo_mounts: &mounts.pseudo,
            user_namespace,
            shown: &shown,
            homes: &host::homes(),
            own: &[store.state.clone(), store.run.clone()],
        });
        let accounts = Accounts {
            passwd: std::fs::read_to_string("/etc/passwd").unwrap_or_default(),
            group: std::fs::read_to_string("/etc/group").unwrap_or_default(),
        };
        let shell = std::env::var("SHELL")
            .ok()
            .filter(|shell| shell.starts_with('/'));
        let image = ImageProcess {
            command: vec![shell.unwrap_or_else(|| "/bin/sh".to_owned())],
            ..ImageProcess::default()
        };
        Ok(Self {
            kind: RootKind::Layered(plan),
            name: "(this machine)".to_owned(),
            is_host: true,
            image,
            accounts,
            directory,
        })
    }

    fn direct(directory: &str) -> Result<Self> {
        let path = std::fs::canonicalize(directory)
            .with_context(|| format!("--rootfs: look at `{directory}`"))?;
        if !path.is_dir() {
            bail!("--rootfs `{directory}:rw`: not a directory");
        }
        Ok(Self {
            accounts: accounts(std::slice::from_ref(&path)),
            kind: RootKind::Direct(path),
            name: directory.to_owned(),
            is_host: false,
            image: ImageProcess::default(),
            directory: "/".to_owned(),
        })
    }

    /// A root over layers, the uppermost first.
    fn layered(name: &str, layers: &[PathBuf], image: ImageProcess) -> Result<Self> {
        let union = Union { layers };
        let entries = union.top();
        if entries.is_empty() {
            bail!("--rootfs `{name}` is empty");
        }
        let source = |name: &str| union.holder(name).unwrap_or_default();
        let lower = |name: &str| union.directories(name);
        Ok(Self {
            kind: RootKind::Layered(plan_layers(&entries, &source, &lower)),
            name: name.to_owned(),
            is_host: false,
            accounts: accounts(layers),
            image,
            directory: "/".to_owned(),
        })
    }
}

/// Whether every user of the host can reach a path.
fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.ancestors().all(|directory| {
        directory
            .metadata()
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    })
}

/// Layers seen as one tree, at its top. Deeper, the kernel's overlay does it.
struct Union<'a> {
    layers: &'a [PathBuf],
}

impl Union<'_> {
    fn top(&self) -> Vec<(String, Entry)> {
        let mut entries: Vec<(String, Entry)> = Vec::new();
        let mut gone: Vec<String> = Vec::new();
        for layer in self.layers {
            for (name, entry) in host::list(layer) {
                if gone.contains(&name) || entries.iter().any(|(other, _)| *other == name) {
                    continue;
                }
                if is_whiteout(&layer.join(&name)) {
                    gone.push(name);
                } else {
                    entries.push((name, entry));
                }
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    }

    fn holder(&self, name: &str) -> Option<PathBuf> {
        let mut paths = self.layers.iter().map(|layer| layer.join(name));
        paths.find(|path| path.symlink_metadata().is_ok())
    }

    /// The layers' directories of this name, down to the first that hides those below it.
    fn directories(&self, name: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for layer in self.layers {
            let path = layer.join(name);
            let Ok(metadata) = path.symlink_metadata() else {
                continue;
            };
            if !metadata.is_dir() {
                break;
            }
            let opaque = is_opaque(&path);
            found.push(path);
            if opaque {
                break;
            }
        }
        found
    }
}

fn is_whiteout(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_char_device() && metadata.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| {
            let mut value = [0_u8; 1];
            rustix::fs::lgetxattr(path, *name, &mut value).is_ok_and(|length| length == 1)
                && value == *b"y"
        })
}

/// The accounts of the uppermost layer that has them, read as its own root would.
fn accounts(layers: &[PathBuf]) -> Accounts {
    let read = |file: &str| {
        layers
            .iter()
            .find_map(|layer| read_inside(layer, Path::new(file)))
            .unwrap_or_default()
    };
    Accounts {
        passwd: read("etc/passwd"),
        group: read("etc/group"),
    }
}

/// Reads a small file of a foreign root: a link in it must not lead to the host's.
fn read_inside(root: &Path, path: &Path) -> Option<String> {
    use std::io::Read;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).ok()?;
    // Not blocking: it may be a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = sys::in_root::open_with(root.as_fd(), path, flags, ResolveFlags::empty()).ok()?;
    let file = std::fs::File::from(file);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(1 << 20).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
