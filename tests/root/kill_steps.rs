//! The runtime killed at every one of its system calls: `delete --force` takes all away.

use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use sys::syscall_stops::{self, Stop};
use tests::leftovers::Leftovers;
use tests::{Bundle, Container};

/// How a command that was counted ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    /// Before the step came.
    Exited(i32),
}

/// Runs a command of the runtime and kills it where it enters its system call number `step`.
fn killed_at(container: &Container, args: &[&str], step: usize) -> End {
    command_killed_at(&container.command(args), step)
}

/// The same of any command.
#[expect(
    clippy::zombie_processes,
    reason = "`syscall_stops::wait` waits for it"
)]
pub(crate) fn command_killed_at(command: &Command, step: usize) -> End {
    let mut traced = Command::new(tests::bundle::payload());
    traced.arg("traced").arg(command.get_program());
    traced.args(command.get_args());
    for (name, value) in command.get_envs() {
        traced.env(name, value.unwrap_or_default());
    }
    traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = traced.spawn().expect("the payload program");
    let child = Pid::from_raw(child.id().try_into().expect("a pid")).expect("a pid");
    let mut stops = 0;
    let mut prepared = false;
    loop {
        let signal = match syscall_stops::wait(child).expect("wait for the runtime") {
            Stop::Exited(code) => return End::Exited(code),
            Stop::Killed(_) => return End::Killed,
            // Every other one is the way out of the call.
            Stop::Call => {
                stops += 1;
                if stops == step * 2 + 1 {
                    kill_process(child, Signal::KILL).expect("kill the runtime");
                    continue;
                }
                0
            }
            // The stop at an exec; the first one comes from the payload's.
            Stop::Signal(signal) if signal == Signal::TRAP.as_raw() => {
                if !prepared {
                    syscall_stops::prepare(child).expect("set the options");
                    prepared = true;
                }
                0
            }
            Stop::Signal(signal) => signal,
        };
        syscall_stops::go_on(child, signal).expect("let the runtime go on");
    }
}

/// After a forced deletion nothing may be left.
fn clean_after(container: &Container, what: &str) {
    let outcome = container.call(["delete", "--force", container.id()]);
    assert_eq!(outcome.code(), 0, "delete after {what}: {outcome:?}");
    let state = container.state_root().join(container.id());
    let found = Leftovers::of(container.id(), container.bundle().directory(), &state);
    let found = found.after_a_while();
    if !found.is_empty() {
        found.clean();
        panic!("left after {what}: {found:#?}");
    }
}

/// Becomes the parent of the killed runtime's orphans and waits for them at once: an init that takes
/// its time would hold up the end of their pid namespace.
#[expect(
    clippy::disallowed_methods,
    reason = "tests are not single-threaded anyway"
)]
fn reap_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    // Orphans become children of the main thread; the test's own are children of its own thread.
    let list = format!("/proc/self/task/{}/children", std::process::id());
    std::thread::spawn(move || {
        loop {
            let orphans = std::fs::read_to_string(&list).unwrap_or_default();
            for orphan in orphans.split_whitespace() {
                let pid = orphan.parse().ok().and_then(Pid::from_raw);
                let _living = rustix::process::waitpid(pid, WaitOptions::NOHANG);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
}

/// Kills the command that `args` gives at every `stride`th step, after `prepare` made the state
/// that it starts from, until it runs to its end.
fn every_step(verb: &str, stride: usize, bundle: Bundle, prepare: impl Fn(&Container)) {
    reap_orphans();
    let container = Container::new(bundle);
    let path = container.bundle().path().display().to_string();
    let id = container.id().to_owned();
    let images = images(&container).display().to_string();
    let args: Vec<&str> = match verb {
        "restore" => vec![verb, "--detach", "--bundle", &path, "--image-path", &images, &id],
        "create" | "run" => vec![verb, "--bundle", &path, &id],
        "exec" => vec![verb, &id, "/payload", "true"],
        "delete" => vec![verb, "--force", &id],
        verb => vec![verb, &id],
    };
    let mut step = 0;
    loop {
        prepare(&container);
        let end = killed_at(&container, &args, step);
        clean_after(&container, &format!("`{verb}` was killed at system call {step}"));
        match end {
            End::Killed => step += stride,
            End::Exited(code) => {
                assert_eq!(code, 0, "`{verb}` to its end");
                assert!(step > 20, "`{verb}` has only {step} steps: nothing was tested");
                return;
            }
        }
    }
}

fn created(container: &Container) {
    container.create().succeeds();
}

fn running(container: &Container) {
    container.create().succeeds();
    container.start().succeeds();
}

fn images(container: &Container) -> PathBuf {
    container.bundle().directory().join("images")
}

/// Once: images serve any number of restores.
fn checkpointed(container: &Container) {
    if images(container).exists() {
        return;
    }
    running(container);
    let mut command = container.command(["checkpoint", "--image-path"]);
    container.outcome(command.arg(images(container)).arg(container.id())).succeeds();
}

fn sleeping() -> Bundle {
    Bundle::new().args(["sleep", "1000"])
}

/// Fails where `first_record` is stored only after the groups are made.
#[test]
fn create_killed_anywhere_leaves_nothing_behind_a_delete() {
    every_step("create", 3, sleeping(), |_| ());
}

#[test]
fn create_with_user_namespace_killed_anywhere_leaves_nothing_behind_a_delete() {
    every_step("create", 7, sleeping().user_namespace(300_000), |_| ());
}

#[test]
fn start_killed_anywhere_leaves_nothing_behind_a_delete() {
    every_step("start", 2, sleeping(), created);
}

#[test]
fn exec_killed_anywhere_leaves_nothing_behind_a_delete() {
    every_step("exec", 3, sleeping(), running);
}

#[test]
fn run_killed_anywhere_leaves_nothing_behind_a_delete() {
    every_step("run", 7, Bundle::new().args(["true"]), |_| ());
}

/// Fails where `Directory::remove` takes the state file first.
#[test]
fn delete_killed_anywhere_leaves_nothing_behind_another() {
    every_step("delete", 5, sleeping(), running);
}

/// criu goes on for a moment after the runtime is gone, and takes back what it made.
#[test]
fn restore_killed_anywhere_leaves_nothing_behind_a_delete() {
    every_step("restore", 11, sleeping(), checkpointed);
}

/// Every single step of them all.
#[test]
#[ignore = "long"]
fn every_command_killed_at_every_step_leaves_nothing() {
    every_step("create", 1, sleeping(), |_| ());
    every_step("create", 1, sleeping().user_namespace(300_000), |_| ());
    every_step("start", 1, sleeping(), created);
    every_step("exec", 1, sleeping(), running);
    every_step("run", 1, Bundle::new().args(["true"]), |_| ());
    every_step("delete", 1, sleeping(), running);
}
