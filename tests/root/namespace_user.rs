//! Containers of an ordinary user: roadmap N10.

use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use tests::{Bundle, Container};

const USER: u32 = 1000;

/// A bundle as `spec --rootless` makes it: a user namespace, no groups, no device nodes.
pub(crate) fn rootless(bundle: Bundle) -> Bundle {
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    bundle
        .push("/linux/namespaces", json!({"type": "user"}))
        .without_namespace("network")
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .remove("/linux/cgroupsPath")
        .remove("/linux/resources")
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            // A new sysfs needs a network namespace of one's own.
            mounts.retain(|mount| mount["type"] != "sysfs");
        })
}

fn give(path: &Path, owner: u32) {
    std::os::unix::fs::lchown(path, Some(owner), Some(owner)).expect("chown");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a directory") {
            give(&entry.expect("an entry").path(), owner);
        }
    }
}

/// A command of the runtime that the user calls. The build may lie where the user cannot go.
pub(crate) fn as_user(container: &Container, args: &[&str]) -> Command {
    let directory = container.bundle().directory();
    let program = directory.join(container.runtime().program().file_name().expect("a name"));
    if !program.exists() {
        fs::copy(container.runtime().program(), &program).expect("a copy of the runtime");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        give(directory, USER);
    }
    let mut command = Command::new(program);
    command
        .arg("--root")
        .arg(container.state_root())
        .args(args)
        .env(tests::leftovers::MARK, container.id())
        .stdin(std::process::Stdio::null())
        .uid(USER)
        .gid(USER)
        .current_dir(directory);
    command
}

fn run(container: &Container) -> tests::Outcome {
    let bundle = container.bundle().path();
    let mut command = as_user(container, &["run", "--bundle"]);
    command.arg(bundle).arg(container.id());
    container.outcome(&mut command)
}

/// Whether this kernel lets an ordinary user make a user namespace.
fn allowed() -> bool {
    let status = Command::new("unshare").args(["-Ur", "true"]).uid(USER).gid(USER).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn an_ordinary_user_runs_a_container() {
    if !allowed() {
        tests::elsewhere!("ordinary users may not make user namespaces");
    }
    let bundle = rootless(Bundle::new().args(["id", "--", "touch", "/tmp/made", "--", "pid", "--", "exit", "6"]));
    let made = bundle.rootfs().join("tmp/made");
    let container = Container::new(bundle);
    run(&container).exits(6).prints("uid=0 gid=0 groups=\n1\n");
    assert_eq!(fs::metadata(made).expect("the file").uid(), USER);
}

#[test]
fn an_ordinary_user_has_the_whole_life_of_a_container() {
    if !allowed() {
        tests::elsewhere!("ordinary users may not make user namespaces");
    }
    let container = Container::new(rootless(Bundle::new().args(["sleep", "1000"])));
    let id = container.id().to_owned();
    let call = |args: &[&str]| container.outcome(&mut as_user(&container, args));
    let bundle = container.bundle().path().display().to_string();
    call(&["create", "--bundle", &bundle, &id]).succeeds();
    call(&["start", &id]).succeeds();
    let state = call(&["state", &id]).succeeds().json();
    assert_eq!(state["status"], "running");
    call(&["list", "-q"]).succeeds().prints(&format!("{id}\n"));
    call(&["exec", &id, "/payload", "id", "--", "exit", "3"])
        .exits(3)
        .prints("uid=0 gid=0 groups=\n");
    call(&["kill", &id, "KILL"]).succeeds();
    // Root refuses a state directory that is not its own.
    tests::wait_until("it is stopped", || call(&["state", &id]).json()["status"] == "stopped");
    call(&["delete", &id]).succeeds();
    call(&["state", &id]).fails().says("does not exist");
}

/// newuidmap and newgidmap give the ranges of `/etc/subuid` and `/etc/subgid`, which are made up
/// here in a mount namespace of the test's own.
#[test]
fn ranges_come_from_subuid() {
    tests::differs!("runc refuses supplementary groups of an ordinary user");
    if !allowed() {
        tests::elsewhere!("ordinary users may not make user namespaces");
    }
    let _helper = tests::need!(tests::host::program("newuidmap"), "needs newuidmap (package uidmap)");
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": 700_000, "size": 1000},
    ]);
    let bundle = rootless(Bundle::new().args(["id", "--", "touch", "/tmp/made", "--", "chown", "/tmp/made", "5", "6"]))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/process/user/additionalGids", json!([7]))
        .edit(|config| {
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_CHOWN"]);
            }
        });
    let made = bundle.rootfs().join("tmp/made");
    let container = Container::new(bundle);
    let runtime = as_user(&container, &["run", "--bundle"]);
    let files = container.bundle().directory().join("files");
    fs::create_dir(&files).expect("a directory");
    for (name, text) in [
        ("passwd", format!("root:x:0:0::/root:/bin/sh\nfloetest:x:{USER}:{USER}::/tmp:/bin/sh\n")),
        ("subuid", "floetest:700000:1000\n".to_owned()),
        ("subgid", "floetest:700000:1000\n".to_owned()),
    ] {
        fs::write(files.join(name), text).expect("a file");
    }
    let files = files.display();
    let script = format!(
        "for name in passwd subuid subgid; do
           test -e /etc/$name || touch /etc/$name
           mount --bind {files}/$name /etc/$name
         done
         exec setpriv --reuid {USER} --regid {USER} --clear-groups \"$0\" \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-euc", &script]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    command.arg(container.bundle().path()).arg(container.id());
    command.env(tests::leftovers::MARK, container.id());
    container.outcome(&mut command).succeeds().prints("uid=0 gid=0 groups=7\n");
    let found = fs::metadata(made).expect("the file");
    assert_eq!((found.uid(), found.gid()), (700_004, 700_005));
}

/// A map that nobody granted is refused, and named.
#[test]
fn a_map_of_others_ids_is_refused() {
    if !allowed() {
        tests::elsewhere!("ordinary users may not make user namespaces");
    }
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let bundle = rootless(Bundle::new()).set("/linux/uidMappings", map);
    let container = Container::new(bundle);
    let outcome = run(&container).exits(1);
    if container.runtime().is_floe() {
        outcome.says("linux.uidMappings");
    }
}

#[test]
fn an_ordinary_user_without_a_user_namespace_is_told_so() {
    let bundle = rootless(Bundle::new())
        .without_namespace("user")
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    let container = Container::new(bundle);
    let outcome = run(&container).exits(1);
    assert_eq!(outcome.stderr().lines().count(), 1, "{}", outcome.stderr());
}
