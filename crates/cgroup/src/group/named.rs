//! Groups that people name: `web/api`, below floe's own base in every hierarchy.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{DEFAULT_PARENT, Directory, Group, delegated};
use crate::controller::Controllers;
use crate::error::{Error, Result};
use crate::file;
use crate::layout::{Hierarchy, Layout};

/// The name of a group: parts with `/` between them. One that begins with `/` counts from the
/// mounts' roots, another from floe's base.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

/// The kernel's longest name of a directory; paths have a bound of their own.
const LONGEST_PART: usize = 255;
const LONGEST_NAME: usize = 2000;

impl Name {
    /// Understands a name. Each part begins with a letter, a digit or `_` and goes on with those,
    /// `.`, `-`, `@`, `:` and `+`; a dot is in the names of the kernel's files, which begin with
    /// their controller's name.
    ///
    /// # Errors
    /// Not such a name.
    pub fn parse(text: &str) -> Result<Self> {
        let relative = text.strip_prefix('/').unwrap_or(text);
        let part = |part: &str| {
            let first = part.bytes().next();
            first.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && part.len() <= LONGEST_PART
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_.-@:+".contains(&byte))
                && !is_files(part)
        };
        if relative.split('/').all(part) && text.len() <= LONGEST_NAME {
            return Ok(Self(text.to_owned()));
        }
        let cause = "not a group's name: letters, digits, `_`, then also `.`, `-`, `@`, `:`, `+`, \
                     with `/` between groups";
        Err(Error::text("name", text, cause))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The group above, if it has a name too.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.rsplit_once('/')?;
        (!parent.is_empty()).then(|| Self(parent.to_owned()))
    }

    /// A group below this one.
    #[must_use]
    pub fn child(&self, part: &str) -> Self {
        Self(format!("{}/{part}", self.0))
    }

    /// Whether this group is somewhere below the other.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        let rest = self.0.strip_prefix(other.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Whether the kernel may have a file of this name in a group: `memory.max`, `cgroup.procs`.
fn is_files(part: &str) -> bool {
    let bare = ["tasks", "notify_on_release", "release_agent"];
    let prefix = part.split_once('.').map_or("", |(prefix, _)| prefix);
    bare.contains(&part)
        || ["cgroup", "irq"].contains(&prefix)
        || crate::Controller::named(prefix).is_some()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Group {
    /// The group of a name, in every hierarchy in which the caller may have groups. Makes
    /// nothing; see [`Group::create`].
    #[must_use]
    pub fn named(layout: &Layout, name: &Name, rootless: bool) -> Self {
        let directory = |hierarchy: &Hierarchy| {
            let path = match name.as_str() {
                path if path.starts_with('/') => hierarchy.directory(Path::new(path)),
                relative => crate::layout::below(&base(hierarchy, rootless)?, Path::new(relative)),
            };
            Some(Directory::new(hierarchy, path))
        };
        let writable = |hierarchy: &&Hierarchy| !hierarchy.read_only;
        let v1 = layout.v1.iter().filter(writable).filter_map(directory);
        Self {
            v1: v1.collect(),
            v2: layout.v2.iter().filter(writable).find_map(directory),
            rootless,
            fresh: false,
        }
    }

    /// The group of a name as far as it exists, with the controllers that reach it; `None` if it
    /// exists nowhere.
    #[must_use]
    pub fn find(layout: &Layout, name: &Name, rootless: bool) -> Option<Self> {
        let mut group = Self::named(layout, name, rootless);
        let exists = |directory: &Directory| directory.path.is_dir();
        group.v1.retain(exists);
        group.v2 = group.v2.filter(exists);
        if let Some(v2) = &mut group.v2 {
            let list = file::read(&v2.path.join("cgroup.controllers")).unwrap_or_default();
            v2.controllers = Controllers::of(list.split_ascii_whitespace());
        }
        (!group.v1.is_empty() || group.v2.is_some()).then_some(group)
    }

    /// The names of the groups directly below one, or below floe's base, in order.
    #[must_use]
    pub fn children(layout: &Layout, name: Option<&Name>, rootless: bool) -> Vec<Name> {
        let directory = |hierarchy: &Hierarchy| match name {
            Some(name) if name.as_str().starts_with('/') => {
                Some(hierarchy.directory(Path::new(name.as_str())))
            }
            Some(name) => Some(base(hierarchy, rootless)?.join(name.as_str())),
            None => base(hierarchy, rootless),
        };
        let mut found = BTreeSet::new();
        let directories = layout.v1.iter().chain(&layout.v2).filter_map(directory);
        for entry in directories.filter_map(|path| std::fs::read_dir(path).ok()) {
            for entry in entry.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if let Ok(part) = entry.file_name().into_string() {
                    found.insert(name.map_or(Name(part.clone()), |name| name.child(&part)));
                }
            }
        }
        found.into_iter().collect()
    }

    /// The path from the mount's root in the hierarchy that speaks for the group.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        let speaker = self.telling()?;
        let directory = self.directories().find(|found| found.path == speaker)?;
        let below = speaker.strip_prefix(&directory.base).ok()?;
        Some(Path::new("/").join(below))
    }

    /// A number that this group has and no group of the same name had before it.
    #[must_use]
    pub fn identity(&self) -> Option<u64> {
        Some(std::fs::metadata(self.telling()?).ok()?.ino())
    }
}

/// The directory below which groups with relative names are. An ordinary user's is found again
/// from wherever the user's shell has moved: the base that is there already, looked for from the
/// top of what is delegated, before one is begun.
fn base(hierarchy: &Hierarchy, rootless: bool) -> Option<PathBuf> {
    if !rootless {
        return Some(hierarchy.mount_point.join(DEFAULT_PARENT));
    }
    let own = hierarchy.own.as_deref()?;
    let may_write = |directory: &Path| {
        directory.starts_with(&hierarchy.mount_point)
            && access(directory.join("cgroup.procs"), Access::WRITE_OK).is_ok()
            && access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
    };
    let mut delegated_to_us: Vec<&Path> = own.ancestors().take_while(|at| may_write(at)).collect();
    delegated_to_us.reverse();
    let bases = delegated_to_us.iter().map(|at| at.join(DEFAULT_PARENT));
    bases
        .clone()
        .find(|base| base.is_dir())
        .or_else(|| Some(delegated(hierarchy)?.join(DEFAULT_PARENT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_base_or_meet_a_file() {
        for text in [
            "web",
            "web/api",
            "/floe/web",
            "a.b/c-d",
            "user@1000.service",
            "_x",
            "1",
        ] {
            assert_eq!(Name::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            "/",
            "web/",
            "/web/",
            "a//b",
            ".",
            "..",
            "a/../b",
            ".a",
            "-a",
            "a b",
            "a\n",
            "ä",
            "tasks",
            "a/cgroup.procs",
            "memory.max",
            "cpu.web",
        ] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
        assert!(Name::parse(&"a".repeat(256)).is_err());
    }

    #[test]
    fn names_know_their_place() {
        let name = |text: &str| Name::parse(text).unwrap();
        assert_eq!(name("a/b").parent(), Some(name("a")));
        assert_eq!(name("a").parent(), None);
        assert_eq!(name("/a").parent(), None);
        assert!(name("a/b/c").is_below(&name("a")) && !name("ab").is_below(&name("a")));
        assert!(!name("a").is_below(&name("a")));
    }

    const MOUNTS: &str = "\
31 23 0:28 / /cg/memory rw - cgroup cgroup rw,memory
33 23 0:30 / /cg/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn a_users_groups_are_found_again_from_below_them() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("cg/unified/user");
        for directory in ["shell", "floe/jobs/one"] {
            std::fs::create_dir_all(top.join(directory)).unwrap();
        }
        for directory in ["", "shell", "floe", "floe/jobs", "floe/jobs/one"] {
            std::fs::write(top.join(directory).join("cgroup.procs"), "").unwrap();
        }
        for own in ["/user/shell", "/user/floe/jobs/one", "/user"] {
            let own = format!("4:memory:/\n0::{own}\n");
            let layout = Layout::from_texts(MOUNTS.as_bytes(), own.as_bytes(), root.path());
            let group = Group::named(&layout, &Name::parse("jobs/two").unwrap(), true);
            let paths = group.paths();
            assert_eq!(paths[""], top.join("floe/jobs/two"), "{own}");
            // Nothing of the v1 hierarchy is the user's.
            assert_eq!(paths.len(), 1);
            let names = Group::children(&layout, None, true);
            assert_eq!(names, [Name::parse("jobs").unwrap()]);
        }
    }
}
