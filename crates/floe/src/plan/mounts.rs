//! `-v`, `--mount`, `--tmpfs` and the kernel's file systems as OCI mounts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::flags::StorageFlags;
use crate::parse;

/// One mount that the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: Source,
    pub(crate) target: String,
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A path of the host, and whether it is made as a directory if it is missing.
    Bind {
        path: PathBuf,
        create: bool,
    },
    /// A volume of floe's, by name.
    Volume(String),
    Tmpfs,
}

/// Reads all mount flags, in the order volumes, mounts, tmpfs.
///
/// # Errors
/// A flag that is malformed, or two mounts on one target.
pub(crate) fn requested(flags: &StorageFlags, current: &Path) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for text in &flags.volume {
        mounts.push(volume(text, current).with_context(|| format!("--volume `{text}`"))?);
    }
    for text in &flags.mount {
        mounts.push(mount(text, current).with_context(|| format!("--mount `{text}`"))?);
    }
    for text in &flags.tmpfs {
        mounts.push(tmpfs(text).with_context(|| format!("--tmpfs `{text}`"))?);
    }
    for (index, mount) in mounts.iter().enumerate() {
        if mounts[..index]
            .iter()
            .any(|other| other.target == mount.target)
        {
            bail!("two mounts on `{}`", mount.target);
        }
    }
    // A mount on a parent must not cover one below it.
    mounts.sort_by_key(|mount| mount.target.split('/').count());
    Ok(mounts)
}

fn volume(text: &str, current: &Path) -> Result<Mount> {
    let mut parts = text.splitn(3, ':');
    let (source, target, options) = match (parts.next(), parts.next(), parts.next()) {
        (Some(source), Some(target), options) => (source, target, options.unwrap_or("")),
        _ => bail!("SOURCE:TARGET[:OPTIONS]"),
    };
    let options = options.split(',').filter(|option| !option.is_empty());
    let mut kept = Vec::new();
    for option in options {
        match option {
            // SELinux labels of shared or private content; there is nothing to relabel here.
            "z" | "Z" | "U" => {}
            "nocopy" => {}
            _ => kept.push(bind_option(option)?),
        }
    }
    Ok(Mount {
        source: source_of(source, current, true)?,
        target: target_of(target)?,
        options: kept,
    })
}

/// A path if it looks like one, the name of a volume otherwise.
fn source_of(text: &str, current: &Path, create: bool) -> Result<Source> {
    if text.starts_with(['/', '.']) || text.starts_with("~/") {
        let text = text.strip_prefix("./").unwrap_or(text);
        let path = if text == "." {
            current.to_owned()
        } else {
            current.join(text)
        };
        return Ok(Source::Bind { path, create });
    }
    Ok(Source::Volume(parse::name(text)?))
}

fn mount(text: &str, current: &Path) -> Result<Mount> {
    let (mut kind, mut source, mut target) = ("volume".to_owned(), None, None);
    let mut options = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match (key, value) {
            ("type", _) => value.clone_into(&mut kind),
            ("source" | "src", _) => source = Some(value),
            ("target" | "dst" | "destination", _) => target = Some(value),
            ("readonly" | "ro", "" | "true" | "1") => options.push("ro".to_owned()),
            ("readonly" | "ro", "false" | "0") => options.push("rw".to_owned()),
            ("bind-propagation", _) => options.push(bind_option(value)?),
            ("bind-recursive", "enabled") => {}
            ("bind-recursive", "disabled") => options.push("bind".to_owned()),
            ("bind-recursive", "readonly") => options.push("rro".to_owned()),
            ("tmpfs-size", _) => options.push(format!("size={}", parse::bytes(value)?)),
            ("tmpfs-mode", _) if value.bytes().all(|digit| (b'0'..b'8').contains(&digit)) => {
                options.push(format!("mode={value}"));
            }
            _ => bail!(
                "`{field}`: type, source, target, readonly, bind-propagation, \
                        bind-recursive, tmpfs-size, tmpfs-mode"
            ),
        }
    }
    let target = target_of(target.ok_or_else(|| anyhow!("target= is missing"))?)?;
    let source = match (kind.as_str(), source) {
        ("bind", Some(source)) if source.starts_with(['/', '.']) => {
            source_of(source, current, false)?
        }
        ("bind", Some(source)) => Source::Bind {
            path: current.join(source),
            create: false,
        },
        ("volume", Some(name)) => Source::Volume(parse::name(name)?),
        ("tmpfs", None) => {
            options.extend(["nosuid", "nodev"].map(str::to_owned));
            Source::Tmpfs
        }
        ("bind" | "volume", None) => bail!("source= is missing"),
        _ => bail!("type=bind|volume|tmpfs; a tmpfs has no source"),
    };
    Ok(Mount {
        source,
        target,
        options,
    })
}

fn tmpfs(text: &str) -> Result<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let given = options
        .split(',')
        .filter(|option| !option.is_empty())
        .map(str::to_owned);
    let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    for option in given {
        // `exec` takes back what is set by default.
        options.retain(|other| option != other.trim_start_matches("no"));
        options.push(option);
    }
    Ok(Mount {
        source: Source::Tmpfs,
        target: target_of(target)?,
        options,
    })
}

fn target_of(text: &str) -> Result<String> {
    let path = Path::new(text);
    let climbs = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs || text.contains('\0') {
        bail!("target `{text}`: an absolute path without `..`");
    }
    let tidy: PathBuf = path.components().collect();
    if tidy == Path::new("/") {
        bail!("target `/`: --rootfs replaces the root");
    }
    Ok(tidy.to_string_lossy().into_owned())
}

fn bind_option(text: &str) -> Result<String> {
    const KNOWN: &[&str] = &[
        "ro", "rw", "rro", "bind", "rbind", "private", "rprivate", "slave", "rslave", "shared",
        "rshared", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "idmap", "ridmap",
    ];
    if KNOWN.contains(&text) {
        return Ok(text.to_owned());
    }
    bail!("unknown option `{text}`: one of {}", KNOWN.join(", "))
}

/// The OCI form of a requested mount; `volumes` is where volumes lie.
#[must_use]
pub(crate) fn to_oci(mount: &Mount, volumes: &Path) -> Value {
    let (kind, source) = match &mount.source {
        Source::Bind { path, .. } => ("bind", path.clone()),
        Source::Volume(name) => ("bind", volumes.join(name)),
        Source::Tmpfs => ("tmpfs", "tmpfs".into()),
    };
    let mut options = mount.options.clone();
    if kind == "bind" {
        if !options
            .iter()
            .any(|option| option == "bind" || option == "rbind")
        {
            options.insert(0, "rbind".to_owned());
        }
        if !options.iter().any(|option| {
            option.ends_with("private") || option.ends_with("slave") || option.ends_with("shared")
        }) {
            options.push("rprivate".to_owned());
        }
    }
    json!({ "destination": mount.target, "type": kind, "source": source, "options": options })
}

/// What decides how the kernel's file systems are mounted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KernelView {
    pub(crate) shm_size: i64,
    pub(crate) privileged: bool,
    /// Whether the container has a user namespace, and whether gid 5 (tty) exists in it.
    pub(crate) user_namespace: bool,
    pub(crate) tty_group: bool,
    pub(crate) host_network: bool,
    pub(crate) host_ipc: bool,
    /// Whether the host has message queues to share, as `/dev/mqueue`.
    pub(crate) host_queues: bool,
    pub(crate) host_pid: bool,
    /// Whether `/run` is a fresh one (the default root) or the image's.
    pub(crate) fresh_run: bool,
}

/// `/proc`, `/dev`, `/sys` and what lies in them.
#[must_use]
pub(crate) fn kernel(view: &KernelView) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let bind = |path: &str| {
        let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
        json!({ "destination": path, "type": "bind", "source": path, "options": options })
    };
    let access = if view.privileged { "rw" } else { "ro" };
    // A user namespace may mount proc and sysfs only over its own pid and network namespaces.
    let proc = if view.user_namespace && view.host_pid {
        json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] })
    } else {
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"])
    };
    let sys = if view.user_namespace && view.host_network {
        bind("/sys")
    } else {
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access])
    };
    let mut pts = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    if view.tty_group {
        pts.push("gid=5");
    }
    let shm = if view.host_ipc {
        let options = ["bind", "nosuid", "noexec", "nodev"];
        json!({ "destination": "/dev/shm", "type": "bind", "source": "/dev/shm",
                "options": options })
    } else {
        let size = format!("size={}", view.shm_size);
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", &size],
        )
    };
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let mut mounts = vec![
        proc,
        mount("/dev", "tmpfs", &dev),
        mount("/dev/pts", "devpts", &pts),
    ];
    mounts.push(shm);
    if view.host_ipc && view.user_namespace && !view.host_queues {
        // A user namespace may mount queues only over an IPC namespace of its own.
    } else if view.host_ipc && view.user_namespace {
        let options = ["bind", "nosuid", "noexec", "nodev"];
        mounts.push(json!({ "destination": "/dev/mqueue", "type": "bind",
                            "source": "/dev/mqueue", "options": options }));
    } else {
        mounts.push(mount(
            "/dev/mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ));
    }
    mounts.push(sys);
    if !(view.user_namespace && view.host_network) {
        let options = ["nosuid", "noexec", "nodev", "relatime", access];
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &options));
    }
    if view.fresh_run {
        mounts.push(mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755"]));
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &StorageFlags) -> Result<Vec<Mount>> {
        requested(flags, Path::new("/here"))
    }

    fn flags(volume: &[&str], mount: &[&str], tmpfs: &[&str]) -> StorageFlags {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        StorageFlags {
            volume: own(volume),
            mount: own(mount),
            tmpfs: own(tmpfs),
            ..StorageFlags::default()
        }
    }

    fn one(flags: &StorageFlags) -> Value {
        to_oci(&read(flags).unwrap()[0], Path::new("/vol"))
    }

    #[test]
    fn volumes_are_paths_or_names() {
        for (text, source, options) in [
            ("/a:/b", "/a", json!(["rbind", "rprivate"])),
            ("/a:/b:ro,Z", "/a", json!(["rbind", "ro", "rprivate"])),
            ("./a:/b:rslave", "/here/a", json!(["rbind", "rslave"])),
            (".:/b", "/here", json!(["rbind", "rprivate"])),
            ("data:/b//c/", "/vol/data", json!(["rbind", "rprivate"])),
        ] {
            let got = one(&flags(&[text], &[], &[]));
            assert_eq!(
                (&got["source"], &got["options"]),
                (&json!(source), &options),
                "{text}"
            );
        }
    }

    #[test]
    fn mounts_and_tmpfs_have_their_options() {
        assert_eq!(
            one(&flags(&[], &["type=bind,src=/a,dst=/b,readonly"], &[])),
            json!({"destination": "/b", "type": "bind", "source": "/a",
                   "options": ["rbind", "ro", "rprivate"]})
        );
        assert_eq!(
            one(&flags(&[], &[], &["/b:size=1m,exec"])),
            json!({"destination": "/b", "type": "tmpfs", "source": "tmpfs",
                   "options": ["nosuid", "nodev", "size=1m", "exec"]})
        );
    }

    #[test]
    fn malformed_mounts_are_refused() {
        for text in [
            "/a",
            "/a:b",
            "/a:/",
            "/a:/b/../c",
            "/a:/b:odd",
            "../../x y:",
            "a b:/c",
        ] {
            assert!(read(&flags(&[text], &[], &[])).is_err(), "{text}");
        }
        for text in [
            "type=bind,dst=/b",
            "type=odd,src=/a,dst=/b",
            "src=a",
            "type=tmpfs,src=/a,dst=/b",
        ] {
            assert!(read(&flags(&[], &[text], &[])).is_err(), "{text}");
        }
        assert!(read(&flags(&["/a:/b", "/c:/b/"], &[], &[])).is_err());
    }

    #[test]
    fn parents_are_mounted_first() {
        let mounts = read(&flags(&["/a:/x/y/z", "/b:/x"], &[], &["/x/y"])).unwrap();
        let targets: Vec<_> = mounts.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/x", "/x/y", "/x/y/z"]);
    }

    #[test]
    fn a_user_namespace_mounts_only_what_is_its_own() {
        let kind = |view: KernelView, path: &str| {
            let mounts = kernel(&view);
            let found = mounts.iter().find(|mount| mount["destination"] == path);
            found.map(|mount| mount["type"].as_str().unwrap().to_owned())
        };
        let own = KernelView {
            user_namespace: true,
            ..KernelView::default()
        };
        assert_eq!(kind(own, "/sys").as_deref(), Some("sysfs"));
        let host = KernelView {
            host_network: true,
            host_pid: true,
            ..own
        };
        assert_eq!(kind(host, "/sys").as_deref(), Some("bind"));
        assert_eq!(kind(host, "/proc").as_deref(), Some("bind"));
        assert_eq!(kind(host, "/sys/fs/cgroup"), None);
    }
}
