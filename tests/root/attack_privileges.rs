//! What a container's processes may not do, whatever they try: kernel parameters, devices, groups,
//! the caller's terminal, capabilities.

use rustix::fs::{Mode, OFlags};
use serde_json::json;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use tests::{Bundle, Container, host};

fn capabilities(names: &[&str]) -> serde_json::Value {
    json!({"bounding": names, "effective": names, "permitted": names})
}

/// The capabilities that engines give by default.
const ENGINES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// CVE-2022-29162: inheritable capabilities come back when an unprivileged user of the container
/// executes a file with capabilities. Fails where `Sets::parse` of capabilities.rs fills the
/// inheritable set from the permitted one.
#[test]
fn inheritable_capabilities_are_empty_unless_asked_for() {
    let bundle = Bundle::new().args(["caps", "--", "sleep", "1000"]);
    let container = Container::new(bundle.set("/process/capabilities", capabilities(ENGINES)));
    container.create().succeeds();
    container.start().succeeds();
    tests::wait_until("the container has shown its sets", || container.log().contains("CapAmb"));
    let mut lists = vec![container.log()];
    lists.push(container.exec(["/payload", "caps"]).stdout());
    let id = container.id();
    let added = container.call(["exec", "--cap", "CAP_NET_ADMIN", id, "/payload", "caps"]);
    lists.push(added.succeeds().stdout());
    for list in lists {
        for set in ["CapInh=0000000000000000", "CapAmb=0000000000000000"] {
            assert!(list.lines().any(|line| line == set), "{list}");
        }
        assert!(!list.contains("CapEff=0000000000000000"), "{list}");
    }
}

/// The host's handler of core dumps is a program that the kernel starts outside of all containers.
/// Fails without `mask::read_only_paths` in init/mod.rs.
#[test]
fn core_pattern_cannot_be_written() {
    let path = "/proc/sys/kernel/core_pattern";
    let before = fs::read_to_string(path).expect("core_pattern");
    // The old value is written, so that a hole does no harm.
    let bundle = Bundle::new().set("/process/capabilities", capabilities(ENGINES));
    let bundle = bundle.args(["try", "write", path, before.trim()]);
    Container::new(bundle).run().succeeds().prints("EROFS\n");
    assert_eq!(before, fs::read_to_string(path).expect("core_pattern"));
}

/// The sample configuration, which people start from, must have the protection too.
/// Fails where the sample lacks `/proc/sys` in `readonlyPaths`.
#[test]
fn the_sample_configuration_keeps_core_pattern_read_only() {
    let path = "/proc/sys/kernel/core_pattern";
    let before = fs::read_to_string(path).expect("core_pattern");
    let container = Container::new(Bundle::new());
    let config = container.bundle().path().join("config.json");
    let ours = container.bundle().config().clone();
    fs::remove_file(&config).expect("remove config.json");
    let bundle = container.bundle().path().display().to_string();
    container.call(["spec", "--bundle", &bundle]).succeeds();
    let text = fs::read(&config).expect("the sample");
    let mut sample: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    sample["process"]["args"] = json!(["/payload", "try", "write", path, before.trim()]);
    sample["process"]["terminal"] = json!(false);
    sample["process"]["env"] = ours["process"]["env"].clone();
    sample["linux"]["cgroupsPath"] = ours["linux"]["cgroupsPath"].clone();
    fs::write(&config, sample.to_string()).expect("config.json");
    container.run().succeeds().prints("EROFS\n");
}

/// CVE-2022-0492: root of a container that may mount and write its groups sets the program that the
/// kernel starts on the host when a group becomes empty.
/// Fails where the cgroup namespace is made before the process is in its groups, or not at all.
#[test]
fn release_agent_is_out_of_reach() {
    if host::layout() == host::Layout::V2 {
        tests::elsewhere!("needs a v1 hierarchy");
    }
    let names = [ENGINES, &["CAP_SYS_ADMIN"]].concat();
    for user_namespace in [false, true] {
        let mut bundle = Bundle::new()
            .args(["cgroup", "--", "release-agents"])
            .set("/process/capabilities", capabilities(&names))
            .mount("cgroup", "cgroup", "/sys/fs/cgroup", &["rw"]);
        if user_namespace {
            bundle = bundle.user_namespace(300_000);
        }
        let container = Container::new(bundle);
        let text = container.run().succeeds().stdout();
        let (paths, agents): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.contains(':'));
        assert_eq!(agents, ["done"], "{text}");
        // The root of each hierarchy is the container's own group: no path shows another.
        assert!(paths.iter().all(|line| line.ends_with(":/")), "{text}");
    }
}

/// And by mounting a hierarchy anew, as the report does it.
/// Fails where the cgroup namespace is made before the process is in its groups, or not at all.
#[test]
fn a_hierarchy_mounted_inside_shows_no_release_agent() {
    let memory = tests::need!(host::controller("memory"), "needs a memory controller");
    if memory.join("cgroup.controllers").exists() {
        tests::elsewhere!("needs a v1 hierarchy");
    }
    let mut args = vec!["/payload".to_owned()];
    let mut names = Vec::new();
    for mount in host::cgroup_mounts() {
        let name = mount.file_name().expect("a name").to_string_lossy().into_owned();
        if mount.join("release_agent").exists() && !name.contains(['=', ',']) {
            fs::metadata(mount.join("release_agent")).expect("release_agent");
            names.push(name);
        }
    }
    assert!(!names.is_empty(), "no hierarchy to try");
    for name in &names {
        args.extend(["mkdir", "/tmp/x", "--", "try", "hierarchy"].map(str::to_owned));
        args.extend([name.clone(), "/tmp/x".to_owned(), "--".to_owned()]);
        args.extend(["release-agents", "--", "try", "umount", "/tmp/x", "--"].map(str::to_owned));
        args.extend(["rmdir", "/tmp/x", "--"].map(str::to_owned));
    }
    args.push("true".to_owned());
    let capabilities = capabilities(&[ENGINES, &["CAP_SYS_ADMIN"]].concat());
    let bundle = Bundle::new()
        .set("/process/args", args)
        .set("/process/capabilities", capabilities);
    let text = Container::new(bundle).run().succeeds().stdout();
    assert!(text.lines().any(|line| line == "ok"), "nothing could be mounted: {text}");
    assert!(!text.contains("release_agent"), "{text}");
}

/// Device nodes that are not on the list of allowed ones can be made, but not opened: the list of
/// v1, or the program of v2, says no.
/// Fails where `limit` of create.rs clears `devices`.
#[test]
fn devices_that_are_not_allowed_cannot_be_opened() {
    let bundle = Bundle::new().set("/process/capabilities", capabilities(ENGINES));
    let bundle = bundle.args([
        "try", "mknod", "/tmp/mem", "c", "1", "1", "--", "try", "read", "/tmp/mem", "--",
        "try", "mknod", "/tmp/kmsg", "c", "1", "11", "--", "try", "read", "/tmp/kmsg", "--",
        "try", "mknod", "/tmp/disk", "b", "254", "0", "--", "try", "read", "/tmp/disk", "--",
        "try", "mknod", "/tmp/fuse", "c", "10", "229", "--", "try", "read", "/tmp/fuse", "--",
        "try", "mknod", "/tmp/zero", "c", "1", "5", "--", "try", "read", "/tmp/zero",
    ]);
    let container = Container::new(bundle);
    let text = container.run().succeeds().stdout();
    let answers: Vec<&str> = text.lines().collect();
    assert_eq!(answers.len(), 10, "{text}");
    for pair in answers[..8].chunks(2) {
        assert!(pair == ["ok", "EPERM"] || pair[0] == "EPERM", "{text}");
    }
    assert_eq!(answers[8..], ["ok", "ok"], "{text}");
}

/// A process that keeps the caller's terminal must not type into it: the caller's shell would
/// execute that once the container is gone (TIOCSTI).
/// Fails without `setsid` in init/console.rs.
#[test]
fn nothing_is_typed_into_the_callers_terminal() {
    let setsid = tests::need!(host::program("setsid"), "needs setsid of util-linux");
    let container = Container::new(Bundle::new().args(["sleep", "1000"]));
    let id = container.id().to_owned();
    container.create().succeeds();
    container.start().succeeds();
    let attacked = Container::new(Bundle::new().args(["try", "type", "reboot\n", "--", "try", "read", "/dev/tty"]));
    let attacked_bundle = attacked.bundle().path().display().to_string();
    let run = attacked.command(["run", "--bundle", &attacked_bundle, attacked.id()]);
    let exec = container.command(["exec", &id, "/payload", "try", "type", "reboot\n", "--", "try", "read", "/dev/tty"]);
    for command in [run, exec] {
        let (master, slave) = terminal();
        // The terminal becomes the one that controls the runtime's session, as a shell's does.
        let mut session = Command::new(&setsid);
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        session.stdin(slave.try_clone().expect("dup"));
        let outcome = attacked.outcome(&mut session);
        let text = outcome.succeeds().stdout();
        let typed = text.lines().next().unwrap_or_default();
        assert!(["EPERM", "EIO"].contains(&typed), "{text}");
        assert_eq!(text.lines().nth(1), Some("ENXIO"), "{text}");
        let waiting = rustix::io::ioctl_fionread(&slave).expect("FIONREAD");
        assert_eq!(waiting, 0, "typed into the terminal");
        drop(master);
    }
}

fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty()).expect("a terminal");
    let slave = sys::terminal::slave_of(&master).expect("its other end");
    (master, slave)
}

/// What the caller gives as standard streams may be devices of the host: their owner stays.
/// Fails without `null` in `own_streams` of init/start.rs.
#[test]
fn the_hosts_null_device_keeps_its_owner() {
    let owner = || {
        let found = fs::metadata("/dev/null").expect("stat");
        (found.uid(), found.gid(), found.mode())
    };
    let before = owner();
    for bundle in [
        Bundle::new().args(["true"]).user_namespace(300_000),
        Bundle::new().args(["true"]).set("/process/user/uid", 1000),
    ] {
        let container = Container::new(bundle);
        container.run().succeeds();
        let path = container.bundle().path().display().to_string();
        let mut command = container.command(["run", "--bundle", &path, container.id()]);
        let null = || std::process::Stdio::null();
        let status = command.stdout(null()).stderr(null()).status();
        assert!(status.expect("the runtime").success());
    }
    assert_eq!(before, owner());
}
