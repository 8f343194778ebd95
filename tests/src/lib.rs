//! Harness of the root tests: a bundle, a runtime that runs it, and nothing left behind.
//!
//! ```no_run
//! use tests::{Bundle, Container};
//!
//! let container = Container::new(Bundle::new().args(["hostname"]).set("/hostname", "ice"));
//! container.run().succeeds().prints("ice\n");
//! ```
//!
//! The runtime under test is the `floe-oci` of the same build, or the program named by
//! `FLOE_TEST_RUNTIME`. When a [`Container`] goes out of scope it is deleted by force, and the test
//! fails if a process, mount, resource group or state directory of it is still there.
//!
//! A test whose prerequisite is missing says so with [`skip!`] or [`need!`]; the runner counts that,
//! and with `FLOE_STRICT=1` it is a failure. One that needs another kernel or layout of resource groups
//! says so with [`elsewhere!`], and has to run in one of the virtual machines.

pub mod bundle;
pub mod container;
pub mod engine;
pub mod floe;
pub mod host;
pub mod leftovers;
pub mod pages;
pub mod runtime;

pub use bundle::Bundle;
pub use container::Container;
pub use floe::Floe;
pub use runtime::{Outcome, Runtime};

use std::time::{Duration, Instant};

/// Ends the test as skipped, loudly: `skip!("needs a cgroup v2 memory controller")`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::report_skip(&format!($($reason)+));
        return;
    }};
}

/// Ends the test because it needs another kernel or layout of resource groups: `elsewhere!("needs cgroup v2 alone")`.
///
/// Unlike a skip it is no failure with `FLOE_STRICT=1`, if the test then runs in one of the virtual machines.
#[macro_export]
macro_rules! elsewhere {
    ($($reason:tt)+) => {{
        $crate::report_elsewhere(&format!($($reason)+));
        return;
    }};
}

/// Ends the test where `FLOE_TEST_RUNTIME` names another runtime, which is known to differ:
/// `differs!("runc 1.1 has no time namespaces")`.
#[macro_export]
macro_rules! differs {
    ($($how:tt)+) => {{
        if !$crate::Runtime::default().is_floe() {
            $crate::elsewhere!($($how)+);
        }
    }};
}

/// The value of an `Option`, or the test is skipped: `let podman = need!(host::program("podman"), "needs podman")`.
#[macro_export]
macro_rules! need {
    ($option:expr, $($reason:tt)+) => {
        match $option {
            Some(value) => value,
            None => $crate::skip!($($reason)+),
        }
    };
}

/// Prints the line that the test runner counts as a skip.
#[expect(
    clippy::print_stdout,
    reason = "the runner reads it from the test's standard output"
)]
pub fn report_skip(reason: &str) {
    println!("SKIP: {reason}");
}

/// Prints the line that the test runner counts as left to another machine.
#[expect(
    clippy::print_stdout,
    reason = "the runner reads it from the test's standard output"
)]
pub fn report_elsewhere(reason: &str) {
    println!("ELSEWHERE: {reason}");
}

/// A name that no other test, process or earlier run uses: for containers, groups, namespaces.
#[must_use]
pub fn unique_id() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let moment = boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000;
    format!(
        "floe-test-{}-{count}-{:x}",
        std::process::id(),
        moment & 0x00ff_ffff
    )
}

/// Waits until `condition` holds; panics with `what` after ten seconds (times `FLOE_TEST_SLOWNESS`).
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10) * slowness();
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many times slower than the reference machine this one is: an emulated one sets `FLOE_TEST_SLOWNESS`.
#[must_use]
pub fn slowness() -> u32 {
    std::env::var("FLOE_TEST_SLOWNESS")
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(1)
}
