//! `mounts`: attributes, recursive ones, propagation, id maps; roadmap N7 and N10.

use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{Bundle, Container, Outcome};

/// The options of the mount at `point` in what `payload mounts` printed: of the mount, then the
/// optional fields (propagation).
fn mount_at(outcome: &Outcome, point: &str) -> (String, String) {
    let text = outcome.stdout();
    let of_point = |line: &&str| line.split(' ').nth(4) == Some(point);
    let line = text.lines().rfind(of_point);
    let line = line.unwrap_or_else(|| panic!("nothing on {point}: {text}"));
    let fields: Vec<&str> = line.split(" - ").next().unwrap_or_default().split(' ').collect();
    (fields[5].to_owned(), fields[6..].join(" "))
}

/// A directory of this test on the host.
fn directory(bundle: &Bundle, name: &str) -> PathBuf {
    let path = bundle.directory().join(name);
    std::fs::create_dir_all(&path).expect("a directory");
    path
}

/// A command of the host in a mount namespace of its own, in which `script` has run before it; so
/// that what a test mounts is gone with it.
fn beside(container: &Container, script: &str) -> Outcome {
    let runtime = container.command(["run", "--bundle"]);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "--propagation", "private", "sh", "-euc"])
        .arg(format!("{script}\nexec \"$0\" \"$@\""))
        .arg(runtime.get_program())
        .args(runtime.get_args())
        .arg(container.bundle().path())
        .arg(container.id());
    for (name, value) in runtime.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    container.outcome(&mut command)
}

#[test]
fn attributes_are_those_asked_for() {
    for (options, wanted, unwanted) in [
        (&["ro"][..], &["ro"][..], &["rw", "nosuid"][..]),
        (&["nosuid", "nodev", "noexec"], &["rw", "nosuid", "nodev", "noexec"], &[]),
        (&["noatime"], &["noatime"], &["relatime"]),
        (&["nodiratime", "relatime"], &["nodiratime", "relatime"], &["noatime"]),
        (&["strictatime"], &["rw"], &["noatime", "relatime"]),
        (&["nosymfollow"], &["nosymfollow"], &[]),
        (&["ro", "rw"], &["rw"], &["ro"]),
    ] {
        let bundle = Bundle::new()
            .args(["mounts"])
            .mount("tmpfs", "tmpfs", "/x", options);
        let (found, _) = mount_at(&Container::new(bundle).run().succeeds(), "/x");
        let found: Vec<&str> = found.split(',').collect();
        for word in wanted {
            assert!(found.contains(word), "{options:?}: no {word} in {found:?}");
        }
        for word in unwanted {
            assert!(!found.contains(word), "{options:?}: {word} in {found:?}");
        }
    }
}

/// The plain word is for the mount, the one with `r` for all below it too.
#[test]
fn recursive_attributes_reach_the_mounts_below() {
    for (option, upper, lower) in [
        ("ro", "ro", "rw"),
        ("rro", "ro", "ro"),
        ("nosuid", "nosuid", "-nosuid"),
        ("rnosuid", "nosuid", "nosuid"),
        ("rnodev", "nodev", "nodev"),
        ("rnoexec", "noexec", "noexec"),
        ("rnoatime", "noatime", "noatime"),
        ("rnosymfollow", "nosymfollow", "nosymfollow"),
    ] {
        let bundle = Bundle::new().args(["mounts"]);
        let source = directory(&bundle, "tree");
        let bundle = bundle.mount("bind", &source.to_string_lossy(), "/tree", &["rbind", option]);
        let script = format!(
            "mount -t tmpfs none {0}; mkdir {0}/below; mount -t tmpfs none {0}/below",
            source.display()
        );
        let outcome = beside(&Container::new(bundle), &script).succeeds();
        for (point, wanted) in [("/tree", upper), ("/tree/below", lower)] {
            let (found, _) = mount_at(&outcome, point);
            let has = |word: &str| found.split(',').any(|other| other == word);
            match wanted.strip_prefix('-') {
                Some(word) => assert!(!has(word), "{option}: {point} is {found}"),
                None => assert!(has(wanted), "{option}: {point} is {found}"),
            }
        }
    }
}

/// `bind` alone leaves the mounts below behind.
#[test]
fn a_plain_bind_is_one_mount() {
    let bundle = Bundle::new().args(["try", "cat", "/tree/below/file"]);
    let source = directory(&bundle, "tree");
    let bundle = bundle.mount("bind", &source.to_string_lossy(), "/tree", &["bind"]);
    let script = format!(
        "mkdir -p {0}/below; mount -t tmpfs none {0}/below; echo x > {0}/below/file",
        source.display()
    );
    beside(&Container::new(bundle), &script).succeeds().prints("ENOENT\n");
}

#[test]
fn writing_to_a_read_only_bind_fails() {
    let bundle = Bundle::new().args(["try", "touch", "/data/x", "--", "cat", "/data/file"]);
    let source = directory(&bundle, "data");
    std::fs::write(source.join("file"), "y\n").expect("a file");
    let bundle = bundle.mount("bind", &source.to_string_lossy(), "/data", &["rbind", "rro"]);
    Container::new(bundle).run().succeeds().prints("EROFS\ny\n");
}

#[test]
fn a_bound_file_gets_a_file_to_be_on() {
    let bundle = Bundle::new().args(["cat", "/etc/made/up.conf"]);
    let source = bundle.directory().join("conf");
    std::fs::write(&source, "setting\n").expect("a file");
    let bundle = bundle.mount("bind", &source.to_string_lossy(), "/etc/made/up.conf", &["bind", "ro"]);
    Container::new(bundle).run().succeeds().prints("setting\n");
}

#[test]
fn the_root_is_read_only_if_asked() {
    let bundle = Bundle::new()
        .args(["try", "touch", "/x", "--", "try", "touch", "/dev/shm/x"])
        .set("/root/readonly", true);
    Container::new(bundle).run().succeeds().prints("EROFS\nok\n");
}

#[test]
fn a_tmpfs_has_its_size_and_mode() {
    let bundle = Bundle::new()
        .args(["stat", "/x", "--", "mounts"])
        .mount("tmpfs", "tmpfs", "/x", &["size=64k", "mode=1711", "uid=5", "gid=6"]);
    let outcome = Container::new(bundle).run().succeeds();
    let printed = outcome.stdout();
    assert!(printed.starts_with("directory 1711 5 6 "), "{printed}");
    assert!(printed.lines().any(|line| line.contains(" /x ") && line.contains("size=64k")));
}

#[test]
fn tmpcopyup_begins_as_a_copy() {
    let bundle = Bundle::new()
        .args(["cat", "/etc/a/file", "--", "touch", "/etc/new", "--", "list", "/etc"])
        .file("/etc/a/file", "kept\n")
        .mount("tmpfs", "tmpfs", "/etc", &["tmpcopyup"]);
    let rootfs = bundle.rootfs();
    Container::new(bundle).run().succeeds().prints("kept\na\nnew\n");
    assert!(!rootfs.join("etc/new").exists(), "written to the image");
}

/// Read-only is for the program: devices, and the places of other mounts, are made before.
#[test]
fn a_read_only_tmpfs_holds_its_devices_and_mounts() {
    let bundle = Bundle::new()
        .args([
            "stat", "/dev/null", "--", "try", "write", "/dev/new", "x", "--", "try", "write",
            "/dev/shm/new", "x",
        ])
        .set("/mounts/1/options", json!(["nosuid", "mode=755", "ro"]));
    let printed = Container::new(bundle).run().succeeds().stdout();
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].ends_with(" 1:3") && lines[1..] == ["EROFS", "ok"], "{printed}");
}

#[test]
fn an_unknown_option_is_named() {
    let bundle = Bundle::new().mount("tmpfs", "tmpfs", "/x", &["moon=full"]);
    let container = Container::new(bundle);
    let outcome = container.run().fails().says("/x");
    if container.runtime().is_floe() {
        outcome.says("moon=full").says("mount `tmpfs` on `/x`");
    }
}

#[test]
fn a_missing_source_is_named() {
    let bundle = Bundle::new().mount("bind", "/nowhere/at/all", "/x", &["bind"]);
    Container::new(bundle).run().fails().says("/nowhere/at/all").says("no such file or directory");
}

/// What is mounted on the host later arrives in a slave, and not in a private mount.
#[test]
fn propagation_is_as_asked() {
    for (option, shared, arrives) in [
        ("rprivate", "", false),
        ("rslave", "master:", true),
        ("rshared", "shared:", true),
        ("slave", "master:", true),
        ("unbindable", "unbindable", false),
    ] {
        let bundle = Bundle::new().args([
            "mounts", "--", "touch", "/tree/ready", "--", "wait-for", "/tree/go", "--", "try",
            "cat", "/tree/below/file",
        ]);
        let source = directory(&bundle, "tree");
        let bundle = bundle.mount("bind", &source.to_string_lossy(), "/tree", &["rbind", option]);
        let tree = source.display();
        let script = format!(
            "mount --bind {tree} {tree}; mount --make-shared {tree}; mkdir {tree}/below
             (until test -e {tree}/ready; do sleep 0.01; done
              mount -t tmpfs none {tree}/below; echo late > {tree}/below/file; touch {tree}/go) &"
        );
        let outcome = beside(&Container::new(bundle), &script).succeeds();
        let (_, fields) = mount_at(&outcome, "/tree");
        assert!(fields.contains(shared) && fields.is_empty() == shared.is_empty(), "{option}: {fields}");
        let end = if arrives { "late\nok\n" } else { "ENOENT\n" };
        assert!(outcome.stdout().ends_with(end), "{option}: {}", outcome.stdout());
    }
}

#[test]
fn the_roots_propagation_is_as_asked() {
    tests::differs!("runc makes a shared root private where it was private before");
    for (word, wanted) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
    ] {
        let bundle = Bundle::new()
            .args(["mounts"])
            .set("/linux/rootfsPropagation", word);
        let (_, fields) = mount_at(&Container::new(bundle).run().succeeds(), "/");
        assert!(
            fields.contains(wanted) && fields.is_empty() == wanted.is_empty(),
            "{word}: {fields}"
        );
    }
}

/// A slave root sees what the host mounts below the root file system afterwards.
#[test]
fn a_slave_root_follows_the_host() {
    let bundle = Bundle::new()
        .args([
            "touch", "/ready", "--", "wait-for", "/go", "--", "cat", "/tmp/file",
        ])
        .set("/linux/rootfsPropagation", "rslave");
    let root = bundle.rootfs();
    let root = root.display();
    let script = format!(
        "mount --bind {root} {root}; mount --make-shared {root}
         (until test -e {root}/ready; do sleep 0.01; done
          mount -t tmpfs none {root}/tmp; echo late > {root}/tmp/file; touch {root}/go) &"
    );
    beside(&Container::new(bundle), &script).succeeds().prints("late\n");
}

/// Nothing that a container mounts is seen by the host, whatever its propagation is.
#[test]
fn the_hosts_mounts_stay_the_hosts() {
    for word in ["rshared", "rslave", "rprivate"] {
        let bundle = Bundle::new()
            .args(["mount", "tmpfs", "none", "/tmp"])
            .set("/linux/rootfsPropagation", word)
            .edit(|config| {
                for set in ["bounding", "effective", "permitted"] {
                    config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
                }
            });
        let before = tests::host::mount_points();
        Container::new(bundle).run().succeeds();
        assert_eq!(tests::host::mount_points(), before, "{word}");
    }
}

/// The same for a bind mount that the runtime opens for a user namespace: the copy is made on the host.
#[test]
fn mounts_below_a_bind_stay_in_the_container() {
    for user in [false, true] {
        for option in ["bind", "rshared"] {
            let bundle = if user {
                Bundle::new().user_namespace(100_000)
            } else {
                Bundle::new()
            };
            let source = directory(&bundle, "tree");
            let bundle = bundle
                .args(["mount", "tmpfs", "none", "/tree"])
                .mount("bind", &source.to_string_lossy(), "/tree", &["rbind", option])
                .edit(|config| {
                    for set in ["bounding", "effective", "permitted"] {
                        config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
                    }
                });
            let container = Container::new(bundle);
            let tree = source.display();
            // The runtime is not exec'd here, so that the host is looked at afterwards.
            let script = format!(
                "mount --bind {tree} {tree}; mount --make-shared {tree}; \"$0\" \"$@\"
                 grep -c ' {tree} ' /proc/self/mountinfo; exit 0"
            );
            beside(&container, &script).succeeds().prints("1\n");
        }
    }
}

/// A file of the host's `owner`, seen through `options` and mappings; what the container sees, and
/// who owns on the host what the container makes beside it.
fn mapped(bundle: Bundle, owner: u32, options: &[&str], mappings: Option<Value>) -> Option<(String, u32)> {
    let bundle = bundle.args(["stat", "/data/file", "--", "touch", "/data/made"]);
    let data = directory(&bundle, "data");
    std::fs::write(data.join("file"), "").expect("a file");
    for path in [data.clone(), data.join("file")] {
        std::os::unix::fs::chown(path, Some(owner), Some(owner)).expect("chown");
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&data, open).expect("chmod");
    let mut mount = json!({
        "type": "bind", "source": data, "destination": "/data", "options": options
    });
    if let Some(mappings) = mappings {
        mount["uidMappings"] = mappings.clone();
        mount["gidMappings"] = mappings;
    }
    let container = Container::new(bundle.push("/mounts", mount));
    let outcome = container.run();
    if outcome.code() != 0 && !can_map(&data) {
        return None;
    }
    let printed = outcome.succeeds().stdout();
    let made = std::fs::metadata(data.join("made")).expect("the file that it made");
    Some((printed, made.uid()))
}

/// Whether the file system of a directory can be mapped at all.
fn can_map(directory: &Path) -> bool {
    use std::os::fd::AsFd as _;
    let Ok(mount) = sys::mount::clone_tree_at(directory, sys::mount::Scope::One) else {
        return false;
    };
    let mut holder = Command::new("unshare")
        .args(["-U", "--map-users", "0,0,1", "--map-groups", "0,0,1", "sleep", "100"])
        .spawn()
        .expect("unshare");
    let path = format!("/proc/{}/ns/user", holder.id());
    tests::wait_until("there is a user namespace", || {
        std::fs::read_link(&path).ok() != std::fs::read_link("/proc/self/ns/user").ok()
    });
    std::thread::sleep(std::time::Duration::from_millis(200));
    let namespace = std::fs::File::open(path).expect("the namespace");
    let mapped = sys::mount::set_id_map(&mount, namespace.as_fd(), sys::mount::Scope::One);
    let _ = holder.kill();
    let _ = holder.wait();
    mapped.is_ok()
}

/// N7, N10: files of one owner appear as another's, and what is made belongs to the first.
#[test]
fn an_id_mapped_mount_translates_owners() {
    tests::differs!("runc 1.1 has no id-mapped mounts");
    let mappings = json!([{"containerID": 0, "hostID": 5_000, "size": 1000}]);
    // A file of 0 on disk is 5000's through the mount, and that is 0 in the container.
    let inside = Bundle::new().user_namespace(5_000);
    for options in [&["bind"][..], &["bind", "idmap"], &["rbind", "ridmap"]] {
        let bundle = Bundle::new().user_namespace(5_000);
        let Some((printed, made)) = mapped(bundle, 0, options, Some(mappings.clone())) else {
            tests::elsewhere!("the file system of {} has no id maps", std::env::temp_dir().display());
        };
        assert!(printed.starts_with("file 644 0 0 "), "{options:?}: {printed}");
        assert_eq!(made, 0, "{options:?}");
    }
    // Without the map it is nobody's.
    let data = directory(&inside, "data");
    std::fs::write(data.join("file"), "").expect("a file");
    let inside = inside
        .args(["stat", "/data/file"])
        .mount("bind", &data.to_string_lossy(), "/data", &["bind"]);
    let printed = Container::new(inside).run().succeeds().stdout();
    assert!(printed.starts_with("file 644 65534 65534 "), "{printed}");
}

/// N7: `idmap` without mappings takes the container's own.
#[test]
fn an_id_map_defaults_to_the_containers() {
    tests::differs!("runc 1.1 has no id-mapped mounts");
    let bundle = Bundle::new().user_namespace(7_000);
    let Some((printed, made)) = mapped(bundle, 3, &["bind", "idmap"], None) else {
        tests::elsewhere!("the file system of {} has no id maps", std::env::temp_dir().display());
    };
    assert!(printed.starts_with("file 644 3 3 "), "{printed}");
    assert_eq!(made, 0);
}

/// N7: a map works without a user namespace too.
#[test]
fn an_id_map_needs_no_user_namespace() {
    tests::differs!("runc 1.1 has no id-mapped mounts");
    let mappings = json!([{"containerID": 1000, "hostID": 0, "size": 1}]);
    let Some((printed, _)) = mapped(Bundle::new(), 1000, &["bind"], Some(mappings)) else {
        tests::elsewhere!("the file system of {} has no id maps", std::env::temp_dir().display());
    };
    assert!(printed.starts_with("file 644 0 0 "), "{printed}");
}

/// Only `ridmap` reaches the mounts below.
#[test]
fn recursive_id_maps_reach_the_mounts_below() {
    tests::differs!("runc 1.1 has no id-mapped mounts");
    let mappings = json!([{"containerID": 0, "hostID": 5_000, "size": 1000}]);
    for (option, below) in [("idmap", "65534"), ("ridmap", "0")] {
        let bundle = Bundle::new()
            .user_namespace(5_000)
            .args(["stat", "/tree", "--", "stat", "/tree/below"]);
        let source = directory(&bundle, "tree");
        if !can_map(&source) {
            tests::elsewhere!("the file system of {} has no id maps", std::env::temp_dir().display());
        }
        let mount = json!({
            "type": "bind", "source": source, "destination": "/tree",
            "options": ["rbind", option], "uidMappings": mappings, "gidMappings": mappings
        });
        let bundle = bundle.push("/mounts", mount);
        let tree = source.display();
        // Of the same file system, so that it can be mapped if the upper one can.
        let script = format!("mkdir {tree}/below {tree}/../other; mount --bind {tree}/../other {tree}/below");
        let printed = beside(&Container::new(bundle), &script).succeeds().stdout();
        let owners: Vec<&str> = printed.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        assert_eq!(owners, ["0", below], "{option}");
    }
}

#[test]
fn a_cgroup_mount_shows_the_containers_own() {
    tests::differs!("runc leaves the directory above the hierarchies writable");
    let bundle = Bundle::new()
        .args(["list", "/sys/fs/cgroup", "--", "try", "mkdir", "/sys/fs/cgroup/x"])
        .mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"]);
    let printed = Container::new(bundle).run().succeeds().stdout();
    assert!(printed.ends_with("EROFS\n"), "{printed}");
    let wanted = match tests::host::layout() {
        tests::host::Layout::V2 => "cgroup.procs",
        tests::host::Layout::Hybrid | tests::host::Layout::V1 => "pids",
    };
    assert!(printed.lines().any(|line| line == wanted), "{printed}");
}
