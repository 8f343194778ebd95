//! The OCI configuration of a container, from everything decided before.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::identity::{IdMaps, User};
use super::mounts::KernelView;
use super::security::Security;

/// One overlay with its writable layer, as paths of the host.
#[derive(Debug, Clone)]
pub(crate) struct OverlayMount {
    pub(crate) path: PathBuf,
    pub(crate) lower: Vec<PathBuf>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
}

/// The six namespaces a user chooses and the rest, which every container has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Namespaces {
    pub(crate) network: Namespace,
    pub(crate) pid: Namespace,
    pub(crate) ipc: Namespace,
    pub(crate) uts: Namespace,
    pub(crate) id_maps: Option<IdMaps>,
    pub(crate) time_offsets: Option<Value>,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Namespace {
    #[default]
    Private,
    Host,
    Path(PathBuf),
}

impl Namespace {
    /// Reads a mode; `container` finds the first process of a container.
    ///
    /// # Errors
    /// An unknown mode, or a container that does not run.
    pub(crate) fn parse(
        flag: &str,
        mode: Option<&str>,
        file: &str,
        container: &dyn Fn(&str) -> Result<i32>,
    ) -> Result<Self> {
        Ok(match mode {
            None | Some("" | "private" | "none") => Self::Private,
            // Others may join a private one by `container:`: docker's word for that.
            Some("shareable") if flag == "--ipc" => Self::Private,
            Some("host") => Self::Host,
            Some(mode) => match mode.split_once(':') {
                Some(("container", name)) => {
                    Self::Path(format!("/proc/{}/ns/{file}", container(name)?).into())
                }
                Some(("ns", path)) if path.starts_with('/') => Self::Path(path.into()),
                _ => bail!("{flag} `{mode}`: private, host, container:NAME or ns:PATH"),
            },
        })
    }

    fn to_oci(&self, kind: &str) -> Option<Value> {
        match self {
            Self::Private => Some(json!({ "type": kind })),
            Self::Host => None,
            Self::Path(path) => Some(json!({ "type": kind, "path": path })),
        }
    }
}

/// Everything the configuration is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) rootfs: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) overlays: Vec<OverlayMount>,
    pub(crate) kernel: KernelView,
    /// Mounts of the user and of floe, after the kernel's.
    pub(crate) mounts: Vec<Value>,
    pub(crate) namespaces: Namespaces,
    pub(crate) hostname: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) directory: String,
    pub(crate) user: User,
    pub(crate) terminal: bool,
    pub(crate) rlimits: Vec<Value>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) security: Security,
    pub(crate) resources: Map<String, Value>,
    pub(crate) devices: Vec<Device>,
    pub(crate) sysctl: Vec<(String, String)>,
    pub(crate) cgroup: Option<String>,
    pub(crate) labels: Vec<(String, String)>,
}

/// A device node that the container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: String,
    /// `c` or `b`.
    pub(crate) kind: char,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Some of `rwm`.
    pub(crate) access: String,
}

/// Writes the configuration.
///
/// # Errors
/// A path that an overlay cannot name.
pub(crate) fn build(parts: &Parts) -> Result<Value> {
    let user_namespace = parts.namespaces.id_maps.is_some();
    let mut mounts = Vec::new();
    for overlay in &parts.overlays {
        mounts.push(overlay_mount(overlay, user_namespace, parts.read_only)?);
    }
    mounts.extend(super::mounts::kernel(&parts.kernel));
    mounts.extend(parts.mounts.iter().cloned());
    let mut annotations = Map::new();
    for (key, value) in &parts.labels {
        annotations.insert(key.clone(), value.as_str().into());
    }
    // Below the group that carries the limits the container gets one of its own as the root of
    // its cgroup namespace, so that it cannot change the limits.
    annotations.insert("org.floe.cgroup.inner".into(), "true".into());
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "root": { "path": parts.rootfs, "readonly": parts.read_only },
        "process": process(parts),
        "mounts": mounts,
        "linux": linux(parts),
        "annotations": annotations,
    });
    // A host name can only be set in a namespace of one's own.
    if parts.namespaces.uts == Namespace::Private {
        spec["hostname"] = parts.hostname.as_str().into();
    }
    Ok(spec)
}

fn process(parts: &Parts) -> Value {
    let capabilities = &parts.security.capabilities;
    // Root keeps its set over execve; other users get it only where a file grants it.
    let mut sets = json!({ "bounding": capabilities });
    if parts.user.uid == 0 {
        sets["effective"] = json!(capabilities);
        sets["permitted"] = json!(capabilities);
    }
    let mut process = json!({
        "terminal": parts.terminal,
        "user": {
            "uid": parts.user.uid,
            "gid": parts.user.gid,
            "additionalGids": parts.user.groups,
        },
        "args": parts.arguments,
        "env": parts.environment,
        "cwd": parts.directory,
        "capabilities": sets,
        "noNewPrivileges": parts.security.no_new_privileges,
        "rlimits": parts.rlimits,
    });
    if let Some(adjustment) = parts.oom_score_adj {
        process["oomScoreAdj"] = adjustment.into();
    }
    if let Some(profile) = &parts.security.apparmor {
        process["apparmorProfile"] = profile.as_str().into();
    }
    if let Some(label) = &parts.security.label {
        process["selinuxLabel"] = label.as_str().into();
    }
    process
}

fn linux(parts: &Parts) -> Value {
    let namespaces = &parts.namespaces;
    let mut list = vec![json!({ "type": "mount" }), json!({ "type": "cgroup" })];
    list.extend(namespaces.network.to_oci("network"));
    list.extend(namespaces.pid.to_oci("pid"));
    list.extend(namespaces.ipc.to_oci("ipc"));
    list.extend(namespaces.uts.to_oci("uts"));
    let mut resources = parts.resources.clone();
    let mut linux = json!({
        "maskedPaths": parts.security.masked,
        "readonlyPaths": parts.security.readonly,
    });
    if let Some(maps) = &namespaces.id_maps {
        list.push(json!({ "type": "user" }));
        linux["uidMappings"] = json!(maps.uids);
        linux["gidMappings"] = json!(maps.gids);
    } else {
        // In a user namespace no device node works that the kernel did not make.
        resources.insert("devices".into(), device_rules(parts));
    }
    if let Some(offsets) = &namespaces.time_offsets {
        list.push(json!({ "type": "time" }));
        linux["timeOffsets"] = offsets.clone();
    }
    linux["namespaces"] = list.into();
    linux["resources"] = resources.into();
    linux["devices"] = parts.devices.iter().map(device_node).collect();
    if !parts.sysctl.is_empty() {
        let pairs = parts
            .sysctl
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)));
        linux["sysctl"] = Value::Object(pairs.collect());
    }
    if let Some(seccomp) = &parts.security.seccomp {
        linux["seccomp"] = seccomp.clone();
    }
    if let Some(cgroup) = &parts.cgroup {
        linux["cgroupsPath"] = cgroup.as_str().into();
    }
    linux
}

fn device_rules(parts: &Parts) -> Value {
    let mut rules = vec![json!({ "allow": parts.kernel.privileged, "access": "rwm" })];
    for device in &parts.devices {
        rules.push(json!({
            "allow": true, "type": device.kind, "major": device.major, "minor": device.minor,
            "access": device.access,
        }));
    }
    rules.into()
}

fn device_node(device: &Device) -> Value {
    json!({
        "path": device.path, "type": device.kind, "major": device.major, "minor": device.minor,
        "fileMode": device.mode, "uid": device.uid, "gid": device.gid,
    })
}

fn overlay_mount(overlay: &OverlayMount, user_namespace: bool, read_only: bool) -> Result<Value> {
    let lower: Vec<String> = overlay
        .lower
        .iter()
        .map(|path| plain(path))
        .collect::<Result<_>>()?;
    let mut options = vec![
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", plain(&overlay.upper)?),
        format!("workdir={}", plain(&overlay.work)?),
    ];
    if user_namespace {
        // trusted.* attributes need rights outside.
        options.push("userxattr".to_owned());
    }
    if read_only {
        options.push("ro".to_owned());
    }
    Ok(json!({
        "destination": overlay.path, "type": "overlay", "source": "overlay", "options": options,
    }))
}

/// A path that needs no quoting in mount options; callers reach others through a link.
fn plain(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) if is_plain(path) => Ok(text.to_owned()),
        _ => bail!("`{}`: an overlay cannot name this path", path.display()),
    }
}

/// Whether a path can stand in an overlay's options as it is.
#[must_use]
pub(crate) fn is_plain(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| !text.contains([',', ':', '\\', '"', '\n', '\0']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            rootfs: "/c/root".into(),
            read_only: false,
            overlays: vec![OverlayMount {
                path: "/usr".into(),
                lower: vec!["/usr".into(), "/l/usr".into()],
                upper: "/c/0/upper".into(),
                work: "/c/0/work".into(),
            }],
            kernel: KernelView::default(),
            mounts: vec![json!({ "destination": "/data" })],
            namespaces: Namespaces::default(),
            hostname: "h".into(),
            arguments: vec!["true".into()],
            environment: vec!["A=b".into()],
            directory: "/".into(),
            user: User::default(),
            terminal: false,
            rlimits: Vec::new(),
            oom_score_adj: None,
            security: Security {
                capabilities: vec!["CAP_KILL".into()],
                ..Security::default()
            },
            resources: Map::new(),
            devices: Vec::new(),
            sysctl: Vec::new(),
            cgroup: Some("/floe/x".into()),
            labels: Vec::new(),
        }
    }

    fn kinds(spec: &Value) -> Vec<&str> {
        let list = spec["linux"]["namespaces"].as_array().unwrap();
        list.iter()
            .map(|namespace| namespace["type"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn overlays_come_before_everything_mounted_in_them() {
        let spec = build(&parts()).unwrap();
        assert_eq!(
            spec["mounts"][0]["options"],
            json!([
                "lowerdir=/usr:/l/usr",
                "upperdir=/c/0/upper",
                "workdir=/c/0/work"
            ])
        );
        let last = spec["mounts"].as_array().unwrap().last().unwrap();
        assert_eq!(last["destination"], "/data");
    }

    #[test]
    fn a_user_namespace_changes_overlays_and_devices() {
        let mut parts = parts();
        parts.namespaces.id_maps = Some(IdMaps::default());
        let spec = build(&parts).unwrap();
        assert!(kinds(&spec).contains(&"user"));
        assert!(spec["linux"]["resources"].get("devices").is_none());
        let options = spec["mounts"][0]["options"].as_array().unwrap();
        assert!(options.contains(&json!("userxattr")));
    }

    #[test]
    fn host_namespaces_are_left_out_and_joined_ones_have_paths() {
        let mut parts = parts();
        parts.namespaces.network = Namespace::Host;
        parts.namespaces.uts = Namespace::Host;
        parts.namespaces.pid = Namespace::Path("/proc/7/ns/pid".into());
        let spec = build(&parts).unwrap();
        assert_eq!(kinds(&spec), ["mount", "cgroup", "pid", "ipc"]);
        assert_eq!(spec["linux"]["namespaces"][2]["path"], "/proc/7/ns/pid");
        assert!(spec.get("hostname").is_none());
    }

    #[test]
    fn capabilities_of_other_users_stay_in_the_bounding_set() {
        let mut parts = parts();
        assert_eq!(
            build(&parts).unwrap()["process"]["capabilities"]["effective"][0],
            "CAP_KILL"
        );
        parts.user.uid = 7;
        let sets = build(&parts).unwrap()["process"]["capabilities"].clone();
        assert_eq!(sets, json!({ "bounding": ["CAP_KILL"] }));
    }

    #[test]
    fn namespace_modes_are_read() {
        let parse = |mode| Namespace::parse("--pid", Some(mode), "pid", &|_| Ok(42));
        assert_eq!(parse("host").unwrap(), Namespace::Host);
        assert_eq!(parse("private").unwrap(), Namespace::Private);
        assert_eq!(
            parse("container:web").unwrap(),
            Namespace::Path("/proc/42/ns/pid".into())
        );
        assert_eq!(
            parse("ns:/run/floe/ns/a/pid").unwrap(),
            Namespace::Path("/run/floe/ns/a/pid".into())
        );
        for wrong in ["odd", "ns:relative", "shareable"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths_an_overlay_cannot_name_are_refused() {
        let mut parts = parts();
        parts.overlays[0].lower[0] = "/a:b".into();
        assert!(build(&parts).is_err());
    }
}
