//! `floe-oci --systemd-cgroup`: scopes of a real systemd, from `create` to `delete`.

use crate::namespace_user::{as_user, rootless};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tests::host::{self, Layout};
use tests::{Bundle, Container, Outcome, elsewhere, unique_id, wait_until};

const SLICE: &str = "floetest.slice";

/// Whether systemd is the service manager, as sd_booted(3) finds out.
fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

macro_rules! need_systemd {
    () => {
        if !booted() {
            elsewhere!("needs systemd as the service manager");
        }
    };
}

/// A container in a scope of the test's slice.
struct Scoped {
    container: Container,
    unit: String,
}

impl Scoped {
    fn new(bundle: Bundle) -> Self {
        let id = bundle.id().to_owned();
        let bundle = bundle.set("/linux/cgroupsPath", format!("{SLICE}:floe:{id}"));
        Self {
            container: Container::new(bundle),
            unit: format!("floe-{id}.scope"),
        }
    }

    fn sleeper() -> Self {
        Self::new(Bundle::new().args(["sleep", "1000"]))
    }

    /// A command of the runtime with `--systemd-cgroup`.
    fn call<const N: usize>(&self, args: [&str; N]) -> Outcome {
        self.container.call(["--systemd-cgroup"].into_iter().chain(args))
    }

    fn create(&self) -> Outcome {
        let bundle = self.container.bundle().path().display().to_string();
        self.call(["create", "--bundle", &bundle, self.container.id()])
    }

    fn start(&self) {
        self.create().succeeds();
        self.container.start().succeeds();
    }

    fn show(&self, property: &str) -> String {
        show(&self.unit, property)
    }

    /// The scope's group in the hierarchy of a controller.
    fn group(&self, controller: &str) -> PathBuf {
        let mount = host::controller(controller).expect("the controller");
        mount.join(SLICE).join(&self.unit)
    }

    fn file(&self, controller: &str, v1: &str, v2: &str) -> String {
        let name = if host::layout() == Layout::V2 { v2 } else { v1 };
        let path = self.group(controller).join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        text.trim().to_owned()
    }

    fn memory(&self) -> String {
        self.file("memory", "memory.limit_in_bytes", "memory.max")
    }

    fn pids(&self) -> String {
        self.file("pids", "pids.max", "pids.max")
    }

    /// Neither unit nor group nor state.
    #[track_caller]
    fn is_gone(&self) {
        assert_eq!(self.show("LoadState"), "not-found");
        assert_eq!(groups_named(&self.unit), Vec::<PathBuf>::new());
        assert!(!self.container.state_root().join(self.container.id()).exists());
    }
}

fn systemctl<const N: usize>(args: [&str; N]) -> String {
    let output = Command::new("systemctl").args(args).output().expect("execute systemctl");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn show(unit: &str, property: &str) -> String {
    systemctl(["show", "--value", "-p", property, unit])
}

/// Every group of this name, in every hierarchy.
fn groups_named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = host::cgroup_mounts();
    while let Some(directory) = todo.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()) {
            if path.file_name().is_some_and(|own| own == name) {
                found.push(path.clone());
            }
            todo.push(path);
        }
    }
    found
}

/// The group of a process in the hierarchy that systemd keeps its units in.
fn group_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process");
    let line = text.lines().find(|line| line.starts_with("0::") || line.contains(":name=systemd:"));
    line.and_then(|line| line.splitn(3, ':').nth(2)).expect("a group").to_owned()
}

const MIB: u64 = 1 << 20;

#[test]
fn a_scope_holds_the_container_and_its_limits() {
    need_systemd!();
    let limits = json!({
        "devices": [{"allow": false, "access": "rwm"}],
        "memory": {"limit": 64 * MIB, "swap": 64 * MIB},
        "pids": {"limit": 30},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000}
    });
    let bundle = Bundle::new().args(["sleep", "1000"]).set("/linux/resources", limits);
    let scoped = Scoped::new(bundle);
    let container = &scoped.container;
    scoped.create().succeeds();
    assert_eq!(container.status(), "created");
    let own = format!("/{SLICE}/{}", scoped.unit);
    assert_eq!(scoped.show("ControlGroup"), own);
    assert_eq!(scoped.show("Slice"), SLICE);
    assert_eq!(scoped.show("ActiveState"), "active");
    assert_eq!(scoped.show("Delegate"), "yes");
    assert_eq!(scoped.show("TasksMax"), "30");
    assert_eq!(scoped.show("CPUQuotaPerSecUSec"), "500ms");
    let memory = if host::layout() == Layout::V2 { "MemoryMax" } else { "MemoryLimit" };
    assert_eq!(scoped.show(memory), (64 * MIB).to_string());
    assert_eq!((scoped.memory(), scoped.pids()), ((64 * MIB).to_string(), "30".to_owned()));
    container.start().succeeds();
    assert_eq!(group_of(container.pid()), own);
    // What `exec` starts is there too, and `ps` finds it.
    container
        .call(["exec", "--detach", container.id(), "/payload", "sleep", "1000"])
        .succeeds();
    let pids = container.call(["ps", "--format", "json", container.id()]).succeeds().json();
    let pids: Vec<i32> = serde_json::from_value(pids).expect("pids");
    assert_eq!(pids.len(), 2, "{pids:?}");
    for pid in pids {
        assert_eq!(group_of(pid), own);
    }
    let stats = container.call(["events", "--stats", container.id()]).succeeds().json();
    assert_eq!(stats["data"]["pids"]["current"], 2, "{stats}");
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    container.delete().succeeds();
    scoped.is_gone();
}

#[test]
fn an_update_reaches_systemd_and_outlives_a_reload() {
    need_systemd!();
    let scoped = Scoped::sleeper();
    scoped.start();
    let id = scoped.container.id();
    let property = if host::layout() == Layout::V2 { "MemoryMax" } else { "MemoryLimit" };
    for (mib, pids) in [(32, 20), (96, 40)] {
        let bytes = (mib * MIB).to_string();
        let pids = pids.to_string();
        // As engines do, and without the flag: the record knows who manages the groups.
        let update = ["update", "--memory", &bytes, "--memory-swap", &bytes, "--pids-limit", &pids, id];
        scoped.container.call(update).succeeds();
        for reloaded in [false, true] {
            if reloaded {
                systemctl(["daemon-reload"]);
            }
            assert_eq!(scoped.show(property), bytes, "reloaded: {reloaded}");
            assert_eq!(scoped.show("TasksMax"), pids);
            assert_eq!((scoped.memory(), scoped.pids()), (bytes.clone(), pids.clone()), "reloaded: {reloaded}");
        }
    }
}

#[test]
fn a_paused_scope_stands_still_and_can_be_ended() {
    need_systemd!();
    let scoped = Scoped::sleeper();
    scoped.start();
    let container = &scoped.container;
    container.call(["pause", container.id()]).succeeds();
    assert_eq!(container.status(), "paused");
    container.call(["resume", container.id()]).succeeds();
    assert_eq!(container.status(), "running");
    container.call(["pause", container.id()]).succeeds();
    systemctl(["daemon-reload"]);
    assert_eq!(container.status(), "paused");
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    container.delete().succeeds();
    scoped.is_gone();
    scoped.start();
    container.call(["pause", container.id()]).succeeds();
    container.call(["delete", "--force", container.id()]).succeeds();
    scoped.is_gone();
}

/// The processes lie in a group below the scope, out of reach of its limits.
#[test]
fn an_inner_group_lies_below_the_scope() {
    need_systemd!();
    let annotations = json!({"org.floe.cgroup.inner": "true"});
    let bundle = Bundle::new()
        .args(["cat", "/proc/self/cgroup", "--", "sleep", "1000"])
        .set("/annotations", annotations)
        .set("/linux/resources/pids", json!({"limit": 30}));
    let scoped = Scoped::new(bundle);
    scoped.start();
    let container = &scoped.container;
    let own = format!("/{SLICE}/{}", scoped.unit);
    let inner = group_of(container.pid());
    assert!(inner.starts_with(&format!("{own}/")), "{inner}");
    wait_until("the container tells its group", || container.log().contains("0::/\n"));
    assert_eq!((scoped.show("TasksMax"), scoped.pids()), ("30".to_owned(), "30".to_owned()));
    let id = container.id();
    container.call(["exec", "--detach", id, "/payload", "sleep", "1000"]).succeeds();
    let pids = container.call(["ps", "--format", "json", id]).succeeds().json();
    assert_eq!(pids.as_array().expect("pids").len(), 2);
    container.call(["update", "--pids-limit", "50", id]).succeeds();
    systemctl(["daemon-reload"]);
    assert_eq!((scoped.show("TasksMax"), scoped.pids()), ("50".to_owned(), "50".to_owned()));
    assert_eq!(group_of(container.pid()), inner);
    container.call(["pause", id]).succeeds();
    assert_eq!(container.status(), "paused");
    container.call(["resume", id]).succeeds();
    container.call(["delete", "--force", id]).succeeds();
    scoped.is_gone();
}

/// Without a path: a scope in `system.slice`, with the properties that annotations ask for.
#[test]
fn the_default_is_a_scope_of_the_system() {
    need_systemd!();
    let bundle = Bundle::new()
        .args(["sleep", "1000"])
        .remove("/linux/cgroupsPath")
        .set("/annotations", json!({"org.systemd.property.TimeoutStopUSec": "uint64 7000000"}));
    let container = Container::new(bundle);
    let (bundle, id) = (container.bundle().path().display().to_string(), container.id());
    container.call(["--systemd-cgroup", "create", "--bundle", &bundle, id]).succeeds();
    container.start().succeeds();
    let unit = format!("floe-{id}.scope");
    assert_eq!(show(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(group_of(container.pid()), format!("/system.slice/{unit}"));
    container.call(["delete", "--force", id]).succeeds();
    assert_eq!(show(&unit, "LoadState"), "not-found");
    assert_eq!(groups_named(&unit), Vec::<PathBuf>::new());
}

#[test]
fn a_failed_create_leaves_no_unit() {
    need_systemd!();
    let hook = json!([{"path": "/bin/false"}]);
    let scoped = Scoped::new(Bundle::new().set("/hooks/createRuntime", hook));
    scoped.create().fails().says("createRuntime");
    scoped.is_gone();
    for (path, cause) in [
        ("/floe/x", "slice:prefix:name"),
        ("floetest:floe:x", "slice"),
        ("floetest.slice:floe:x y", "unit name"),
    ] {
        let scoped = Scoped::sleeper();
        let config = scoped.container.bundle().path().join("config.json");
        let mut spec = scoped.container.bundle().config().clone();
        spec["linux"]["cgroupsPath"] = path.into();
        fs::write(config, spec.to_string()).expect("config.json");
        let error = scoped.create().fails().says(cause).stderr();
        assert_eq!(error.lines().count(), 1, "{error}");
        scoped.is_gone();
    }
}

/// The hook's parent is the runtime; the scope was made by then.
#[test]
fn a_killed_create_leaves_nothing_that_delete_does_not_find() {
    need_systemd!();
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]);
    let scoped = Scoped::new(Bundle::new().set("/hooks/createRuntime", hook));
    scoped.create().exits(137);
    let container = &scoped.container;
    assert!(container.state_root().join(container.id()).exists());
    container.call(["delete", "--force", container.id()]).succeeds();
    scoped.is_gone();
}

/// Two scopes of one name in two slices have different groups, but are one unit.
#[test]
fn a_unit_of_somebody_else_is_left_alone() {
    need_systemd!();
    let scoped = Scoped::sleeper();
    scoped.start();
    let (first, pid) = (&scoped.container, scoped.container.pid());
    let path = format!("floetestother.slice:floe:{}", first.id());
    let second = Container::new(Bundle::new().set("/linux/cgroupsPath", path));
    let (bundle, id) = (second.bundle().path().display().to_string(), second.id());
    let create = ["--systemd-cgroup", "create", "--bundle", &bundle, id];
    second.call(create).fails().says("UnitExists");
    second.call(["delete", "--force", id]).succeeds();
    // Not even on its way out: a program that heeds no SIGTERM would still run for a while.
    assert_eq!(scoped.show("ActiveState"), "active");
    assert_eq!(first.status(), "running");
    assert_eq!(group_of(pid), format!("/{SLICE}/{}", scoped.unit));
    // The same path is refused before anything is asked of systemd.
    let path = format!("{SLICE}:floe:{}", first.id());
    let third = Container::new(Bundle::new().set("/linux/cgroupsPath", path));
    let (bundle, id) = (third.bundle().path().display().to_string(), third.id());
    let create = ["--systemd-cgroup", "create", "--bundle", &bundle, id];
    third.call(create).fails().says("has 1 processes");
    assert_eq!(first.status(), "running");
}

/// A systemd of an ordinary user, as user@.service runs it, in a delegated part of `user.slice`.
struct Manager {
    unit: String,
    runtime: tempfile::TempDir,
}

const USER: u32 = 1000;

/// Gives the service's group to the user, who need not have an account for which systemd would do it.
const AS_USER: &str = "
    cd /sys/fs/cgroup$(sed s/0::// /proc/self/cgroup) &&
    chown 1000:1000 . cgroup.procs cgroup.threads cgroup.subtree_control &&
    exec setpriv --reuid 1000 --regid 1000 --clear-groups /lib/systemd/systemd --user";

impl Manager {
    fn start() -> Self {
        let runtime = tempfile::tempdir().expect("temporary directory");
        std::os::unix::fs::chown(runtime.path(), Some(USER), Some(USER)).expect("chown");
        let unit = format!("{}.service", unique_id());
        let mut command = Command::new("systemd-run");
        command
            .args(["--quiet", "--slice=user.slice", "--property=Delegate=yes"])
            .arg(format!("--unit={unit}"))
            .arg(format!("--setenv=XDG_RUNTIME_DIR={}", runtime.path().display()))
            .arg(format!("--setenv=HOME={}", runtime.path().display()))
            .args(["--setenv=USER=floetest", "--setenv=SHELL=/bin/sh"])
            .args(["sh", "-c", AS_USER]);
        assert!(command.status().expect("execute systemd-run").success());
        let manager = Self { unit, runtime };
        wait_until("the user's systemd answers", || manager.path().join("systemd/private").exists());
        manager
    }

    fn path(&self) -> &Path {
        self.runtime.path()
    }

    /// The group that is the user's own.
    fn group(&self) -> PathBuf {
        let path = show(&self.unit, "ControlGroup");
        host::cgroup_mounts().remove(0).join(path.trim_start_matches('/'))
    }

    /// The same command as an ordinary user in a group of that user's, as a login session's are.
    /// With `mapped` in a user namespace too, where the user is root: so Podman calls its runtime.
    fn command(&self, command: &Command, mapped: bool) -> Command {
        let session = self.group().join("session");
        let _ = fs::create_dir(&session);
        for path in [session.clone(), session.join("cgroup.procs")] {
            std::os::unix::fs::chown(path, Some(USER), Some(USER)).expect("chown");
        }
        let mut all = Command::new("sh");
        all.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(session.join("cgroup.procs"));
        all.args(["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]);
        if mapped {
            all.args(["unshare", "--user", "--map-root-user"]);
        }
        all.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                all.env(name, value);
            }
        }
        if let Some(directory) = command.get_current_dir() {
            all.current_dir(directory);
        }
        all.env("XDG_RUNTIME_DIR", self.path()).env_remove("DBUS_SESSION_BUS_ADDRESS").stdin(Stdio::null());
        all
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        systemctl(["stop", &self.unit]);
    }
}

#[test]
fn an_ordinary_users_scope_lies_in_their_own_systemd() {
    users_scope(false);
}

#[test]
fn a_user_who_is_root_in_a_user_namespace_asks_their_own_systemd() {
    users_scope(true);
}

fn users_scope(mapped: bool) {
    need_systemd!();
    if host::layout() != Layout::V2 {
        elsewhere!("needs cgroup v2 alone: version 1 has no safe delegation");
    }
    let manager = Manager::start();
    let bundle = rootless(Bundle::new().args(["sleep", "1000"]));
    let id = bundle.id().to_owned();
    let bundle = bundle
        .set("/linux/cgroupsPath", format!(":floe:{id}"))
        .set("/linux/resources/pids", json!({"limit": 30}))
        .set("/linux/resources/memory", json!({"limit": 64 * MIB}));
    let bundle = if mapped {
        // It is mapped already.
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    } else {
        bundle
    };
    let container = Container::new(bundle);
    let call = |args: &[&str]| {
        let args: Vec<&str> = ["--systemd-cgroup"].iter().chain(args).copied().collect();
        container.outcome(&mut manager.command(&as_user(&container, &args), mapped))
    };
    let bundle = container.bundle().path().display().to_string();
    call(&["create", "--bundle", &bundle, &id]).succeeds();
    call(&["start", &id]).succeeds();
    let unit = format!("floe-{id}.scope");
    let own = groups_named(&unit);
    let [group] = own.as_slice() else { panic!("{own:?}") };
    assert!(group.starts_with(manager.group().join("user.slice")), "{group:?}");
    let limits = || ["pids.max", "memory.max"].map(|name| fs::read_to_string(group.join(name)).expect("a limit"));
    assert_eq!(limits(), ["30\n".to_owned(), format!("{}\n", 64 * MIB)]);
    let pid = call(&["state", &id]).succeeds().json()["pid"].as_i64().expect("a pid");
    let pid = i32::try_from(pid).expect("a pid");
    assert!(group.ends_with(group_of(pid).trim_start_matches('/')), "{}", group_of(pid));
    call(&["update", "--pids-limit", "50", &id]).succeeds();
    assert_eq!(limits()[0], "50\n");
    call(&["pause", &id]).succeeds();
    assert_eq!(call(&["state", &id]).json()["status"], "paused");
    call(&["resume", &id]).succeeds();
    call(&["delete", "--force", &id]).succeeds();
    assert_eq!(groups_named(&unit), Vec::<PathBuf>::new());
    call(&["state", &id]).fails().says("does not exist");
}
