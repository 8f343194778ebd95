//! Facts about this machine and the caller that planning needs.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::plan::group::Keeper;
use crate::plan::identity::{Caller, subordinate};
use crate::plan::root::Entry;
use crate::plan::spec::Device;

/// The entries of a directory by name; empty if it cannot be read.
#[must_use]
pub(crate) fn list(directory: &Path) -> Vec<(String, Entry)> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut list: Vec<(String, Entry)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let kind = entry.file_type().ok()?;
            let what = if kind.is_dir() {
                Entry::Directory
            } else if kind.is_symlink() {
                Entry::Link(std::fs::read_link(entry.path()).ok()?)
            } else if kind.is_file() {
                Entry::File
            } else {
                Entry::Other
            };
            Some((entry.file_name().into_string().ok()?, what))
        })
        .collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

/// Mount points of this mount namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    /// Directories of file systems with files in them.
    pub(crate) real: Vec<PathBuf>,
    /// The kernel's, automounters, and those of other users (FUSE).
    pub(crate) pseudo: Vec<PathBuf>,
}

/// Reads this process's mounts.
///
/// # Errors
/// `/proc` is not there.
pub(crate) fn mounts() -> Result<Mounts> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    let mut mounts = parse_mounts(&text);
    mounts.real.retain(|path| path.is_dir());
    Ok(mounts)
}

fn parse_mounts(text: &str) -> Mounts {
    const REAL: [&str; 17] = [
        "9p", "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "nfs", "nfs4",
        "overlay", "squashfs", "tmpfs", "vfat", "virtiofs", "xfs",
    ];
    let mut mounts = Mounts::default();
    for line in text.lines() {
        let mut halves = line.splitn(2, " - ");
        let (Some(first), Some(second)) = (halves.next(), halves.next()) else {
            continue;
        };
        let Some(point) = first.split(' ').nth(4) else {
            continue;
        };
        let point = PathBuf::from(unescape(point));
        if point == Path::new("/") {
            continue;
        }
        let kind = second.split(' ').next().unwrap_or("");
        if REAL.contains(&kind) || kind == "zfs" || kind == "ramfs" {
            mounts.real.push(point);
        } else {
            mounts.pseudo.push(point);
        }
    }
    for list in [&mut mounts.real, &mut mounts.pseudo] {
        list.sort();
        list.dedup();
    }
    mounts
}

/// `\040` and its like, as the kernel writes blanks in mountinfo.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                at += 4;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Everybody's home directory that may lie below a shown path.
#[must_use]
pub(crate) fn homes() -> Vec<PathBuf> {
    let mut homes = vec![PathBuf::from("/root")];
    homes.extend(
        std::env::var_os("HOME")
            .map(PathBuf::from)
            .filter(|home| home.is_absolute()),
    );
    homes.extend(
        list(Path::new("/home"))
            .into_iter()
            .map(|(name, _)| Path::new("/home").join(name)),
    );
    homes.sort();
    homes.dedup();
    homes
}

/// Who makes the caller's resource groups.
#[must_use]
pub(crate) fn keeper() -> Keeper {
    if !rustix::process::geteuid().is_root() {
        Keeper::Runtime
    } else if cgroup::systemd::booted() && !cgroup::systemd::is_users() {
        Keeper::Systemd
    } else {
        Keeper::Root
    }
}

/// The caller and the ids that are set aside for it; root's containers take floe's.
#[must_use]
pub(crate) fn caller() -> Caller {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let own_name = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2).is_some_and(|id| *id == uid.to_string()))
        .map_or(String::new(), |fields| fields[0].to_owned());
    let range = |path: &str, helper: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if uid == 0 {
            return ["floe", "containers", "root"]
                .iter()
                .find_map(|name| subordinate(&text, name, u32::MAX));
        }
        // Without the helper only the caller's own id can be mapped.
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|directory| directory.join(helper).is_file())
        });
        if found {
            subordinate(&text, &own_name, uid)
        } else {
            None
        }
    };
    Caller {
        uid,
        gid: rustix::process::getegid().as_raw(),
        subuids: range("/etc/subuid", "newuidmap"),
        subgids: range("/etc/subgid", "newgidmap"),
    }
}

/// The capabilities beyond which this process can give none.
#[must_use]
pub(crate) fn bounding_set() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

/// A device of the host: `SOURCE[:TARGET[:rwm]]`.
///
/// # Errors
/// There is no such device, or the access letters are wrong.
pub(crate) fn device(text: &str) -> Result<Device> {
    let mut parts = text.splitn(3, ':');
    let source = parts.next().unwrap_or_default();
    let (target, access) = match (parts.next(), parts.next()) {
        (None, _) => (source, "rwm"),
        (Some(access), None) if !access.starts_with('/') => (source, access),
        (Some(target), access) => (target, access.unwrap_or("rwm")),
    };
    if access.is_empty() || !access.bytes().all(|letter| b"rwm".contains(&letter)) {
        bail!("--device `{text}`: access is some of r, w, m");
    }
    if !target.starts_with('/') {
        bail!("--device `{text}`: the target is an absolute path");
    }
    let metadata =
        std::fs::metadata(source).with_context(|| format!("--device: look at `{source}`"))?;
    node(target, &metadata, access).with_context(|| format!("--device: `{source}` is not a device"))
}

fn node(path: &str, metadata: &std::fs::Metadata, access: &str) -> Option<Device> {
    let kind = metadata.file_type();
    let kind = if kind.is_char_device() {
        'c'
    } else if kind.is_block_device() {
        'b'
    } else {
        return None;
    };
    Some(Device {
        path: path.to_owned(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_owned(),
    })
}

/// All devices of the host, for a privileged container.
#[must_use]
pub(crate) fn all_devices() -> Vec<Device> {
    fn walk(directory: &Path, devices: &mut Vec<Device>) {
        for (name, entry) in list(directory) {
            let path = directory.join(&name);
            // The container's own terminals and memory are mounted there.
            if path == Path::new("/dev/pts") || path == Path::new("/dev/shm") {
                continue;
            }
            match entry {
                Entry::Directory => walk(&path, devices),
                Entry::Other => {
                    let metadata = std::fs::metadata(&path).ok();
                    let device = metadata.and_then(|m| node(path.to_str()?, &m, "rwm"));
                    devices.extend(device);
                }
                Entry::File | Entry::Link(_) => {}
            }
        }
    }
    const MADE_BY_RUNTIME: [&str; 8] = [
        "/dev/console",
        "/dev/full",
        "/dev/null",
        "/dev/ptmx",
        "/dev/random",
        "/dev/tty",
        "/dev/urandom",
        "/dev/zero",
    ];
    let mut devices = Vec::new();
    walk(Path::new("/dev"), &mut devices);
    devices.retain(|device| !MADE_BY_RUNTIME.contains(&device.path.as_str()));
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_real_or_not() {
        let text = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                    28 27 0:25 / /mnt/a\\040b ro shared:1 - tmpfs none ro\n\
                    29 27 0:26 / /net rw - autofs x rw\nbroken line\n";
        let mounts = parse_mounts(text);
        assert_eq!(mounts.real, [PathBuf::from("/mnt/a b")]);
        assert_eq!(
            mounts.pseudo,
            [PathBuf::from("/net"), PathBuf::from("/proc")]
        );
    }

    #[test]
    fn devices_are_named_with_target_and_access() {
        let null = device("/dev/null").unwrap();
        assert_eq!((null.kind, null.major, null.minor), ('c', 1, 3));
        assert_eq!(device("/dev/null:/dev/x:r").unwrap().path, "/dev/x");
        assert_eq!(device("/dev/null:rw").unwrap().access, "rw");
        for wrong in ["/dev/none", "/etc/passwd", "/dev/null:/x:z", "/dev/null:x"] {
            assert!(device(wrong).is_err(), "{wrong}");
        }
    }
}
