//! `cargo xtask peers`: the newest runtimes and engines, from Debian's newer suite, in a root beside the system.
//!
//! Debian's stable release has them years old. A whole root, because they need that suite's libraries too:
//! `chroot ROOT PROGRAM` runs one as it is installed; `ROOT/host/PROGRAM` starts it with the root's libraries
//! on the host's own file system.

use crate::debian::{cache, mirror, output};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What belongs together in one root.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// crun, runc and criu
    Runtimes,
    /// podman, containerd and docker, with the runtimes
    Engines,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which programs
    #[arg(value_enum, default_value_t = Set::Runtimes)]
    set: Set,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let root = root(options.set)?;
    println!("{}", root.display());
    for program in programs(&root)? {
        println!("  {}", program.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The root with this set, made if it is not there yet.
pub(crate) fn root(set: Set) -> Result<PathBuf> {
    let (name, packages) = match set {
        Set::Runtimes => ("runtimes", "crun,runc,criu,checkpointctl,python3-pycriu"),
        Set::Engines => (
            "engines",
            "crun,runc,podman,containerd,docker.io,docker-cli,iptables,nftables,netavark,aardvark-dns,catatonit,tini,iproute2",
        ),
    };
    let root = cache("floe-peers")?.join(name);
    if root.is_dir() {
        return Ok(root);
    }
    eprintln!("xtask: making {}", root.display());
    let temporary = root.with_extension("tmp");
    let _ = fs::remove_dir_all(&temporary);
    let mut command = Command::new("mmdebstrap");
    command.args([
        "--quiet",
        "--variant=essential",
        "--aptopt=Acquire::Check-Valid-Until \"false\"",
    ]);
    command
        .arg(format!("--include={packages}"))
        .arg("sid")
        .arg(&temporary)
        .arg(mirror()?);
    output(&mut command).context("make the root (apt-get install mmdebstrap)")?;
    wrap(&temporary)?;
    fs::rename(&temporary, &root)?;
    Ok(root)
}

/// Writes `host/PROGRAM` for each program that people run on the host.
fn wrap(root: &Path) -> Result<()> {
    let host = root.join("host");
    fs::create_dir_all(&host)?;
    let final_root = root.with_extension("");
    for name in [
        "criu",
        "crun",
        "runc",
        "checkpointctl",
        "podman",
        "containerd",
        "ctr",
        "dockerd",
        "docker",
    ] {
        let places = [format!("usr/sbin/{name}"), format!("usr/bin/{name}")];
        let Some(place) = places.iter().find(|place| root.join(place).exists()) else {
            continue;
        };
        let at = final_root.display();
        let script = format!(
            "#!/bin/sh\nexec {at}/usr/lib64/ld-linux-x86-64.so.2 --library-path {at}/usr/lib/x86_64-linux-gnu {at}/{place} \"$@\"\n"
        );
        let file = host.join(name);
        fs::write(&file, script)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn programs(root: &Path) -> Result<Vec<PathBuf>> {
    let programs = crate::debian::files(&root.join("host"))?;
    ensure!(
        !programs.is_empty(),
        "`{}` has no programs; remove it",
        root.display()
    );
    Ok(programs)
}
