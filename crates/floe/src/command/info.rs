//! `floe info`

use std::path::Path;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::host;
use crate::output::{self, Format};
use crate::store::Store;
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A feature of the kernel or the host.
struct Feature {
    name: &'static str,
    /// `None`: it has no yes or no.
    there: Option<bool>,
    /// What it is here, or what is missing without it.
    detail: String,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let features = features(&store);
    if flags.format == Format::Json {
        let list: Vec<_> = features
            .iter()
            .map(|f| json!({ "name": f.name, "available": f.there, "detail": f.detail }))
            .collect();
        output::json(&list)?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = features
        .iter()
        .map(|feature| {
            let there = match feature.there {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            };
            vec![
                feature.name.to_owned(),
                there.to_owned(),
                feature.detail.clone(),
            ]
        })
        .collect();
    output::print(&text::table(&["FEATURE", "HERE", "DETAIL"], &rows))?;
    Ok(0)
}

fn features(store: &Store) -> Vec<Feature> {
    let mut features = vec![
        about("floe", env!("CARGO_PKG_VERSION").to_owned()),
        about("kernel", read("/proc/sys/kernel/osrelease")),
        about("containers kept in", store.state.display().to_string()),
        about("runtime", programs(store)),
        about(
            "rights",
            if store.rootless {
                "ordinary user"
            } else {
                "root"
            }
            .to_owned(),
        ),
        about("cgroup layout", cgroups()),
    ];
    for kind in sys::namespace::Kind::ALL {
        let (name, detail) = match kind.file() {
            "user" => ("user namespaces", user_namespaces()),
            "time" => ("time namespaces", "--time-offset".to_owned()),
            "cgroup" => ("cgroup namespaces", String::new()),
            "pid" => ("pid namespaces", String::new()),
            "net" => ("network namespaces", String::new()),
            "ipc" => ("ipc namespaces", String::new()),
            "uts" => ("uts namespaces", String::new()),
            _ => ("mount namespaces", String::new()),
        };
        let there = Path::new("/proc/self/ns").join(kind.file()).exists();
        features.push(Feature {
            name,
            there: Some(there),
            detail,
        });
    }
    features.extend(id_ranges());
    features.extend(kernel_features());
    features.extend(rights());
    features
}

fn about(name: &'static str, detail: String) -> Feature {
    Feature {
        name,
        there: None,
        detail,
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn programs(store: &Store) -> String {
    match crate::runtime::Runtime::find(store) {
        Ok(runtime) => runtime.program.display().to_string(),
        Err(error) => format!("{error}"),
    }
}

/// Which controllers lie in which hierarchies.
fn cgroups() -> String {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut v1 = 0;
    let mut v2 = None;
    for line in text.lines() {
        let Some((first, second)) = line.split_once(" - ") else {
            continue;
        };
        match second.split(' ').next() {
            Some("cgroup") => v1 += 1,
            Some("cgroup2") => v2 = first.split(' ').nth(4).map(str::to_owned),
            _ => {}
        }
    }
    let controllers = |path: &str| read(&format!("{path}/cgroup.controllers")).replace(' ', ", ");
    match (v1, v2) {
        (0, None) => "none mounted".to_owned(),
        (0, Some(path)) => format!("v2: {}", controllers(&path)),
        (count, None) => format!("v1: {count} hierarchies"),
        (count, Some(path)) => {
            let on_v2 = controllers(&path);
            let on_v2 = if on_v2.is_empty() {
                "none".to_owned()
            } else {
                on_v2
            };
            format!("hybrid: {count} hierarchies of v1; controllers on v2: {on_v2}")
        }
    }
}

fn user_namespaces() -> String {
    let limit = read("/proc/sys/user/max_user_namespaces");
    let debian = read("/proc/sys/kernel/unprivileged_userns_clone");
    let apparmor = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    if limit == "0" {
        "turned off: sysctl user.max_user_namespaces=0".to_owned()
    } else if debian == "0" {
        "root only: sysctl kernel.unprivileged_userns_clone=0".to_owned()
    } else if apparmor == "1" {
        "restricted: sysctl kernel.apparmor_restrict_unprivileged_userns=1".to_owned()
    } else {
        format!("at most {limit}")
    }
}

fn id_ranges() -> Vec<Feature> {
    let caller = host::caller();
    let range = |range: crate::plan::identity::Subordinate| match range {
        Some((first, count)) => format!("{count} from {first}"),
        None => "none".to_owned(),
    };
    let there = caller.subuids.is_some() && caller.subgids.is_some();
    let detail = format!(
        "users: {}; groups: {} (/etc/subuid, /etc/subgid, newuidmap, newgidmap)",
        range(caller.subuids),
        range(caller.subgids)
    );
    vec![Feature {
        name: "subordinate ids",
        there: Some(there),
        detail,
    }]
}

fn kernel_features() -> Vec<Feature> {
    let file_systems = read("/proc/filesystems");
    let feature = |name, there, detail: &str| Feature {
        name,
        there: Some(there),
        detail: detail.to_owned(),
    };
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    let lsm = read("/sys/kernel/security/lsm");
    let overlay = file_systems.contains("overlay");
    vec![
        feature("overlay", overlay, "the default root, images, --rootfs"),
        Feature {
            name: "seccomp",
            there: Some(!actions.is_empty()),
            detail: actions,
        },
        about(
            "security modules",
            if lsm.is_empty() {
                "unknown".to_owned()
            } else {
                lsm
            },
        ),
        feature("pidfd", probe::pidfd(), "since Linux 5.3"),
        feature("openat2", probe::openat2(), "since Linux 5.6; needed"),
        feature(
            "mount_setattr",
            probe::mount_setattr(),
            "idmapped mounts, rro; since Linux 5.12",
        ),
        feature(
            "PAGEMAP_SCAN",
            probe::pagemap_scan(),
            "incremental checkpoints; since Linux 6.7",
        ),
        feature(
            "userfaultfd",
            Path::new("/dev/userfaultfd").exists(),
            "/dev/userfaultfd",
        ),
        feature("FUSE", Path::new("/dev/fuse").exists(), "/dev/fuse"),
        feature(
            "pressure stall information",
            Path::new("/proc/pressure").exists(),
            "/proc/pressure",
        ),
    ]
}

fn rights() -> Vec<Feature> {
    let set = host::bounding_set();
    [
        (
            "CAP_SYS_RESOURCE",
            24,
            "raising limits, --privileged in full",
        ),
        ("CAP_SYS_ADMIN", 21, "mounts without a user namespace"),
        ("CAP_NET_ADMIN", 12, "networks of containers"),
        ("CAP_CHECKPOINT_RESTORE", 40, "chosen pids"),
    ]
    .into_iter()
    .map(|(name, number, detail)| Feature {
        name,
        there: Some(set >> number & 1 == 1),
        detail: detail.to_owned(),
    })
    .collect()
}

/// Asks the kernel: a feature that is there answers, with an error about the arguments perhaps.
mod probe {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

    pub(super) fn pidfd() -> bool {
        let flags = rustix::process::PidfdFlags::empty();
        rustix::process::pidfd_open(rustix::process::getpid(), flags).is_ok()
    }

    pub(super) fn openat2() -> bool {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::empty()).is_ok()
    }

    pub(super) fn mount_setattr() -> bool {
        // Without rights the answer is another error than ENOSYS.
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        root.is_ok_and(|root| {
            let nothing = sys::mount::Attributes::default();
            let answer = sys::mount::set_attributes(&root, &nothing, sys::mount::Scope::One);
            answer != Err(sys::Errno::NOSYS)
        })
    }

    pub(super) fn pagemap_scan() -> bool {
        sys::pagemap::has_scan()
    }
}
