//! What the runtime can do, for engines that ask before they use it (features.md).

use serde_json::{Value, json};

use super::{
    MemoryPolicyFlag, MemoryPolicyMode, NamespaceKind, SeccompAction, SeccompArch, SeccompFlag,
    SeccompOperator, VERSION,
};

/// What differs between builds, kernels and hosts.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    pub version: &'a str,
    /// The commit built from; empty = not known.
    pub commit: &'a str,
    /// The mount options that are taken.
    pub mount_options: Vec<&'a str>,
    /// Capabilities that the kernel knows.
    pub capabilities: Vec<&'a str>,
    /// Flags of seccomp(2) that the kernel knows.
    pub seccomp_flags: Vec<SeccompFlag>,
    /// Groups through systemd, as root and as a user.
    pub systemd: bool,
    pub intel_rdt: bool,
    pub checkpoint: bool,
}

/// The features document.
#[must_use]
pub fn features(facts: &Facts<'_>) -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        ],
        "mountOptions": sorted(&facts.mount_options),
        "linux": linux(facts),
        "annotations": {
            "io.floe.version": facts.version,
            "io.floe.commit": facts.commit,
            // The key that engines look for.
            "org.opencontainers.runc.checkpoint.enabled": facts.checkpoint.to_string(),
        },
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
    })
}

fn linux(facts: &Facts<'_>) -> Value {
    json!({
        "namespaces": sorted(NamespaceKind::NAMES),
        "capabilities": facts.capabilities,
        "cgroup": {
            "v1": true,
            "v2": true,
            "systemd": facts.systemd,
            "systemdUser": facts.systemd,
            "rdma": true,
        },
        "seccomp": seccomp(facts),
        "apparmor": {"enabled": true},
        "selinux": {"enabled": true},
        "intelRdt": {
            "enabled": facts.intel_rdt,
            "schemata": facts.intel_rdt,
            "monitoring": facts.intel_rdt,
        },
        "memoryPolicy": {
            "modes": sorted(MemoryPolicyMode::NAMES),
            "flags": sorted(MemoryPolicyFlag::NAMES),
        },
        "mountExtensions": {"idmap": {"enabled": true}},
        "netDevices": {"enabled": true},
    })
}

fn seccomp(facts: &Facts<'_>) -> Value {
    let has_table =
        |name: &&&str| SeccompArch::from_name(name).is_some_and(crate::seccomp::has_table);
    let arches: Vec<&str> = SeccompArch::NAMES
        .iter()
        .filter(has_table)
        .copied()
        .collect();
    let supported: Vec<&str> = facts.seccomp_flags.iter().map(|flag| flag.name()).collect();
    json!({
        "enabled": crate::seccomp::native().is_some(),
        "actions": sorted(SeccompAction::NAMES),
        "operators": sorted(SeccompOperator::NAMES),
        "archs": sorted(&arches),
        "knownFlags": SeccompFlag::NAMES,
        "supportedFlags": supported,
    })
}

fn sorted<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut words = words.to_vec();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_find_what_they_look_for() {
        let facts = Facts {
            version: "0.1.0",
            mount_options: vec!["rw", "rro", "bind"],
            seccomp_flags: vec![SeccompFlag::Log],
            systemd: true,
            ..Facts::default()
        };
        let features = features(&facts);
        for (pointer, wanted) in [
            ("/ociVersionMin", json!("1.0.0")),
            ("/ociVersionMax", json!("1.3.0")),
            ("/mountOptions", json!(["bind", "rro", "rw"])),
            ("/linux/mountExtensions/idmap/enabled", json!(true)),
            ("/linux/cgroup/systemd", json!(true)),
            (
                "/linux/seccomp/supportedFlags",
                json!(["SECCOMP_FILTER_FLAG_LOG"]),
            ),
            ("/linux/namespaces/0", json!("cgroup")),
            (
                "/annotations/org.opencontainers.runc.checkpoint.enabled",
                json!("false"),
            ),
        ] {
            assert_eq!(features.pointer(pointer), Some(&wanted), "{pointer}");
        }
    }

    #[test]
    fn architectures_without_a_table_are_not_promised() {
        let features = features(&Facts::default());
        let arches = features
            .pointer("/linux/seccomp/archs")
            .unwrap()
            .as_array()
            .unwrap();
        assert!(arches.contains(&json!("SCMP_ARCH_X86_64")));
        assert!(!arches.contains(&json!("SCMP_ARCH_M68K")));
    }
}
