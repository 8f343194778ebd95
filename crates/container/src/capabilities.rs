//! Capabilities by name, and the sets that a process is given.
//!
//! The order in which they are applied is the kernel's (capabilities(7)): the bounding set while
//! CAP_SETPCAP is still effective; then the user, keeping the permitted set; then permitted,
//! effective and inheritable at once; the ambient set last, as it must be within two of them.

use crate::spec::Capabilities;

/// The names of capabilities(7), by number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The number of a capability by its name, as the specification spells it (`CAP_KILL`).
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|index| u32::try_from(index).ok())
}

/// Every name floe knows, by number.
#[must_use]
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// The names of those that the running kernel has.
#[must_use]
pub fn of_kernel() -> Vec<&'static str> {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    let last = last.ok().and_then(|text| text.trim().parse::<usize>().ok());
    let count = last.map_or(usize::MAX, |last| last + 1);
    names().iter().copied().take(count).collect()
}

/// The five sets of a thread (capabilities(7)), a bit per capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    pub bounding: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub effective: u64,
    pub ambient: u64,
}

/// The sets that a process asks for. Names that are not known were warned of when the
/// configuration was checked, and are left out.
#[must_use]
pub fn sets(wanted: &Capabilities) -> Sets {
    let bits = |names: &[String]| {
        names
            .iter()
            .filter_map(|name| number(name))
            .fold(0, |bits, number| bits | 1 << number)
    };
    Sets {
        bounding: bits(&wanted.bounding),
        permitted: bits(&wanted.permitted),
        inheritable: bits(&wanted.inheritable),
        effective: bits(&wanted.effective),
        ambient: bits(&wanted.ambient),
    }
}

impl Sets {
    /// The sets as far as a runtime that itself holds `held` can give them, and no contradiction
    /// in them: what is effective is permitted, what is ambient is permitted and inheritable. The
    /// kernel refuses all sets for one such bit, though less is always safe to give.
    #[must_use]
    pub fn within(self, held: u64) -> Sets {
        let permitted = self.permitted & held;
        // Without CAP_SETPCAP only what is permitted can be made inheritable; with it, bounding.
        let inheritable = self.inheritable & held;
        Sets {
            bounding: self.bounding & held,
            permitted,
            inheritable,
            effective: self.effective & permitted,
            ambient: self.ambient & permitted & inheritable,
        }
    }

    /// The names of the capabilities in any set here that `less` lacks there.
    #[must_use]
    pub fn lost_in(&self, less: &Sets) -> Vec<&'static str> {
        let lost = (self.bounding & !less.bounding)
            | (self.permitted & !less.permitted)
            | (self.inheritable & !less.inheritable)
            | (self.effective & !less.effective)
            | (self.ambient & !less.ambient);
        NAMES
            .iter()
            .zip(0..)
            .filter(|(_, bit)| lost & (1 << bit) != 0)
            .map(|(name, _)| *name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILL: u64 = 1 << 5;
    const CHOWN: u64 = 1;
    const RESOURCE: u64 = 1 << 24;

    fn wanted(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_have_the_kernels_numbers() {
        for (name, wanted) in [
            ("CAP_CHOWN", Some(0)),
            ("CAP_SYS_ADMIN", Some(21)),
            ("CAP_SYS_RESOURCE", Some(24)),
            ("CAP_AUDIT_READ", Some(37)),
            ("CAP_CHECKPOINT_RESTORE", Some(40)),
            ("CAP_MOON", None),
            ("cap_kill", None),
            ("KILL", None),
        ] {
            assert_eq!(number(name), wanted, "{name}");
        }
    }

    #[test]
    fn sets_are_those_of_the_document() {
        let capabilities = Capabilities {
            bounding: wanted(&["CAP_KILL", "CAP_CHOWN", "CAP_MOON"]),
            permitted: wanted(&["CAP_KILL"]),
            ..Capabilities::default()
        };
        let sets = sets(&capabilities);
        let only = Sets {
            bounding: KILL | CHOWN,
            permitted: KILL,
            ..Sets::default()
        };
        assert_eq!(sets, only);
    }

    #[test]
    fn what_the_runtime_lacks_is_left_out_and_named() {
        let all = KILL | RESOURCE;
        let asked = Sets {
            bounding: all,
            permitted: all,
            inheritable: all,
            effective: all,
            ambient: all,
        };
        let given = asked.within(!RESOURCE);
        let kill = Sets {
            bounding: KILL,
            permitted: KILL,
            inheritable: KILL,
            effective: KILL,
            ambient: KILL,
        };
        assert_eq!(given, kill);
        assert_eq!(asked.lost_in(&given), ["CAP_SYS_RESOURCE"]);
        assert_eq!(asked.within(u64::MAX), asked);
    }

    #[test]
    fn sets_never_contradict_each_other() {
        let asked = Sets {
            effective: KILL,
            ambient: KILL | CHOWN,
            permitted: CHOWN,
            inheritable: KILL,
            ..Sets::default()
        };
        let given = asked.within(u64::MAX);
        assert_eq!((given.effective, given.ambient), (0, 0));
        assert_eq!((given.permitted, given.inheritable), (CHOWN, KILL));
    }
}
