//! Descriptors of the host that leak into a container (CVE-2016-9962, CVE-2024-21626).

use rustix::fs::{Mode, OFlags, open};
use std::os::fd::{AsRawFd as _, OwnedFd};
use tests::{Bundle, Container};

/// A directory of the host, open in every program that the test starts: not close-on-exec.
fn leaked_directory() -> OwnedFd {
    open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("the host's root")
}

/// Fails (it hangs) without `close_all_but` and `close_on_exec_from` in init/start.rs.
#[test]
fn descriptors_of_the_caller_do_not_reach_the_container() {
    let leaked = leaked_directory();
    let container = Container::new(Bundle::new().args(["fds", "--", "sleep", "1000"]));
    container.create().succeeds();
    container.start().succeeds();
    tests::wait_until("the container has listed its descriptors", || {
        container.log().contains("2 ")
    });
    let log = container.log();
    let executed = container.exec(["/payload", "fds"]).succeeds().stdout();
    for list in [log, executed] {
        let numbers: Vec<&str> = list
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(numbers, ["0", "1", "2"], "{list}");
    }
    drop(leaked);
}

/// In the process that waits for `start`, a container that shares its pid namespace could look.
/// Fails without `close_all_but` in init/start.rs.
#[test]
fn a_created_container_holds_no_directory_of_the_host() {
    let leaked = leaked_directory();
    let container = Container::new(Bundle::new().args(["sleep", "1000"]));
    container.create().succeeds();
    let directory = format!("/proc/{}/fd", container.pid());
    let entries = std::fs::read_dir(directory).expect("its descriptors").flatten();
    let open: Vec<_> = entries
        .filter_map(|entry| std::fs::metadata(entry.path()).ok().map(|found| (entry, found)))
        .filter(|(_, found)| found.is_dir())
        .collect();
    assert!(!container.runtime().is_floe() || open.is_empty(), "{open:?}");
    drop(leaked);
}

/// Runs `attempt` with every number that a descriptor of the runtime or its caller may have; in
/// none may the container's program see the host.
fn never_outside(attempt: impl Fn(i32) -> tests::Outcome) {
    let leaked = leaked_directory();
    let last = leaked.as_raw_fd().max(20);
    for number in 3..=last {
        let outcome = attempt(number);
        assert!(
            outcome.code() != 0 && !outcome.stdout().contains("payload"),
            "through descriptor {number}: {outcome:?}"
        );
        assert_eq!(outcome.stderr().lines().count(), 1, "{outcome:?}");
    }
}

/// CVE-2024-21626.
/// Fails without `directory_is_inside` and the second `chdir`, both in init/credentials.rs.
#[test]
fn a_working_directory_behind_a_descriptor_is_refused() {
    never_outside(|number| {
        let bundle = Bundle::new()
            .args(["echo", "payload", "--", "list", "."])
            .set("/process/cwd", format!("/proc/self/fd/{number}"));
        Container::new(bundle).run()
    });
}

/// The image may also bring a link, which no check of the configuration sees.
/// Fails without `directory_is_inside` and the second `chdir`, both in init/credentials.rs.
#[test]
fn a_working_directory_that_links_to_a_descriptor_is_refused() {
    never_outside(|number| {
        let bundle = Bundle::new().args(["echo", "payload"]).set("/process/cwd", "/work");
        let target = format!("/proc/self/fd/{number}");
        std::os::unix::fs::symlink(target, bundle.rootfs().join("work")).expect("a link");
        Container::new(bundle).run()
    });
}

/// The same by `exec`.
/// Fails without `directory_is_inside` and the second `chdir`, both in init/credentials.rs.
#[test]
fn exec_with_a_working_directory_behind_a_descriptor_is_refused() {
    let container = Container::new(Bundle::new().args(["sleep", "1000"]));
    container.create().succeeds();
    container.start().succeeds();
    never_outside(|number| {
        let cwd = format!("/proc/self/fd/{number}");
        container.call(["exec", "--cwd", &cwd, container.id(), "/payload", "echo", "payload"])
    });
}

/// CVE-2024-21626, third variant: the program itself lies behind the descriptor.
/// Fails (it hangs) without `close_all_but` and `close_on_exec_from` in init/start.rs.
#[test]
fn a_program_behind_a_descriptor_is_not_executed() {
    let payload = tests::bundle::payload();
    never_outside(|number| {
        let program = format!("/proc/self/fd/{number}{}", payload.display());
        let bundle = Bundle::new().set(
            "/process/args",
            vec![program, "echo".to_owned(), "payload".to_owned()],
        );
        Container::new(bundle).run()
    });
    let container = Container::new(Bundle::new().args(["sleep", "1000"]));
    container.create().succeeds();
    container.start().succeeds();
    never_outside(|number| {
        let program = format!("/proc/self/fd/{number}{}", payload.display());
        container.exec([&program, "echo", "payload"])
    });
}

/// A caller that promises more descriptors than it has must not hand the runtime's own on.
/// Fails without `prepare::inherited_fds` of the container crate.
#[test]
fn promised_descriptors_that_are_not_there_are_refused() {
    let container = Container::new(Bundle::new().args(["fds"]));
    let bundle = container.bundle().path().display().to_string();
    for number in ["30", "4294967295"] {
        let args = ["run", "--preserve-fds", number, "--bundle", &bundle, container.id()];
        container.call(args).exits(1).says("--preserve-fds");
    }
}
