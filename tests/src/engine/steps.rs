//! Many cases around one daemon: each is run, and the test fails with the names of all that did.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A name and what is to be shown about an engine.
pub type Case<E> = (&'static str, fn(&E));

/// Runs the cases, `workers` at a time; panics at the end if one of them did.
///
/// `FLOE_TEST_CASE` restricts them to those whose name contains it.
#[expect(
    clippy::print_stdout,
    reason = "a test's progress, shown when it fails"
)]
pub fn all<E: Sync>(engine: &E, cases: &[Case<E>], workers: usize) {
    let chosen = std::env::var("FLOE_TEST_CASE").unwrap_or_default();
    let cases: Vec<&Case<E>> = cases
        .iter()
        .filter(|(name, _)| name.contains(&chosen))
        .collect();
    assert!(!cases.is_empty(), "no case is called `{chosen}`");
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some((name, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let start = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| case(engine)));
            let seconds = start.elapsed().as_secs_f32();
            let word = if result.is_ok() { "ok" } else { "FAILED" };
            println!("{word:7} {seconds:5.1} s  {name}");
            if let Err(panic) = result {
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let mut failures = failures
                    .lock()
                    .expect("no case panics while it holds the lock");
                failures.push(format!("{name}: {}", text.unwrap_or_default()));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let failures = failures
        .into_inner()
        .expect("no case panics while it holds the lock");
    assert!(
        failures.is_empty(),
        "{} of {} cases failed\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}
