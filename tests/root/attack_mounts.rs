//! Attacks of an image on where its mounts, masks and devices go.

use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tests::{Bundle, Container, Outcome};

/// A directory outside the rootfs that nothing may be made in, and a file that nothing may change.
struct Outside {
    directory: PathBuf,
    before: Vec<String>,
}

impl Outside {
    fn new(bundle: &Bundle) -> Self {
        let directory = bundle.directory().join("outside");
        fs::create_dir(&directory).expect("a directory outside");
        fs::write(directory.join("secret"), "secret of the host\n").expect("a file outside");
        let before = listing(&directory);
        Self { directory, before }
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(self.before, listing(&self.directory));
    }
}

/// Every name below a directory with its type and size.
fn listing(directory: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).expect("a directory").flatten() {
            let found = entry.metadata().expect("stat");
            let (mode, size) = (std::os::unix::fs::MetadataExt::mode(&found), found.len());
            all.push(format!("{} {mode:o} {size}", entry.path().display()));
            if found.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    all.sort();
    all
}

/// A link that leads outside in three ways, depending on who follows it.
fn ways_out(outside: &Path) -> [PathBuf; 3] {
    let up = Path::new("../../../../../../../../../..").join(outside.strip_prefix("/").expect("absolute"));
    [outside.to_owned(), up, Path::new("/proc/1/root").join(outside.strip_prefix("/").expect("absolute"))]
}

fn replace_by_link(rootfs: &Path, path: &str, target: &Path) {
    let place = rootfs.join(path.trim_start_matches('/'));
    if place.is_dir() {
        fs::remove_dir_all(&place).expect("remove the directory");
    }
    fs::create_dir_all(place.parent().expect("a parent")).expect("its directory");
    symlink(target, place).expect("a link");
}

/// Refused with one line, or run inside; never anything outside.
#[track_caller]
fn refused_or_inside(outcome: &Outcome) {
    assert!(
        outcome.code() == 0 || outcome.stderr().lines().count() == 1,
        "{outcome:?}"
    );
    assert!(!outcome.stdout().contains("secret of the host"), "{outcome:?}");
}

/// Fails where `in_root::open_or_create` resolves without `RESOLVE_IN_ROOT`.
#[test]
fn a_link_at_a_mount_destination_leads_nowhere_else() {
    let destinations: Vec<String> = Bundle::new().config()["mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .filter_map(|mount| mount["destination"].as_str().map(str::to_owned))
        .collect();
    // A link below /dev would be covered by the mount on it, so these go without that.
    for destination in destinations.iter().map(String::as_str).chain(["/volume", "/deep/er"]) {
        for way in 0..3 {
            let mut bundle = Bundle::new().args(["try", "cat", "/volume/secret"]);
            let outside = Outside::new(&bundle);
            if destination.starts_with("/dev/") {
                bundle = bundle.edit(|config| {
                    let mounts = config["mounts"].as_array_mut().expect("mounts");
                    mounts.retain(|mount| mount["destination"] != "/dev");
                });
            }
            if !destinations.iter().any(|other| other == destination) {
                bundle = bundle.mount("tmpfs", "tmpfs", &format!("{destination}/new/er"), &[]);
            }
            replace_by_link(&bundle.rootfs(), destination, &ways_out(&outside.directory)[way]);
            let container = Container::new(bundle);
            refused_or_inside(&container.run());
            outside.is_untouched();
        }
    }
}

/// A file that is bound where the image has a link, dangling or not.
/// Fails where `in_root::open_or_create` resolves without `RESOLVE_IN_ROOT`.
#[test]
fn a_link_at_a_bound_file_leads_nowhere_else() {
    for target in ["secret", "new"] {
        let bundle = Bundle::new().args(["cat", "/etc/hosts"]).file("/given", "given\n");
        let source = bundle.rootfs().join("given").display().to_string();
        let outside = Outside::new(&bundle);
        symlink(outside.directory.join(target), bundle.rootfs().join("etc/hosts")).expect("a link");
        let bundle = bundle.mount("bind", &source, "/etc/hosts", &["bind", "ro"]);
        let container = Container::new(bundle);
        let outcome = container.run();
        refused_or_inside(&outcome);
        // What went outside is not seen at its place.
        let floe = container.runtime().is_floe();
        assert!(!floe || outcome.stdout() == "given\n", "{outcome:?}");
        outside.is_untouched();
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: with `/proc` or `/sys` a link, masks and
/// read-only paths would be put elsewhere. Fails without `must_be_plain` in init/mount.rs.
#[test]
fn proc_and_sys_that_are_links_are_refused() {
    for (name, target) in [("proc", "/tmp/x"), ("sys", "/tmp/x"), ("proc", "/proc/self"), ("proc", "tmp"), ("sys", "/")] {
        let bundle = Bundle::new().args(["echo", "runs"]);
        fs::create_dir(bundle.rootfs().join("tmp/x")).expect("a directory");
        replace_by_link(&bundle.rootfs(), name, Path::new(target));
        let container = Container::new(bundle);
        container.run().exits(1).prints("");
    }
}

/// The same with the host's `/proc` bound, as rootless engines do it.
/// Fails without `must_be_plain` in init/mount.rs.
#[test]
fn a_bound_proc_does_not_follow_a_link() {
    let bundle = Bundle::new().args(["echo", "runs"]).edit(|config| {
        config["mounts"][0] = json!({"destination": "/proc", "type": "bind", "source": "/proc",
            "options": ["rbind", "nosuid", "noexec", "nodev"]});
    });
    fs::create_dir(bundle.rootfs().join("tmp/x")).expect("a directory");
    replace_by_link(&bundle.rootfs(), "proc", Path::new("/tmp/x"));
    Container::new(bundle).run().exits(1).prints("");
}

/// CVE-2019-16884: a volume over `/proc`, or something in it, hides from those who configure the
/// container what they write to. Fails without `guard_proc` in init/mount.rs.
#[test]
fn nothing_is_mounted_over_proc() {
    let rows = [
        ("/proc", None),
        ("/proc/self", None),
        ("/proc/1/attr", None),
        ("/proc/self/attr", None),
        ("/proc/sys/kernel", None),
        ("/volume", Some("/proc")),
        ("/volume", Some("/proc/sys")),
        ("/volume/attr", Some("/proc/self")),
        ("/tmp/../proc", None),
    ];
    for (destination, link) in rows {
        for kind in ["bind", "tmpfs"] {
            let bundle = Bundle::new().args(["list", "/proc"]);
            let source = bundle.directory().join("volume");
            fs::create_dir_all(source.join("self/attr")).expect("a volume");
            if let Some(target) = link {
                symlink(target, bundle.rootfs().join("volume")).expect("a link");
            }
            let source = source.display().to_string();
            let options: &[&str] = if kind == "bind" { &["rbind"] } else { &[] };
            let container = Container::new(bundle.mount(kind, &source, destination, options));
            let outcome = container.run();
            assert!(
                outcome.code() == 1 && outcome.stdout().is_empty(),
                "{kind} on {destination} ({link:?}): {outcome:?}"
            );
        }
    }
}

/// The root itself is no place for a mount: what is made in it afterwards would be hidden below.
/// Fails without the check of the root in `target` of init/mount.rs.
#[test]
fn nothing_is_mounted_over_the_root() {
    for (destination, link) in [("/", false), ("/tmp/..", false), ("/volume", true)] {
        let bundle = Bundle::new().args(["list", "/"]);
        if link {
            symlink("/", bundle.rootfs().join("volume")).expect("a link");
        }
        let container = Container::new(bundle.mount("tmpfs", "tmpfs", destination, &[]));
        let outcome = container.run();
        if container.runtime().is_floe() {
            outcome.exits(1).says("mount `tmpfs` on");
        }
    }
}

/// CVE-2025-31133: the container's own `/dev/null` is a link, and a mask made of it would show a file
/// of the kernel instead of hiding one. Fails where `open_null` of init/rootfs.rs looks inside.
#[test]
fn masks_are_made_of_the_hosts_null_device() {
    let bundle = Bundle::new()
        .args(["stat", "/masked", "--", "stat", "/proc/keys"])
        .file("/masked", "of the image\n")
        .push("/linux/maskedPaths", "/masked")
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| !is_below_dev(mount));
        });
    let volume = bundle.directory().join("volume");
    fs::create_dir(&volume).expect("a volume");
    symlink("/proc/sys/kernel/core_pattern", volume.join("null")).expect("a link");
    let source = volume.display().to_string();
    let container = Container::new(bundle.mount("bind", &source, "/dev", &["bind"]));
    let outcome = container.run();
    if container.runtime().is_floe() || outcome.code() == 0 {
        let text = outcome.succeeds().stdout();
        let nulls = text.lines().filter(|line| line.starts_with("char ") && line.ends_with(" 1:3"));
        assert_eq!(nulls.count(), 2, "{text}");
    }
}

fn is_below_dev(mount: &serde_json::Value) -> bool {
    let destination = mount["destination"].as_str().unwrap_or_default();
    destination.starts_with("/dev")
}

/// Each standard device as a link, a file or another device of the image.
/// Fails without `check_existing` in init/device.rs.
#[test]
fn devices_that_the_image_brings_are_not_taken_for_ours() {
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let bundle = Bundle::new().args(["true"]).edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| !is_below_dev(mount));
        });
        let outside = Outside::new(&bundle);
        symlink(outside.directory.join("secret"), bundle.rootfs().join("dev").join(name)).expect("a link");
        let container = Container::new(bundle);
        let outcome = container.run();
        outside.is_untouched();
        if container.runtime().is_floe() {
            outcome.exits(1).says(&format!("/dev/{name}"));
        }
    }
}

/// CVE-2025-52565: `/dev/console` and `/dev/pts` as links, when the terminal is shown there.
/// Fails where `in_root::open_with` resolves without `RESOLVE_IN_ROOT`.
#[test]
fn the_console_is_mounted_inside() {
    for (place, target) in [("dev/console", "/proc/sys/kernel/core_pattern"), ("dev/console", "outside"), ("dev/pts", "outside"), ("dev/ptmx", "/dev/null")] {
        let bundle = Bundle::new()
            .args(["mounts", "--", "try", "cat", "/dev/console/secret"])
            .set("/process/terminal", true)
            .edit(|config| {
                let mounts = config["mounts"].as_array_mut().expect("mounts");
                mounts.retain(|mount| mount["destination"] != "/dev");
            });
        let outside = Outside::new(&bundle);
        let target = match target {
            "outside" => outside.directory.clone(),
            path => path.into(),
        };
        replace_by_link(&bundle.rootfs(), place, &target);
        let container = Container::new(bundle);
        let outcome = container.run();
        refused_or_inside(&outcome);
        // What went outside is not seen at its place.
        let console = outcome.stdout().contains(" /dev/console ");
        assert!(outcome.code() != 0 || console, "{outcome:?}");
        outside.is_untouched();
    }
}

/// CVE-2025-52881: writes to `/proc/sys` and labels go to procfs, not to what was mounted over it.
/// The volume on `/proc/sys` here is what the race of the report ends with.
/// Fails where `mask::sysctls` writes through the container's `/proc`.
#[test]
fn kernel_parameters_are_not_written_through_the_containers_proc() {
    // The container's `/proc` is a tmpfs from the image's point of view: there is no procfs mount.
    let bundle = Bundle::new()
        .args(["cat", "/proc/sys/net/ipv4/ip_forward"])
        .file("/proc/sys/net/ipv4/ip_forward", "image\n")
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["destination"] != "/proc");
        });
    let container = Container::new(bundle);
    container.run().succeeds().prints("image\n");
}

/// Exchanges two names in a directory, over and over, until dropped.
struct Exchange {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Exchange {
    #[expect(
        clippy::disallowed_methods,
        reason = "the other side of a race needs a thread of its own"
    )]
    /// `pause` is how long each state lasts: a race of many steps is lost if all are hit.
    fn start(first: PathBuf, second: PathBuf, pause: Duration) -> Self {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let (begun, begins) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !seen.load(Ordering::Relaxed) {
                renameat_with(CWD, &first, CWD, &second, RenameFlags::EXCHANGE).expect("exchange");
                count += 1;
                // Nobody listens after the first.
                let _ = begun.send(());
                std::thread::sleep(pause);
            }
            count
        });
        // On a busy machine the race could be over before this side of it runs at all.
        begins.recv().expect("the first exchange");
        let thread = Some(thread);
        Self { stop, thread }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.thread.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || matches!(count, Some(Ok(1..))),
            "nothing was exchanged"
        );
    }
}

/// Rounds of a race: as many as fit into three seconds, at least ten.
fn rounds(mut round: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(3) * tests::slowness();
    let (mut done, mut hits) = (0, 0);
    while done < 10 || Instant::now() < end {
        hits += u32::from(round());
        done += 1;
    }
    assert!(hits > 0, "no container of {done} came up: nothing was tested");
}

/// CVE-2021-30465, CVE-2024-45310: below a volume that another container writes to, a directory and
/// a link that leads out are exchanged while mounts are made in it.
/// Fails where `in_root::open_with` resolves without `RESOLVE_IN_ROOT`.
#[test]
fn a_race_for_the_destination_of_a_mount_stays_inside() {
    rounds(|| {
        let bundle = Bundle::new().args(["mounts"]);
        let outside = Outside::new(&bundle);
        let volume = bundle.directory().join("volume");
        fs::create_dir_all(volume.join("place")).expect("a volume");
        symlink(&ways_out(&outside.directory)[1], volume.join("link")).expect("a link");
        let source = volume.display().to_string();
        let file = bundle.path().join("config.json").display().to_string();
        let container = Container::new(
            bundle
                .mount("bind", &source, "/volume", &["bind"])
                .mount("tmpfs", "tmpfs", "/volume/place", &["size=40k"])
                .mount("tmpfs", "tmpfs", "/volume/place/new/er", &["size=44k"])
                .mount("bind", &file, "/volume/place/a/file", &["bind", "ro"]),
        );
        let race = Exchange::start(volume.join("place"), volume.join("link"), Duration::ZERO);
        let outcome = container.run();
        drop(race);
        outside.is_untouched();
        // A mount that went outside is not in the container's list.
        let list = outcome.stdout();
        let inside = ["size=40k", "size=44k"].iter().all(|size| list.contains(size));
        assert!(outcome.code() != 0 || inside, "{outcome:?}");
        outcome.code() == 0
    });
}

/// `/proc` is exchanged for a directory with files of the same names: the masks would go there and
/// leave procfs bare (CVE-2019-19921, CVE-2025-31133).
/// Fails where `existing` of init/mask.rs does not look for the file system.
#[test]
fn a_race_for_proc_leaves_no_file_unmasked() {
    rounds(|| {
        let bundle = Bundle::new().args(["mounts"]);
        for name in ["acpi", "kcore", "keys", "timer_list", "sysrq-trigger"] {
            fs::create_dir_all(bundle.rootfs().join("other")).expect("a directory");
            fs::write(bundle.rootfs().join("other").join(name), "").expect("a file");
        }
        let (first, second) = (bundle.rootfs().join("proc"), bundle.rootfs().join("other"));
        let container = Container::new(bundle);
        let race = Exchange::start(first, second, Duration::from_millis(2));
        let outcome = container.create();
        drop(race);
        if outcome.code() != 0 || container.start().code() != 0 {
            return false;
        }
        container.wait_for_status("stopped");
        let log = container.log();
        let points: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .collect();
        let procfs = log
            .lines()
            .find(|line| line.contains(" - proc proc"))
            .and_then(|line| line.split(' ').nth(4));
        let Some(procfs) = procfs else { return false };
        for name in ["acpi", "kcore", "keys", "timer_list", "sysrq-trigger"] {
            let mask = format!("{procfs}/{name}");
            let exists = tests::host::has(&format!("/proc/{name}"));
            assert!(!exists || points.contains(&mask.as_str()), "{mask} is bare: {log}");
        }
        true
    });
}
