//! `checkpoint`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use container::CgroupMode;

use super::criu;
use crate::flags::{Checkpoint, EmptyNamespace, Global, GroupMode, Images};
use crate::log::Log;

pub(crate) fn checkpoint(
    global: &Global,
    flags: &Checkpoint,
    log: &Log,
) -> anyhow::Result<ExitCode> {
    refuse(flags)?;
    let criu = criu::program(global);
    let request = container::Checkpoint {
        images: images(&flags.images, &criu),
        leave_running: flags.leave_running,
        tcp_skip_in_flight: flags.tcp_skip_in_flight,
        link_remap: flags.link_remap,
    };
    let id = super::id(&flags.id)?;
    let failed_hooks = container::checkpoint(&super::root(global), &id, &request)
        .with_context(|| format!("checkpoint `{id}`"))?;
    for error in failed_hooks {
        log.warn(&error.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// What `checkpoint` and `restore` have in common.
pub(super) fn images<'a>(flags: &'a Images, criu: &'a Path) -> container::Images<'a> {
    container::Images {
        criu,
        directory: &flags.image_path,
        work: flags.work_path.as_deref(),
        tcp_established: flags.tcp_established,
        external_unix_sockets: flags.ext_unix_sk,
        shell_job: flags.shell_job,
        file_locks: flags.file_locks,
        empty_network: flags.empty_ns.contains(&EmptyNamespace::Network),
        groups: flags.manage_cgroups_mode.map(|mode| match mode {
            GroupMode::Soft => CgroupMode::Soft,
            GroupMode::Full => CgroupMode::Full,
            GroupMode::Strict => CgroupMode::Strict,
            GroupMode::Ignore => CgroupMode::Ignore,
        }),
    }
}

/// The incremental and lazy modes.
fn refuse(flags: &Checkpoint) -> anyhow::Result<()> {
    let given = [
        (flags.pre_dump, "--pre-dump"),
        (flags.parent_path.is_some(), "--parent-path"),
        (flags.page_server.is_some(), "--page-server"),
        (flags.status_fd.is_some(), "--status-fd"),
        (flags.images.lazy_pages, "--lazy-pages"),
    ];
    match given.iter().find(|(given, _)| *given) {
        Some((_, flag)) => bail!("{flag}: this version of floe cannot do that yet"),
        None => Ok(()),
    }
}
