//! Runs the jobs, a few at a time, and understands what the test programs print.

use super::build::Program;
use super::{Options, Results};
use crate::supervise::{LEFT_PROCESSES, TIMED_OUT};
use anyhow::{Context as _, Result, bail};
use std::collections::VecDeque;
use std::env;
use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// One process to run: a single test, or all unit tests of a program.
#[derive(Debug)]
pub(crate) struct Job {
    program: Program,
    /// The one test; `None` for all of the program's.
    test: Option<String>,
    /// How many tests wait for `--all`.
    long: usize,
}

/// The jobs that the filter chooses.
pub(crate) fn plan(programs: &[Program], options: &Options) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for program in programs {
        let long = list(program, &["--ignored"])?;
        let mut tests = list(program, &[])?;
        let chosen = |test: &String| {
            let name = format!("{}::{test}", program.name);
            let chosen = options
                .filter
                .as_ref()
                .is_none_or(|filter| name.contains(filter.as_str()));
            chosen
                && !options
                    .except
                    .iter()
                    .any(|text| name.contains(text.as_str()))
        };
        tests.retain(chosen);
        let waiting = if options.all {
            0
        } else {
            tests.iter().filter(|test| long.contains(test)).count()
        };
        if !program.process_per_test && options.filter.is_none() {
            if !tests.is_empty() {
                jobs.push(Job {
                    program: program.clone(),
                    test: None,
                    long: waiting,
                });
            }
            continue;
        }
        tests.retain(|test| options.all || !long.contains(test));
        let job = |test| Job {
            program: program.clone(),
            test: Some(test),
            long: 0,
        };
        jobs.extend(tests.into_iter().map(job));
        if let Some(job) = jobs.last_mut() {
            job.long += waiting;
        }
    }
    Ok(jobs)
}

fn list(program: &Program, args: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new(&program.path);
    let output = command
        .args(["--list", "--format", "terse"])
        .args(args)
        .output();
    let output = output.with_context(|| format!("execute `{}`", program.path.display()))?;
    if !output.status.success() {
        bail!("`{}` does not list its tests", program.path.display());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

/// Runs all jobs, `--jobs` at a time.
pub(crate) fn all(jobs: &[Job], options: &Options) -> Result<Results> {
    let queue = Mutex::new(jobs.iter().collect::<VecDeque<&Job>>());
    let results = Mutex::new(Results::default());
    let total = jobs.len();
    let work = || -> Result<()> {
        loop {
            let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
            let Some(job) = next else { return Ok(()) };
            let result = one(job, options)?;
            if let Ok(mut results) = results.lock() {
                show(job, &result, options);
                results.add(result);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.clamp(1, total.max(1)))
            .map(|_| scope.spawn(work))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    results.into_inner().context("results of the workers")
}

fn one(job: &Job, options: &Options) -> Result<Results> {
    let start = Instant::now();
    if job.program.needs_root() && !rustix::process::geteuid().is_root() {
        let skipped = vec![(name(job), "needs root".to_owned())];
        return Ok(Results {
            skipped,
            long: job.long,
            ..Results::default()
        });
    }
    // By this link: cargo may just have built a new xtask in this one's place.
    let mut command = Command::new("/proc/self/exe");
    command.args(["supervise", "--timeout"]);
    command
        .arg((options.timeout * u64::from(slowness())).to_string())
        .arg("--")
        .arg(&job.program.path);
    if let Some(test) = &job.test {
        command.args([test, "--exact"]);
    }
    if options.all || job.test.is_some() {
        command.arg("--include-ignored");
    }
    command.args(["--nocapture", "--color", "never"]);
    command
        .current_dir(&job.program.directory)
        .env("CARGO_MANIFEST_DIR", &job.program.directory);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("execute the supervisor")?;
    let mut results = read(job, &output);
    results.long = job.long;
    results.times.push((start.elapsed(), name(job)));
    if options.verbose {
        println!("{}", text(&output));
    }
    Ok(results)
}

fn slowness() -> u32 {
    env::var("FLOE_TEST_SLOWNESS")
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(1)
}

fn name(job: &Job) -> String {
    job.test.as_ref().map_or_else(
        || job.program.name.clone(),
        |test| format!("{}::{test}", job.program.name),
    )
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), b"\n", output.stderr.as_slice()].concat())
        .into_owned()
}

/// What a test program's output and exit status say.
///
/// The harness prints `test NAME ... ` before or after what the test itself prints, so a skip is found
/// anywhere in a line.
fn read(job: &Job, output: &Output) -> Results {
    let text = text(output);
    let remarks = |word: &str| -> Vec<(String, String)> {
        let found = text.lines().filter_map(|line| line.split_once(word));
        found
            .map(|(_, reason)| (name(job), reason.trim().to_owned()))
            .collect()
    };
    let (skipped, elsewhere) = (remarks("SKIP: "), remarks("ELSEWHERE: "));
    let count = |what: &str| summary(&text, what).unwrap_or(0);
    let failure = match output.status.code() {
        Some(0) => None,
        Some(code) if code == i32::from(TIMED_OUT) => Some("timed out"),
        Some(code) if code == i32::from(LEFT_PROCESSES) => Some("left processes"),
        _ => Some("failed"),
    };
    let not_run = skipped.len() + elsewhere.len();
    let mut results = Results {
        passed: count("passed").saturating_sub(not_run),
        skipped,
        elsewhere,
        ..Results::default()
    };
    if failure.is_none() && results.passed + not_run == 0 {
        results
            .failed
            .push((name(job), format!("no test ran\n{text}")));
    }
    if let Some(why) = failure {
        if job.test.is_some() {
            results = Results::default();
        }
        results.failed.push((name(job), format!("{why}\n{text}")));
        let more = count("failed").saturating_sub(1);
        results
            .failed
            .extend((0..more).map(|_| (name(job), "see above".to_owned())));
    } else if job.test.is_some() && results.passed > 0 {
        results.ran.insert(name(job));
    }
    results
}

/// `N` of `N passed` in the line `test result: …`.
fn summary(text: &str, what: &str) -> Option<usize> {
    let line = text.lines().rfind(|line| line.contains("test result: "))?;
    let counts = line.split(['.', ';']);
    counts
        .filter_map(|count| count.trim().strip_suffix(what)?.trim().parse().ok())
        .next()
}

fn show(job: &Job, results: &Results, options: &Options) {
    let word = match results.passed {
        _ if !results.failed.is_empty() => "FAIL",
        0 => "skip",
        _ => "ok",
    };
    let quiet = word == "ok" && !options.verbose && !std::io::stdout().is_terminal();
    if !quiet {
        let time = results
            .times
            .first()
            .map_or(0.0, |(time, _)| time.as_secs_f64());
        println!(
            "{word:<5}{time:7.2} s  {} ({} passed)",
            name(job),
            results.passed
        );
    }
    for (_, output) in &results.failed {
        println!("{}\n", output.trim_end());
    }
    let _ = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn reads_the_last_line_of_a_test_program() {
        let line = "SKIP: x\ntest result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(summary(line, "passed"), Some(12));
        assert_eq!(summary(line, "failed"), Some(3));
        assert_eq!(summary("", "passed"), None);
    }
}
