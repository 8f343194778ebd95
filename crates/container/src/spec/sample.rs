//! The configuration that `spec` writes for a start: a shell in a locked-down container.

use std::path::PathBuf;

use super::{
    Capabilities, DeviceRule, IdMapping, Linux, Mount, Namespace, NamespaceKind, Process,
    Resources, Rlimit, Root, Spec, User, VERSION,
};

/// A shell on a terminal with few capabilities, its own namespaces and a read-only `rootfs`.
///
/// `unified`: the host has cgroup v2 alone, so a cgroup namespace is of use.
#[must_use]
pub fn sample(unified: bool) -> Spec {
    Spec {
        oci_version: VERSION.to_owned(),
        process: Some(process()),
        root: Some(Root {
            path: PathBuf::from("rootfs"),
            readonly: true,
        }),
        hostname: Some("floe".to_owned()),
        mounts: mounts(),
        linux: Some(linux(unified)),
        ..Spec::default()
    }
}

/// The sample for a user without privileges: a user namespace in which `uid` and `gid` are root,
/// and nothing that such a user may not do.
#[must_use]
pub fn sample_rootless(unified: bool, uid: u32, gid: u32) -> Spec {
    let mut spec = sample(unified);
    let linux = spec.linux.get_or_insert_default();
    // The network stays the host's: only root could connect a new namespace to anything.
    linux
        .namespaces
        .retain(|namespace| namespace.kind != NamespaceKind::Network);
    linux.namespaces.push(Namespace {
        kind: NamespaceKind::User,
        path: None,
    });
    linux.uid_mappings = vec![IdMapping {
        container_id: 0,
        host_id: uid,
        size: 1,
    }];
    linux.gid_mappings = vec![IdMapping {
        container_id: 0,
        host_id: gid,
        size: 1,
    }];
    linux.resources = None;
    for mount in &mut spec.mounts {
        if mount.destination.as_os_str() == "/sys" {
            // A fresh sysfs takes a network namespace of one's own.
            *mount = self::mount(
                "/sys",
                "none",
                "/sys",
                &["rbind", "nosuid", "noexec", "nodev", "ro"],
            );
        }
        // Only one id is mapped: no file system can be told of another.
        mount
            .options
            .retain(|option| !option.starts_with("uid=") && !option.starts_with("gid="));
    }
    spec
}

fn process() -> Process {
    let kept = texts(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    Process {
        terminal: true,
        user: User::default(),
        args: texts(&["sh"]),
        env: texts(&[
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TERM=xterm",
        ]),
        cwd: PathBuf::from("/"),
        capabilities: Some(Capabilities {
            bounding: kept.clone(),
            effective: kept.clone(),
            permitted: kept,
            ..Capabilities::default()
        }),
        rlimits: vec![Rlimit {
            kind: "RLIMIT_NOFILE".to_owned(),
            hard: 1024,
            soft: 1024,
        }],
        no_new_privileges: true,
        ..Process::default()
    }
}

fn mounts() -> Vec<Mount> {
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ]
}

fn linux(unified: bool) -> Linux {
    use NamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let kinds = [Pid, Network, Ipc, Uts, Mount]
        .into_iter()
        .chain(unified.then_some(Cgroup));
    Linux {
        namespaces: kinds.map(|kind| Namespace { kind, path: None }).collect(),
        resources: Some(Resources {
            devices: vec![DeviceRule {
                allow: false,
                access: Some("rwm".to_owned()),
                ..DeviceRule::default()
            }],
            ..Resources::default()
        }),
        masked_paths: paths(&[
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/sys/firmware",
            "/sys/devices/virtual/powercap",
        ]),
        readonly_paths: paths(&[
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ]),
        ..Linux::default()
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: PathBuf::from(destination),
        kind: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: texts(options),
        ..Mount::default()
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn paths(words: &[&str]) -> Vec<PathBuf> {
    words.iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{parse, validate};

    #[test]
    fn every_sample_is_valid_and_survives_being_written() {
        for spec in [
            sample(false),
            sample(true),
            sample_rootless(false, 1000, 1000),
            sample_rootless(true, 0, 0),
        ] {
            assert_eq!(validate(&spec), Ok(Vec::new()));
            let json = serde_json::to_string_pretty(&spec).unwrap();
            assert_eq!(parse(json.as_bytes()).unwrap(), spec);
        }
    }

    #[test]
    fn a_cgroup_namespace_comes_with_cgroup_v2() {
        for unified in [false, true] {
            let linux = sample(unified).linux.unwrap();
            let has = linux
                .namespaces
                .iter()
                .any(|ns| ns.kind == NamespaceKind::Cgroup);
            assert_eq!(has, unified);
        }
    }

    #[test]
    fn the_rootless_sample_needs_no_privilege() {
        let spec = sample_rootless(true, 1000, 1001);
        let linux = spec.linux.unwrap();
        assert!(linux.resources.is_none());
        assert!(
            linux
                .namespaces
                .iter()
                .all(|ns| ns.kind != NamespaceKind::Network)
        );
        assert_eq!(
            (linux.uid_mappings[0].host_id, linux.gid_mappings[0].host_id),
            (1000, 1001)
        );
        assert!(
            spec.mounts
                .iter()
                .flat_map(|m| &m.options)
                .all(|o| !o.contains("gid="))
        );
        assert!(
            spec.mounts
                .iter()
                .all(|m| m.kind.as_deref() != Some("sysfs"))
        );
    }
}
