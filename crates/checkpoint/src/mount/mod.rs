//! Mounts of a namespace: which there are (dump), in which order they can be made again (plan), and
//! making them (restore).

pub(crate) mod dump;
pub(crate) mod plan;
pub(crate) mod restore;
pub(crate) mod table;
pub(crate) mod tmpfs;

use crate::image::namespace::{Fstype, MntEntry};

/// File systems that a restore can make itself, with their names.
const KNOWN: &[(Fstype, &str)] = &[
    (Fstype::Proc, "proc"),
    (Fstype::Sysfs, "sysfs"),
    (Fstype::Devtmpfs, "devtmpfs"),
    (Fstype::BinfmtMisc, "binfmt_misc"),
    (Fstype::Tmpfs, "tmpfs"),
    (Fstype::Devpts, "devpts"),
    (Fstype::Pstore, "pstore"),
    (Fstype::Securityfs, "securityfs"),
    (Fstype::Fusectl, "fusectl"),
    (Fstype::Debugfs, "debugfs"),
    (Fstype::Cgroup, "cgroup"),
    (Fstype::Mqueue, "mqueue"),
    (Fstype::Overlayfs, "overlay"),
    (Fstype::Tracefs, "tracefs"),
    (Fstype::Cgroup2, "cgroup2"),
];

/// The number of a file system's type in the images.
pub(crate) fn code_of(name: &str) -> Fstype {
    let known = KNOWN.iter().find(|(_, known)| *known == name);
    known.map_or(Fstype::Unsupported, |(code, _)| *code)
}

/// The type's name, if a restore can make such a file system.
pub(crate) fn type_of(entry: &MntEntry) -> Option<&str> {
    let code = Fstype::try_from(entry.fstype as i32).unwrap_or(Fstype::Unsupported);
    if code == Fstype::Auto {
        return entry.fsname.as_deref();
    }
    KNOWN
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, name)| *name)
}

/// `path` below `root`, without a leading slash; `None` if it is not below.
pub(crate) fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    if rest.is_empty() {
        return Some("");
    }
    rest.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_others() {
        for (root, path, expected) in [
            ("/", "/", Some("")),
            ("/", "/a/b", Some("a/b")),
            ("/a", "/a", Some("")),
            ("/a", "/a/b", Some("b")),
            ("/a", "/ab", None),
            ("/a/b", "/a", None),
        ] {
            assert_eq!(below(root, path), expected, "{root} {path}");
        }
    }
}
