//! Where a container's resource group lies, and who makes it. Pure.

use anyhow::{Result, bail};

/// Who makes the groups where the user names no place for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// systemd is the service manager and the caller its root.
    Systemd,
    /// Root on a host that nobody manages.
    Root,
    /// Others leave it to the runtime, which knows what is delegated to the caller.
    Runtime,
}

/// The runtime's `cgroupsPath`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// `None`: the runtime decides.
    pub(crate) path: Option<String>,
    /// The path is `slice:prefix:name`, for systemd to make.
    pub(crate) systemd: bool,
}

/// A path of the user's is followed to the letter: an absolute one is made as it is on every host,
/// a slice is systemd's.
///
/// # Errors
/// The parent is neither, or a slice where systemd does not run.
pub(crate) fn group(parent: Option<&str>, id: &str, keeper: Keeper) -> Result<Group> {
    let scope = |slice: &str| Group {
        path: Some(format!("{slice}:floe:{id}")),
        systemd: true,
    };
    let below = |parent: &str| Group {
        path: Some(format!("{}/{id}", parent.trim_end_matches('/'))),
        systemd: false,
    };
    match (parent, keeper) {
        (Some(parent), _)
            if parent.starts_with('/') && !parent.split('/').any(|part| part == "..") =>
        {
            Ok(below(parent))
        }
        (Some(parent), Keeper::Systemd) if is_slice(parent) => Ok(scope(parent)),
        (Some(parent), Keeper::Root | Keeper::Runtime) if is_slice(parent) => {
            bail!("--cgroup-parent `{parent}`: a slice needs root and systemd as service manager")
        }
        (Some(parent), _) => {
            bail!("--cgroup-parent `{parent}`: an absolute path without `..`, or a slice")
        }
        (None, Keeper::Systemd) => Ok(scope("system.slice")),
        (None, Keeper::Root) => Ok(below("/floe")),
        (None, Keeper::Runtime) => Ok(Group::default()),
    }
}

/// The runtime says what else is wrong with the name.
fn is_slice(parent: &str) -> bool {
    parent.ends_with(".slice") && !parent.contains(['/', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_go_where_the_host_keeps_them() {
        let (systemd, root, user) = (Keeper::Systemd, Keeper::Root, Keeper::Runtime);
        for (parent, keeper, path, by_systemd) in [
            (None, systemd, Some("system.slice:floe:x"), true),
            (None, root, Some("/floe/x"), false),
            (None, user, None, false),
            (Some("/a/b/"), systemd, Some("/a/b/x"), false),
            (Some("/a"), user, Some("/a/x"), false),
            (Some("a-b.slice"), systemd, Some("a-b.slice:floe:x"), true),
        ] {
            let group = group(parent, "x", keeper).unwrap();
            assert_eq!(
                (group.path.as_deref(), group.systemd),
                (path, by_systemd),
                "{parent:?}"
            );
        }
    }

    #[test]
    fn other_parents_are_refused() {
        for (parent, keeper) in [
            ("a.slice", Keeper::Root),
            ("a.slice", Keeper::Runtime),
            ("a", Keeper::Systemd),
            ("/a/../b", Keeper::Root),
            ("a/b.slice", Keeper::Systemd),
            ("a:b.slice", Keeper::Systemd),
        ] {
            group(Some(parent), "x", keeper).unwrap_err();
        }
    }
}
