//! `linux.namespaces` to what is made and what is joined.

use std::path::PathBuf;

use sys::namespace::Kind;

use crate::error::{Error, Result};
use crate::spec;

/// The namespaces of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// New ones.
    pub(crate) new: Vec<Kind>,
    /// Existing ones by their files, in the order in which to join them.
    pub(crate) join: Vec<(Kind, PathBuf)>,
}

impl Namespaces {
    /// Decides from the configuration.
    pub(crate) fn plan(list: &[spec::Namespace]) -> Result<Namespaces> {
        let mut plan = Namespaces::default();
        for kind in Kind::ALL {
            let mut of_kind = list.iter().filter(|entry| kind_of(entry.kind) == kind);
            match (of_kind.next(), of_kind.next()) {
                (_, Some(_)) => {
                    let text = format!("linux.namespaces: `{}` is listed twice", kind.file());
                    return Err(Error::plain(text));
                }
                (
                    Some(spec::Namespace {
                        path: Some(path), ..
                    }),
                    _,
                ) => {
                    plan.join.push((kind, path.clone()));
                }
                (Some(_), _) => plan.new.push(kind),
                (None, _) => {}
            }
        }
        Ok(plan)
    }

    /// Whether the container makes a namespace of this kind.
    pub(crate) fn makes(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// Whether the container joins an existing namespace of this kind.
    pub(crate) fn joins(&self, kind: Kind) -> bool {
        self.join.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether the container's namespace of this kind is not the runtime's.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.makes(kind) || self.joins(kind)
    }

    /// The flags of the clone that makes the first process.
    ///
    /// Two kinds come later, from inside: the cgroup namespace, whose root must be the container's
    /// own group in every hierarchy, and the time namespace, whose offsets can only be set while
    /// nobody lives in it.
    pub(crate) fn clone_flags(&self) -> u64 {
        let later = [Kind::Cgroup, Kind::Time];
        let now = self.new.iter().filter(|kind| !later.contains(kind));
        now.fold(0, |flags, kind| flags | kind.flag())
    }

    /// Every namespace that is the container's own, as setns(2) flags, for those who enter it.
    pub(crate) fn all_flags(&self) -> u64 {
        let joined = self.join.iter().map(|(kind, _)| kind);
        self.new
            .iter()
            .chain(joined)
            .fold(0, |flags, kind| flags | kind.flag())
    }
}

fn kind_of(kind: spec::NamespaceKind) -> Kind {
    match kind {
        spec::NamespaceKind::Pid => Kind::Pid,
        spec::NamespaceKind::Network => Kind::Network,
        spec::NamespaceKind::Mount => Kind::Mount,
        spec::NamespaceKind::Ipc => Kind::Ipc,
        spec::NamespaceKind::Uts => Kind::Uts,
        spec::NamespaceKind::User => Kind::User,
        spec::NamespaceKind::Cgroup => Kind::Cgroup,
        spec::NamespaceKind::Time => Kind::Time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: spec::NamespaceKind, path: Option<&str>) -> spec::Namespace {
        spec::Namespace {
            kind,
            path: path.map(PathBuf::from),
        }
    }

    #[test]
    fn user_is_joined_first_and_mount_last() {
        use spec::NamespaceKind::{Mount, Network, User};
        let list = [Mount, Network, User].map(|kind| entry(kind, Some("/x")));
        let kinds: Vec<Kind> = Namespaces::plan(&list)
            .unwrap()
            .join
            .into_iter()
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(kinds, [Kind::User, Kind::Network, Kind::Mount]);
    }

    #[test]
    fn cgroup_and_time_are_not_made_by_clone() {
        use spec::NamespaceKind::{Cgroup, Mount, Time};
        let plan = Namespaces::plan(&[Mount, Cgroup, Time].map(|kind| entry(kind, None))).unwrap();
        assert_eq!(plan.clone_flags(), Kind::Mount.flag());
        assert!(plan.makes(Kind::Cgroup) && plan.makes(Kind::Time));
    }

    #[test]
    fn twice_is_refused() {
        use spec::NamespaceKind::Mount;
        assert!(Namespaces::plan(&[entry(Mount, None), entry(Mount, None)]).is_err());
    }
}
