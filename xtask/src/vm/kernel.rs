//! Debian's cloud kernels: small, signed off by a distribution, and the same everywhere.

use crate::debian::{Archive, files, output};
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What must be loaded to reach the root and the disk; everything else the guest's modprobe loads.
const EARLY: [&str; 6] = [
    "virtio_pci",
    "virtio_console",
    "virtiofs",
    "overlay",
    "virtio_blk",
    "ext4",
];

/// A kernel of the cache: `vmlinuz` and `modules/`.
#[derive(Debug)]
pub(crate) struct Kernel {
    directory: PathBuf,
}

impl Kernel {
    /// The newest kernel whose version begins with `version`: `6.1`, `6.12`, `7`.
    pub(crate) fn fetch(archive: &Archive, version: &str) -> Result<Self> {
        let choose = |archive: &Archive| {
            let here = Path::new("/");
            let names = archive.apt("apt-cache", &["pkgnames", "linux-image-"], here)?;
            let best = newest(&names, version).with_context(|| format!("no kernel {version}"))?;
            // From 7 on the image package is empty and depends on those with the files.
            let depends = archive.apt("apt-cache", &["depends", best], here)?;
            let split = depends
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Depends: "));
            let split = split.filter(|name| {
                ["linux-binary-", "linux-modules-"]
                    .iter()
                    .any(|start| name.starts_with(start))
            });
            let split: Vec<String> = split.map(str::to_owned).collect();
            Ok(if split.is_empty() {
                vec![best.to_owned()]
            } else {
                split
            })
        };
        let directory = archive.unpacked(&format!("linux-{version}"), choose, arrange)?;
        Ok(Self { directory })
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    pub(crate) fn modules(&self) -> PathBuf {
        self.directory.join("modules")
    }

    /// The modules needed to reach the root, in the order of loading; what is built in is not among them.
    pub(crate) fn early_modules(&self) -> Result<Vec<PathBuf>> {
        let text =
            fs::read_to_string(self.modules().join("modules.dep")).context("read modules.dep")?;
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let dependencies: BTreeMap<&str, Vec<&str>> = lines
            .map(|(module, on)| (module, on.split_whitespace().collect()))
            .collect();
        let mut order: Vec<&str> = Vec::new();
        for wanted in EARLY {
            let modules = dependencies
                .iter()
                .filter(|(path, _)| module_name(path) == wanted);
            for (module, on) in modules {
                let chain = on.iter().rev().chain(std::iter::once(module));
                let new: Vec<&str> = chain
                    .filter(|path| !order.contains(path))
                    .copied()
                    .collect();
                order.extend(new);
            }
        }
        Ok(order
            .into_iter()
            .map(|path| self.modules().join(path))
            .collect())
    }
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.trim_end_matches(".ko").replace('-', "_")
}

/// The package `linux-image-VERSION…-cloud-amd64` with the greatest numbers.
fn newest<'a>(names: &'a str, version: &str) -> Option<&'a str> {
    let matches = names.lines().filter(|name| {
        let rest = name
            .strip_prefix("linux-image-")
            .and_then(|rest| rest.strip_suffix("-cloud-amd64"));
        let rest = rest.and_then(|rest| rest.strip_prefix(version));
        rest.is_some_and(|rest| rest.starts_with(['.', '+']))
    });
    matches.max_by_key(|name| {
        let numbers = name.split(|c: char| !c.is_ascii_digit());
        numbers
            .filter_map(|number| number.parse::<u64>().ok())
            .collect::<Vec<u64>>()
    })
}

/// Brings the files of all package generations into one shape.
fn arrange(directory: &Path) -> Result<()> {
    let bases = [directory.join("lib"), directory.join("usr/lib")];
    let base = bases
        .iter()
        .find(|base| base.join("modules").is_dir())
        .context("no modules")?;
    let modules = files(&base.join("modules"))?
        .into_iter()
        .next()
        .context("no modules")?;
    let version = modules.file_name().context("a version")?.to_owned();
    // busybox's depmod and modprobe read plain .ko files only.
    let unpack = "find \"$0\" -name '*.ko.xz' -print0 | xargs -0r xz -d";
    output(Command::new("sh").args(["-c", unpack]).arg(&modules))?;
    let root = base
        .parent()
        .filter(|_| base.ends_with("usr/lib"))
        .map_or(directory, |_| directory);
    let root = if base.ends_with("usr/lib") {
        root.join("usr")
    } else {
        root.to_owned()
    };
    output(
        Command::new("busybox")
            .arg("depmod")
            .arg("-b")
            .arg(root)
            .arg(&version),
    )?;
    let boot = directory.join("boot");
    let boot = if boot.is_dir() {
        files(&boot)?
    } else {
        Vec::new()
    };
    let images = boot.into_iter().chain([modules.join("vmlinuz")]);
    let is_image = |path: &PathBuf| {
        path.is_file()
            && path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    };
    let image = images
        .into_iter()
        .find(is_image)
        .context("no vmlinuz in the packages")?;
    fs::rename(image, directory.join("vmlinuz"))?;
    fs::rename(modules, directory.join("modules"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{module_name, newest};

    #[test]
    fn newest_kernel_of_a_version() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-49-cloud-amd64\n\
            linux-image-6.12.95+deb12-cloud-amd64\nlinux-image-6.1.0-50-cloud-amd64-unsigned\nlinux-image-6.1.0-51-amd64";
        for (version, best) in [
            ("6.1", Some("linux-image-6.1.0-49-cloud-amd64")),
            ("6.12", Some("linux-image-6.12.95+deb12-cloud-amd64")),
            ("7", None),
        ] {
            assert_eq!(newest(names, version), best);
        }
    }

    #[test]
    fn module_names_use_underscores() {
        assert_eq!(
            module_name("kernel/drivers/virtio/virtio-pci.ko"),
            "virtio_pci"
        );
    }
}
