//! The names of units, from the path that an engine gives.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// A scope, or a slice if the engine's name says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    slice: String,
    name: String,
}

impl Unit {
    /// From `slice:prefix:name`, or the defaults for a container of this id: the scope
    /// `floe-ID.scope` in `system.slice`, a user's in `user.slice`.
    ///
    /// # Errors
    /// The path has another form, or parts of it are no unit names.
    pub fn parse(path: Option<&str>, id: &str, user: bool) -> Result<Self> {
        let path = path.filter(|path| !path.is_empty());
        let parts: Vec<&str> = match path {
            None => vec!["", "floe", id],
            Some(path) => path.split(':').collect(),
        };
        let &[slice, prefix, name] = parts.as_slice() else {
            let cause = "expected slice:prefix:name, as systemd manages the groups";
            return Err(Error::text(
                "read cgroupsPath",
                path.unwrap_or_default(),
                cause,
            ));
        };
        let slice = match slice {
            "" if user => "user.slice",
            "" => "system.slice",
            slice => slice,
        };
        let name = match (prefix, name) {
            (_, slice) if slice.ends_with(".slice") => slice.to_owned(),
            ("", name) => format!("{name}.scope"),
            (prefix, name) => format!("{prefix}-{name}.scope"),
        };
        let unit = Self {
            slice: slice.to_owned(),
            name,
        };
        slice_path(&unit.slice)?;
        if unit.is_slice() {
            slice_path(&unit.name)?;
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if unit.name.len() > 255 || !unit.name.bytes().all(fits) {
            return Err(Error::text(
                "read cgroupsPath",
                unit.name,
                "not a unit name",
            ));
        }
        Ok(unit)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn slice(&self) -> &str {
        &self.slice
    }

    pub(super) fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// The unit's group, where the manager's own is `manager`.
    pub(super) fn group_below(&self, manager: &str) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.push(manager.trim_start_matches('/'));
        // Checked when the unit was made.
        if self.is_slice() {
            path.push(slice_path(&self.name).unwrap_or_default());
        } else {
            path.push(slice_path(&self.slice).unwrap_or_default());
            path.push(&self.name);
        }
        path
    }
}

/// A slice's name holds its ancestors': `a-b.slice` lies in `a.slice`. `-.slice` is the root.
fn slice_path(slice: &str) -> Result<PathBuf> {
    let fails = || Error::text("read slice", slice, "not a slice's name");
    let stem = slice.strip_suffix(".slice").ok_or_else(fails)?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Ok(path);
    }
    let mut name = String::new();
    for part in stem.split('-') {
        if part.is_empty() || part.contains(['/', '\0']) {
            return Err(fails());
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push(format!("{name}.slice"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn paths_name_units_and_their_groups() {
        // (path, user, manager's group, slice, unit, group)
        for (path, user, manager, slice, name, group) in [
            (
                None,
                false,
                "/",
                "system.slice",
                "floe-web.scope",
                "/system.slice/floe-web.scope",
            ),
            (
                Some("system.slice:docker:1f"),
                false,
                "",
                "system.slice",
                "docker-1f.scope",
                "/system.slice/docker-1f.scope",
            ),
            (
                Some("kubepods-burstable-pod1.slice:cri-containerd:x"),
                false,
                "/",
                "kubepods-burstable-pod1.slice",
                "cri-containerd-x.scope",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/\
                 cri-containerd-x.scope",
            ),
            (
                Some("-.slice::x"),
                false,
                "/",
                "-.slice",
                "x.scope",
                "/x.scope",
            ),
            (
                Some("a.slice:p:b-c.slice"),
                false,
                "/",
                "a.slice",
                "b-c.slice",
                "/b.slice/b-c.slice",
            ),
            (
                Some(":libpod:x"),
                true,
                "/user.slice/user-1.slice/user@1.service",
                "user.slice",
                "libpod-x.scope",
                "/user.slice/user-1.slice/user@1.service/user.slice/libpod-x.scope",
            ),
        ] {
            let unit = Unit::parse(path, "web", user).unwrap();
            assert_eq!((unit.slice(), unit.name()), (slice, name), "{path:?}");
            assert_eq!(unit.group_below(manager), Path::new(group), "{path:?}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "/floe/x",
            "a:b",
            "a.slice:b:c:d",
            "a:b:c",
            "a--b.slice:p:x",
            "../a.slice:p:x",
            "a.slice:p:../x",
            "a.slice:p:x\0",
            "a.slice:p:x y",
        ] {
            Unit::parse(Some(path), "web", false).unwrap_err();
        }
    }
}
