//! The kernel's resource controllers, and sets of them.

/// A controller whose files this crate writes or reads. `io` is v1's `blkio`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Devices,
    Freezer,
    Io,
    Pids,
    Hugetlb,
    NetCls,
    NetPrio,
    Rdma,
    PerfEvent,
    Misc,
}

const NAMES: [(Controller, &str); 15] = [
    (Controller::Cpu, "cpu"),
    (Controller::Cpuacct, "cpuacct"),
    (Controller::Cpuset, "cpuset"),
    (Controller::Memory, "memory"),
    (Controller::Devices, "devices"),
    (Controller::Freezer, "freezer"),
    (Controller::Io, "io"),
    (Controller::Io, "blkio"),
    (Controller::Pids, "pids"),
    (Controller::Hugetlb, "hugetlb"),
    (Controller::NetCls, "net_cls"),
    (Controller::NetPrio, "net_prio"),
    (Controller::Rdma, "rdma"),
    (Controller::PerfEvent, "perf_event"),
    (Controller::Misc, "misc"),
];

impl Controller {
    /// The controller of that name in `/proc/PID/cgroup` or `cgroup.controllers`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(controller, _)| *controller)
    }

    /// The name on v2 (and, but for `io`, on v1).
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(known, _)| *known == self)
            .map_or("", |(_, name)| *name)
    }
}

/// A set of controllers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controllers(u16);

impl Controllers {
    #[must_use]
    pub fn contains(self, controller: Controller) -> bool {
        self.0 & (1 << controller as u16) != 0
    }

    #[must_use]
    pub fn with(self, controller: Controller) -> Self {
        Self(self.0 | (1 << controller as u16))
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every controller of `other` is here too.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The known controllers among `names` (`cgroup.controllers` is a blank-separated list).
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let known = names.into_iter().filter_map(Controller::named);
        known.fold(Self::default(), Self::with)
    }
}
