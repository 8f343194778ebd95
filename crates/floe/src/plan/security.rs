//! Capabilities, system call filter, masked paths and `--security-opt`.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::flags::IsolationFlags;

/// What `--security-opt` and its kin come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Security {
    pub(crate) capabilities: Vec<String>,
    pub(crate) no_new_privileges: bool,
    /// OCI `linux.seccomp`; `None` is no filter.
    pub(crate) seccomp: Option<Value>,
    pub(crate) apparmor: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) masked: Vec<String>,
    pub(crate) readonly: Vec<String>,
}

/// Capabilities, in the order of their numbers (capability(7)).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container's root keeps; docker's set, which images are made for.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// Files of the kernel that tell about or touch the whole machine.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];
const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Decides; `bounding` is the caller's own bounding set, beyond which nothing can be given, and
/// `read` reads the file of `seccomp=FILE`.
///
/// # Errors
/// An unknown option or capability, or a filter that cannot be read.
pub(crate) fn security(
    flags: &IsolationFlags,
    bounding: u64,
    read: &dyn Fn(&str) -> Result<String>,
) -> Result<Security> {
    let capabilities = capabilities(flags, bounding)?;
    let mut security = Security {
        seccomp: (!flags.privileged).then(|| default_filter(&capabilities)),
        capabilities,
        ..Security::default()
    };
    if !flags.privileged {
        security.masked = MASKED.map(str::to_owned).to_vec();
        security.readonly = READONLY.map(str::to_owned).to_vec();
    }
    for option in &flags.security_opt {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = None,
            ("seccomp", file) if !file.is_empty() => {
                let filter = serde_json::from_str(&read(file)?)
                    .with_context(|| format!("read seccomp filter `{file}`"))?;
                security.seccomp = Some(filter);
            }
            ("apparmor", "unconfined") => security.apparmor = None,
            ("apparmor", profile) if !profile.is_empty() => {
                security.apparmor = Some(profile.into());
            }
            ("label", "disable") => security.label = None,
            ("label", label) if !label.is_empty() => security.label = Some(label.into()),
            ("mask", path) if path.starts_with('/') => security.masked.push(path.into()),
            ("unmask", "ALL" | "all") => {
                security.masked.clear();
                security.readonly.clear();
            }
            ("unmask", path) if path.starts_with('/') => {
                security.masked.retain(|masked| masked != path);
                security.readonly.retain(|readonly| readonly != path);
            }
            _ => bail!(
                "--security-opt `{option}`: no-new-privileges, seccomp=FILE|unconfined, \
                 apparmor=PROFILE, label=LABEL, mask=PATH, unmask=PATH|ALL"
            ),
        }
    }
    Ok(security)
}

fn capabilities(flags: &IsolationFlags, bounding: u64) -> Result<Vec<String>> {
    let all = || (0..CAPABILITIES.len()).fold(0, |set, number| set | 1 << number);
    let mut set = if flags.privileged {
        all()
    } else {
        set_of(&DEFAULT)
    };
    let is_all = |name: &String| name.eq_ignore_ascii_case("all");
    // ALL first, then the named ones: `--cap-drop ALL --cap-add KILL` is KILL alone.
    if flags.cap_add.iter().any(is_all) {
        set = all();
    }
    if flags.cap_drop.iter().any(is_all) {
        set = 0;
    }
    set &= bounding;
    for name in flags.cap_add.iter().filter(|name| !is_all(name)) {
        let bit = 1 << number(name)?;
        if bit & bounding == 0 {
            bail!("--cap-add {name}: floe itself does not have this capability here");
        }
        set |= bit;
    }
    for name in flags.cap_drop.iter().filter(|name| !is_all(name)) {
        set &= !(1 << number(name)?);
    }
    let names = CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(number, _)| set >> number & 1 == 1);
    Ok(names.map(|(_, name)| format!("CAP_{name}")).collect())
}

fn set_of(names: &[&str]) -> u64 {
    let bits = CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(_, name)| names.contains(name));
    bits.fold(0, |set, (number, _)| set | 1 << number)
}

fn number(name: &str) -> Result<usize> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    CAPABILITIES
        .iter()
        .position(|known| *known == short)
        .with_context(|| format!("no capability is called `{name}`"))
}

/// System calls that a container has no business with: they change the machine, load code into
/// the kernel, look into it, or have been the way out before. Each needs a capability that the
/// default set lacks or lives on a surface that ordinary programs do not use.
const REFUSED: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "finit_module",
    "get_kernel_syms",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "perf_event_open",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "syslog",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
    "vm86",
    "vm86old",
];

/// Those of [`REFUSED`] that come back with a capability.
const RETURNED: &[(&str, &[&str])] = &[
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_SYS_BOOT", &["kexec_file_load", "kexec_load", "reboot"]),
    (
        "CAP_SYS_MODULE",
        &["delete_module", "finit_module", "init_module"],
    ),
    ("CAP_SYS_NICE", &["move_pages"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    (
        "CAP_SYS_TIME",
        &["clock_adjtime", "clock_settime", "settimeofday", "stime"],
    ),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "lookup_dcookie",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "swapoff",
            "swapon",
            "syslog",
            "vhangup",
        ],
    ),
];

const CLONE_NEWUSER: u64 = 0x1000_0000;

/// The filter a container has if it asks for none.
fn default_filter(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let returned: Vec<&str> = RETURNED
        .iter()
        .filter(|(capability, _)| has(capability))
        .flat_map(|(_, calls)| calls.iter().copied())
        .collect();
    let names: Vec<&&str> = REFUSED
        .iter()
        .filter(|name| !returned.contains(name))
        .collect();
    let refuse = |names: Value, errno: u32| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno });
    let mut calls = vec![refuse(json!(names), 1)];
    if !has("CAP_SYS_ADMIN") {
        // A user namespace of its own would give a process every capability over new objects,
        // the door to most kernel bugs of late. clone3 hides its flags from the filter: ENOSYS
        // makes libraries fall back to clone.
        let mut guarded = refuse(json!(["clone", "unshare"]), 1);
        guarded["args"] = json!([{
            "index": 0, "value": CLONE_NEWUSER, "valueTwo": CLONE_NEWUSER,
            "op": "SCMP_CMP_MASKED_EQ",
        }]);
        calls.push(guarded);
        calls.push(refuse(json!(["clone3"]), 38));
    }
    let architectures = if cfg!(target_arch = "aarch64") {
        json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    } else {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    };
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": calls })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: u64 = u64::MAX;

    fn decide(flags: &IsolationFlags, bounding: u64) -> Result<Security> {
        security(flags, bounding, &|_| {
            Ok("{\"defaultAction\":\"SCMP_ACT_LOG\"}".to_owned())
        })
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        for (add, drop, expected) in [
            ("", "ALL", ""),
            ("kill", "ALL", "CAP_KILL"),
            ("CAP_KILL SYS_ADMIN", "all", "CAP_KILL CAP_SYS_ADMIN"),
        ] {
            let flags = IsolationFlags {
                cap_add: words(add),
                cap_drop: words(drop),
                ..IsolationFlags::default()
            };
            assert_eq!(
                decide(&flags, EVERYTHING).unwrap().capabilities,
                words(expected)
            );
        }
        let default = decide(&IsolationFlags::default(), EVERYTHING).unwrap();
        assert_eq!(default.capabilities.len(), DEFAULT.len());
    }

    #[test]
    fn nothing_beyond_the_callers_own_is_given() {
        let privileged = IsolationFlags {
            privileged: true,
            ..IsolationFlags::default()
        };
        let without_resource = !(1_u64 << 24);
        let got = decide(&privileged, without_resource).unwrap().capabilities;
        assert_eq!(got.len(), 40);
        assert!(!got.contains(&"CAP_SYS_RESOURCE".to_owned()));
        let flags = IsolationFlags {
            cap_add: words("SYS_RESOURCE"),
            ..IsolationFlags::default()
        };
        assert!(decide(&flags, without_resource).is_err());
    }

    #[test]
    fn options_change_the_defaults() {
        let option = |text: &str| {
            let flags = IsolationFlags {
                security_opt: words(text),
                ..IsolationFlags::default()
            };
            decide(&flags, EVERYTHING)
        };
        assert!(option("no-new-privileges").unwrap().no_new_privileges);
        assert_eq!(option("seccomp=unconfined").unwrap().seccomp, None);
        let own = option("seccomp=/x").unwrap().seccomp.unwrap();
        assert_eq!(own["defaultAction"], "SCMP_ACT_LOG");
        assert!(option("unmask=ALL").unwrap().masked.is_empty());
        assert!(
            !option("unmask=/proc/kcore")
                .unwrap()
                .masked
                .contains(&"/proc/kcore".to_owned())
        );
        for wrong in [
            "odd",
            "seccomp=",
            "mask=relative",
            "no-new-privileges=maybe",
        ] {
            assert!(option(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_filter_opens_with_the_capability() {
        let refused = |flags: &IsolationFlags| {
            decide(flags, EVERYTHING).unwrap().seccomp.unwrap()["syscalls"][0]["names"].clone()
        };
        let has = |names: &Value, name: &str| names.as_array().unwrap().contains(&json!(name));
        assert!(has(&refused(&IsolationFlags::default()), "init_module"));
        let flags = IsolationFlags {
            cap_add: words("SYS_MODULE"),
            ..IsolationFlags::default()
        };
        assert!(!has(&refused(&flags), "init_module"));
        assert!(has(&refused(&flags), "keyctl"));
    }
}
