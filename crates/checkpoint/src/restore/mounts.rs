//! The mount namespaces of a tree while its files are opened: paths lead somewhere else in each.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use super::load::{Plan, Task};
use super::tree::Forest;
use crate::error::Result;
use crate::inner;
use crate::namespace::{Kind, id_of};

/// Where the engine is, and where it can go.
#[derive(Debug, Default)]
pub(crate) struct MountNamespaces {
    /// By number in the images; the root's first. Empty for a tree with the engine's mounts.
    namespaces: Vec<(u32, OwnedFd)>,
    /// The position of the namespace of each mount.
    of_mount: HashMap<u32, usize>,
    current: usize,
}

impl MountNamespaces {
    /// The namespaces of `plan`, in its order.
    pub(crate) fn new(plan: &Plan, namespaces: Vec<OwnedFd>) -> Self {
        let mut of_mount = HashMap::new();
        let mut mounts = plan.mounts.iter();
        for (at, (_, count)) in plan.mount_tables.iter().enumerate() {
            of_mount.extend(mounts.by_ref().take(*count).map(|mount| (mount.mnt_id, at)));
        }
        let numbers = plan.mount_tables.iter().map(|(id, _)| *id);
        Self {
            namespaces: numbers.zip(namespaces).collect(),
            of_mount,
            current: 0,
        }
    }

    /// Goes where this mount is; `None`: where the root of the tree is. Returns which that is.
    pub(crate) fn visit(&mut self, mount: Option<i32>) -> Result<usize> {
        let known = mount.and_then(|mount| self.of_mount.get(&(mount as u32)));
        self.go(known.copied().unwrap_or(0))
    }

    /// Goes to a namespace that [`MountNamespaces::visit`] named.
    pub(crate) fn go(&mut self, at: usize) -> Result<usize> {
        if at != self.current
            && let Some((_, namespace)) = self.namespaces.get(at)
        {
            inner::visit_mounts(namespace)?;
            self.current = at;
        }
        Ok(at)
    }

    /// Sends the processes where they belong.
    pub(crate) fn distribute(&self, tasks: &[Task], forest: &Forest) -> Result<()> {
        for (task, stub) in tasks
            .iter()
            .zip(&forest.stubs)
            .filter(|(_, stub)| !stub.dead)
        {
            let id = id_of(&task.ids, Kind::Mount);
            let mut others = self.namespaces.iter().skip(1);
            if let Some((_, namespace)) = others.find(|(known, _)| *known == id) {
                let fd = namespace.as_raw_fd() as u64;
                let arguments = [fd, Kind::Mount.flag(), 0, 0, 0, 0];
                let what = "join a mount namespace in";
                stub.injector.call(what, libc::SYS_setns, arguments)?;
            }
        }
        Ok(())
    }
}
