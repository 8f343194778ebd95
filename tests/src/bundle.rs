//! An OCI bundle in a temporary directory, edited as JSON.

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs};
use tempfile::TempDir;

/// A bundle: a root file system that holds `/payload`, and a `config.json` in the making.
///
/// The configuration is what `runc spec` users start from: six new namespaces, /proc, /dev and /sys,
/// a short list of capabilities, a group of the test's own. Each test changes what it is about.
#[derive(Debug)]
pub struct Bundle {
    directory: TempDir,
    id: String,
    config: Value,
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

impl Bundle {
    /// A bundle whose process is `payload true`.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("floe-test.")
            .tempdir()
            .expect("temporary directory");
        // Mapped root of a user namespace must be able to walk in.
        chmod(directory.path(), 0o755);
        let id = crate::unique_id();
        let bundle = Self {
            config: default_config(&id),
            directory,
            id,
        };
        for name in ["dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(bundle.rootfs().join(name)).expect("directory in the rootfs");
        }
        chmod(&bundle.rootfs().join("tmp"), 0o1777);
        fs::copy(payload(), bundle.rootfs().join("payload"))
            .expect("the payload program, which `cargo xtask test` builds");
        bundle
    }

    /// The payload's verb and arguments; several verbs are separated by `--`.
    #[must_use]
    pub fn args<const N: usize>(self, args: [&str; N]) -> Self {
        let all: Vec<&str> = std::iter::once("/payload").chain(args).collect();
        self.set("/process/args", json!(all))
    }

    /// Sets the value at a JSON pointer, making the objects on the way: `set("/linux/seccomp", json!({…}))`.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut at = &mut self.config;
        for key in pointer.split('/').skip(1) {
            at = match at {
                Value::Array(list) => &mut list[key.parse::<usize>().expect("index into a list")],
                other => &mut other[key],
            };
        }
        *at = value.into();
        self
    }

    /// Appends to the list at a JSON pointer, which is made if it is not there.
    #[must_use]
    pub fn push(self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut list = match self.config.pointer(pointer) {
            Some(Value::Array(list)) => list.clone(),
            _ => Vec::new(),
        };
        list.push(value.into());
        self.set(pointer, Value::Array(list))
    }

    /// Removes the member at a JSON pointer.
    #[must_use]
    pub fn remove(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        if let Some(Value::Object(parent)) = self.config.pointer_mut(parent) {
            parent.remove(key);
        }
        self
    }

    /// Changes the configuration by hand.
    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Appends one mount of the configuration: type, source, destination, options.
    #[must_use]
    pub fn mount(self, kind: &str, source: &str, destination: &str, options: &[&str]) -> Self {
        let mount =
            json!({"type": kind, "source": source, "destination": destination, "options": options});
        self.push("/mounts", mount)
    }

    /// Appends `NAME=value` to the process's environment.
    #[must_use]
    pub fn env(self, variable: &str) -> Self {
        self.push("/process/env", variable)
    }

    /// Lets the container share the host's namespace of this type.
    #[must_use]
    pub fn without_namespace(mut self, kind: &str) -> Self {
        if let Some(Value::Array(list)) = self.config.pointer_mut("/linux/namespaces") {
            list.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// A new user namespace in which 0..65536 are the host's `first`..; the rootfs then belongs to `first`.
    #[must_use]
    pub fn user_namespace(self, first: u32) -> Self {
        let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
        chown_tree(&self.rootfs(), first);
        self.push("/linux/namespaces", json!({"type": "user"}))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    /// Writes a file into the rootfs, with the directories on the way.
    #[must_use]
    pub fn file(self, path: &str, content: &str) -> Self {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a path in the rootfs"))
            .expect("directory in the rootfs");
        fs::write(path, content).expect("file in the rootfs");
        self
    }

    /// The id that the bundle's container gets.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The configuration as it stands.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The directory that holds everything of this test; a test may put files of its own there.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The bundle's directory: `config.json` and `rootfs`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory().join("bundle")
    }

    /// The container's root file system as the host sees it.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// Writes `config.json`; [`crate::Container`] does it before its first command.
    pub fn write(&self) {
        let text = serde_json::to_vec_pretty(&self.config).expect("JSON");
        fs::write(self.path().join("config.json"), text).expect("config.json");
    }
}

/// The payload program of this build, beside the directory of the running test program.
#[must_use]
pub fn payload() -> PathBuf {
    built_program("payload")
}

/// An executable of the same build as the running test.
#[must_use]
pub fn built_program(name: &str) -> PathBuf {
    let test = env::current_exe().expect("path of the test program");
    let build = test.parent().and_then(Path::parent).expect("target/…/deps");
    build.join(name)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn chown_tree(path: &Path, owner: u32) {
    std::os::unix::fs::lchown(path, Some(owner), Some(owner)).expect("chown in the rootfs");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("directory in the rootfs") {
            chown_tree(&entry.expect("entry of the rootfs").path(), owner);
        }
    }
}

/// The group of a test: a parent of its own, so that two tests never meet in one directory.
pub(crate) fn cgroup_parent(id: &str) -> String {
    format!("/{id}")
}

fn default_config(id: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/payload", "true"],
            "env": ["PATH=/", format!("{}={id}", crate::leftovers::MARK)],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "floe-test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "cgroupsPath": format!("{}/box", cgroup_parent(id)),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"},
                {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
