//! `mounts` of the configuration to steps.

use std::path::{Path, PathBuf};

use sys::mount::{Attributes, attribute};

use crate::error::{Error, Result};
use crate::spec;

/// One mount, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountStep {
    /// Absolute, inside the container; links in it are not resolved yet.
    pub(crate) destination: PathBuf,
    pub(crate) what: What,
    /// For the mount itself.
    pub(crate) attributes: Attributes,
    /// For the mount and those below it (`rro`, …; Linux 5.12).
    pub(crate) tree_attributes: Attributes,
    /// Copy what the destination held into the new tmpfs.
    pub(crate) copy_up: bool,
    /// Read-only once everything is made: device nodes, the terminal and the places of other mounts
    /// go into a tmpfs of the container's own after it is mounted.
    pub(crate) late_read_only: bool,
    pub(crate) id_map: Option<IdMap>,
}

/// Whose mappings a mount gets, and whether those below it get them too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap {
    pub(crate) uids: Vec<spec::IdMapping>,
    pub(crate) gids: Vec<spec::IdMapping>,
    pub(crate) scope: sys::mount::Scope,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A copy of existing mounts.
    Bind {
        source: PathBuf,
        scope: sys::mount::Scope,
    },
    /// A new instance of a file system.
    Filesystem {
        kind: String,
        source: String,
        parameters: Vec<Parameter>,
    },
    /// The container's view of its groups, whatever the host's layout is.
    Cgroup,
}

/// A parameter of a file system, for fsconfig(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parameter {
    Flag(String),
    Value(String, String),
}

/// What one option word means.
enum Effect {
    Nothing,
    Set(u64),
    Clear(u64),
    /// Replaces the access-time mode.
    Atime(u64),
    Superblock(&'static str),
    Propagation(u64),
}

use Effect::{Atime, Clear, Nothing, Propagation, Set, Superblock};

/// The options of mount(8) that name attributes of one mount. With an `r` before them they hold
/// for the tree (config.md, "Linux mount options").
const ATTRIBUTES: &[(&str, Effect)] = &[
    ("ro", Set(attribute::READ_ONLY)),
    ("rw", Clear(attribute::READ_ONLY)),
    ("nosuid", Set(attribute::NO_SUID)),
    ("suid", Clear(attribute::NO_SUID)),
    ("nodev", Set(attribute::NO_DEV)),
    ("dev", Clear(attribute::NO_DEV)),
    ("noexec", Set(attribute::NO_EXEC)),
    ("exec", Clear(attribute::NO_EXEC)),
    ("nosymfollow", Set(attribute::NO_SYMFOLLOW)),
    ("symfollow", Clear(attribute::NO_SYMFOLLOW)),
    ("nodiratime", Set(attribute::NO_DIR_ATIME)),
    ("diratime", Clear(attribute::NO_DIR_ATIME)),
    ("noatime", Atime(attribute::NO_ATIME)),
    ("atime", Atime(attribute::REL_ATIME)),
    ("relatime", Atime(attribute::REL_ATIME)),
    ("norelatime", Atime(attribute::STRICT_ATIME)),
    ("strictatime", Atime(attribute::STRICT_ATIME)),
    ("nostrictatime", Atime(attribute::REL_ATIME)),
];

/// Options with no recursive form.
const OTHERS: &[(&str, Effect)] = &[
    ("defaults", Nothing),
    ("bind", Nothing),
    ("rbind", Nothing),
    ("remount", Nothing),
    ("idmap", Nothing),
    ("ridmap", Nothing),
    ("tmpcopyup", Nothing),
    ("loud", Nothing),
    ("silent", Nothing),
    ("iversion", Nothing),
    ("noiversion", Nothing),
    ("nofail", Nothing),
    ("async", Nothing),
    ("nomand", Nothing),
    ("nolazytime", Nothing),
    ("acl", Nothing),
    ("sync", Superblock("sync")),
    ("dirsync", Superblock("dirsync")),
    ("mand", Superblock("mand")),
    ("lazytime", Superblock("lazytime")),
    ("private", Propagation(MS_PRIVATE)),
    ("rprivate", Propagation(MS_PRIVATE | MS_REC)),
    ("slave", Propagation(MS_SLAVE)),
    ("rslave", Propagation(MS_SLAVE | MS_REC)),
    ("shared", Propagation(MS_SHARED)),
    ("rshared", Propagation(MS_SHARED | MS_REC)),
    ("unbindable", Propagation(MS_UNBINDABLE)),
    ("runbindable", Propagation(MS_UNBINDABLE | MS_REC)),
];

pub(crate) const MS_REC: u64 = 0x4000;
pub(crate) const MS_UNBINDABLE: u64 = 0x2_0000;
pub(crate) const MS_PRIVATE: u64 = 0x4_0000;
pub(crate) const MS_SLAVE: u64 = 0x8_0000;
pub(crate) const MS_SHARED: u64 = 0x10_0000;

/// The names of every mount option that is understood, for `features`.
#[must_use]
pub fn known_options() -> Vec<String> {
    let plain = ATTRIBUTES
        .iter()
        .chain(OTHERS)
        .map(|(name, _)| (*name).to_owned());
    let recursive = ATTRIBUTES.iter().map(|(name, _)| format!("r{name}"));
    let mut names: Vec<String> = plain.chain(recursive).collect();
    names.sort();
    names
}

/// Decides all mounts of a configuration.
pub(crate) fn plan(spec: &spec::Spec, bundle: &Path) -> Result<Vec<MountStep>> {
    let steps = spec.mounts.iter().enumerate().map(|(index, mount)| {
        step(mount, bundle).map_err(|cause| Error::new(format!("mounts[{index}]"), cause))
    });
    steps.collect()
}

fn step(mount: &spec::Mount, bundle: &Path) -> Result<MountStep> {
    let kind = mount.kind.as_deref().unwrap_or_default();
    let has = |word: &str| mount.options.iter().any(|option| option == word);
    let bind = kind == "bind" || kind == "rbind" || has("bind") || has("rbind");
    let scope = if kind == "rbind" || has("rbind") {
        sys::mount::Scope::Tree
    } else {
        sys::mount::Scope::One
    };
    let mut step = MountStep {
        destination: Path::new("/").join(&mount.destination),
        what: What::Cgroup,
        attributes: Attributes::default(),
        tree_attributes: Attributes::default(),
        copy_up: has("tmpcopyup"),
        late_read_only: false,
        id_map: id_map(mount, has("ridmap")),
    };
    let mut parameters = Vec::new();
    for option in &mount.options {
        apply(option, &mut step, &mut parameters);
    }
    step.what = match (bind, kind) {
        (true, _) => What::Bind {
            source: bundle.join(required_source(mount)?),
            scope,
        },
        (false, "cgroup" | "cgroup2") => What::Cgroup,
        (false, "") => return Err(Error::plain("`type` is missing and `options` lack `bind`")),
        (false, kind) => What::Filesystem {
            kind: kind.to_owned(),
            source: mount.source.clone().unwrap_or_else(|| kind.to_owned()),
            parameters,
        },
    };
    if !bind && kind == "tmpfs" {
        defer_read_only(&mut step);
    }
    Ok(step)
}

/// Puts read-only off to the end.
fn defer_read_only(step: &mut MountStep) {
    for attributes in [&mut step.attributes, &mut step.tree_attributes] {
        step.late_read_only |= attributes.set & attribute::READ_ONLY != 0;
        attributes.set &= !attribute::READ_ONLY;
    }
}

fn required_source(mount: &spec::Mount) -> Result<&str> {
    let source = mount.source.as_deref().filter(|source| !source.is_empty());
    source.ok_or_else(|| Error::plain("`source` of a bind mount is missing"))
}

fn id_map(mount: &spec::Mount, recursive: bool) -> Option<IdMap> {
    let asked = mount
        .options
        .iter()
        .any(|option| option == "idmap" || option == "ridmap");
    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let scope = if recursive {
        sys::mount::Scope::Tree
    } else {
        sys::mount::Scope::One
    };
    (asked || mapped).then(|| IdMap {
        uids: mount.uid_mappings.clone(),
        gids: mount.gid_mappings.clone(),
        scope,
    })
}

/// Adds one option word's effect. Words that nobody knows belong to the file system; for a bind
/// mount, which has none of its own, they mean nothing.
fn apply(option: &str, step: &mut MountStep, parameters: &mut Vec<Parameter>) {
    let find = |table: &'static [(&str, Effect)], word: &str| {
        table
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, effect)| effect)
    };
    if let Some(effect) = find(ATTRIBUTES, option) {
        change(&mut step.attributes, effect);
    } else if let Some(effect) = find(OTHERS, option) {
        match effect {
            Superblock(word) => parameters.push(Parameter::Flag((*word).to_owned())),
            Propagation(bits) if bits & MS_REC != 0 => {
                step.tree_attributes.propagation = bits & !MS_REC;
            }
            Propagation(bits) => step.attributes.propagation = *bits,
            Nothing | Set(_) | Clear(_) | Atime(_) => {}
        }
    } else if let Some(effect) = option
        .strip_prefix('r')
        .and_then(|word| find(ATTRIBUTES, word))
    {
        change(&mut step.tree_attributes, effect);
    } else if let Some((key, value)) = option.split_once('=') {
        parameters.push(Parameter::Value(key.to_owned(), value.to_owned()));
    } else if !option.is_empty() {
        parameters.push(Parameter::Flag(option.to_owned()));
    }
}

fn change(attributes: &mut Attributes, effect: &Effect) {
    match effect {
        Set(bits) => {
            attributes.set |= bits;
            attributes.clear &= !bits;
        }
        Clear(bits) => {
            attributes.clear |= bits;
            attributes.set &= !bits;
        }
        Atime(mode) => {
            attributes.clear |= attribute::ATIME_FIELD;
            attributes.set = (attributes.set & !attribute::ATIME_FIELD) | mode;
        }
        Nothing | Superblock(_) | Propagation(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(kind: &str, options: &[&str]) -> MountStep {
        let mount = spec::Mount {
            destination: "/x".into(),
            kind: Some(kind.into()),
            source: Some("src".into()),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..spec::Mount::default()
        };
        step(&mount, Path::new("/bundle")).unwrap()
    }

    #[test]
    fn the_last_word_wins() {
        let rows: &[(&[&str], u64, u64)] = &[
            (&["ro"], attribute::READ_ONLY, 0),
            (&["rw", "ro"], attribute::READ_ONLY, 0),
            (&["ro", "rw"], 0, attribute::READ_ONLY),
            (
                &["nosuid", "nodev"],
                attribute::NO_SUID | attribute::NO_DEV,
                0,
            ),
            (&["noatime"], attribute::NO_ATIME, attribute::ATIME_FIELD),
            (&["noatime", "relatime"], 0, attribute::ATIME_FIELD),
        ];
        for (options, set, clear) in rows {
            let step = planned("bind", options);
            assert_eq!(
                (step.attributes.set, step.attributes.clear),
                (*set, *clear),
                "{options:?}"
            );
        }
    }

    #[test]
    fn recursive_words_go_to_the_tree() {
        let step = planned("bind", &["rbind", "rro", "rslave", "rnoatime"]);
        assert!(step.attributes.is_empty());
        assert_eq!(
            step.tree_attributes.set,
            attribute::READ_ONLY | attribute::NO_ATIME
        );
        assert_eq!(step.tree_attributes.propagation, MS_SLAVE);
        let source = PathBuf::from("/bundle/src");
        assert_eq!(
            step.what,
            What::Bind {
                source,
                scope: sys::mount::Scope::Tree
            }
        );
    }

    #[test]
    fn a_tmpfs_is_read_only_late() {
        for (options, late) in [(["ro"], true), (["rro"], true), (["rw"], false)] {
            let step = planned("tmpfs", &options);
            let now = (step.attributes.set | step.tree_attributes.set) & attribute::READ_ONLY;
            assert_eq!((step.late_read_only, now), (late, 0), "{options:?}");
        }
    }

    #[test]
    fn the_rest_are_parameters() {
        let step = planned("tmpfs", &["mode=755", "size=64k", "noswap"]);
        let expected = [
            Parameter::Value("mode".into(), "755".into()),
            Parameter::Value("size".into(), "64k".into()),
            Parameter::Flag("noswap".into()),
        ];
        assert!(matches!(step.what, What::Filesystem { parameters, .. } if parameters == expected));
    }

    #[test]
    fn a_mount_without_kind_is_refused() {
        let mount = spec::Mount {
            destination: "/x".into(),
            ..spec::Mount::default()
        };
        let spec = spec::Spec {
            mounts: vec![mount],
            ..spec::Spec::default()
        };
        let error = plan(&spec, Path::new("/")).unwrap_err().to_string();
        assert_eq!(
            error,
            "mounts[0]: `type` is missing and `options` lack `bind`"
        );
    }
}
