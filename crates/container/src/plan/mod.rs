//! Decisions: from a configuration to what will be done, without doing any of it.

pub(crate) mod device;
pub(crate) mod mount;
pub(crate) mod namespace;
pub(crate) mod process;
pub(crate) mod resources;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::spec;

/// The annotation that asks for a group below the one with the limits.
pub const INNER_GROUP: &str = "org.floe.cgroup.inner";

/// How `create` was called.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Chroot instead of pivot_root, for a root file system on initramfs.
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Descriptors from 3 on that the process inherits.
    pub preserve_fds: u32,
    /// Groups are made by systemd; `cgroupsPath` is `slice:prefix:name`.
    pub systemd_cgroup: bool,
}

/// Everything that is decided about a container before anything is made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) id: ContainerId,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) spec: spec::Spec,
    pub(crate) options: Options,
    pub(crate) namespaces: namespace::Namespaces,
    pub(crate) mounts: Vec<mount::MountStep>,
    pub(crate) devices: device::Devices,
    pub(crate) process: process::Plan,
}

impl Plan {
    /// Decides everything that needs no look at the kernel.
    ///
    /// # Errors
    /// The configuration asks for something that cannot be; the error names the field.
    pub(crate) fn new(
        id: ContainerId,
        bundle: &Path,
        spec: spec::Spec,
        options: Options,
    ) -> Result<Plan> {
        let root = spec
            .root
            .as_ref()
            .ok_or_else(|| Error::plain("config.json: root is missing"))?;
        let mut process_plan = match &spec.process {
            Some(process) => process::Plan::new(process, &options, std::env::vars_os())?,
            None => process::Plan::nothing(),
        };
        let mut mounts = mount::plan(&spec, bundle)?;
        if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
            mounts.extend(process_plan.pass_notify_socket(Path::new(&socket)));
        }
        let linux = spec.linux.clone().unwrap_or_default();
        Ok(Plan {
            id,
            bundle: bundle.to_owned(),
            rootfs: bundle.join(&root.path),
            namespaces: namespace::Namespaces::plan(&linux.namespaces)?,
            mounts,
            devices: device::Devices::plan(&linux, &spec.mounts)?,
            process: process_plan,
            options,
            spec,
        })
    }

    /// The `linux` object; an absent one is an empty one.
    pub(crate) fn linux(&self) -> std::borrow::Cow<'_, spec::Linux> {
        self.spec.linux.as_ref().map_or_else(
            || std::borrow::Cow::Owned(spec::Linux::default()),
            std::borrow::Cow::Borrowed,
        )
    }

    /// Whether the container's processes go in a group below the one with its limits, which is then
    /// the root of its cgroup namespace: so it cannot change its own limits, and may still divide
    /// what it has.
    pub(crate) fn inner_group(&self) -> bool {
        self.spec
            .annotations
            .get(INNER_GROUP)
            .is_some_and(|value| value == "true")
    }

    /// Whether the process runs in a user namespace that is not the runtime's.
    pub(crate) fn user_namespace(&self) -> bool {
        self.namespaces.has(sys::namespace::Kind::User)
    }
}
