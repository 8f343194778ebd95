//! What this program prints.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use monitor::text::{plain_json, plain_lines};
use serde::Serialize;

use crate::runtime::WithCode;

/// How a command shows its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    #[default]
    Table,
    /// JSON for programs
    Json,
}

/// Prints a text as it is.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn print(text: &str) -> Result<()> {
    raw(text.as_bytes())
}

/// Prints a line; text of others in it cannot reach the terminal's escape sequences.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn line(text: &str) -> Result<()> {
    print(&format!("{}\n", plain_lines(text)))
}

/// Prints a value as JSON.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<()> {
    line(&plain_json(&serde_json::to_string_pretty(value)?))
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn json_line(value: &serde_json::Value) -> Result<()> {
    line(&plain_json(&value.to_string()))
}

/// Prints bytes.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn raw(bytes: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(bytes)
        .and_then(|()| output.flush())
        .context("write output")
}

/// Tells the user about something that is no error.
#[expect(
    clippy::print_stderr,
    reason = "notes to the user go beside the output"
)]
pub(crate) fn note(text: &str) {
    eprintln!("floe: {}", plain_lines(text));
}

/// Prints an error and gives the status it ends with.
#[expect(clippy::print_stderr, reason = "the one place that prints errors")]
pub(crate) fn error(error: &anyhow::Error) -> ExitCode {
    // A reader that has seen enough is no failure worth words.
    let broken = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    });
    if !broken {
        eprintln!("floe: {}", plain_lines(&describe(error)));
    }
    ExitCode::from(
        error
            .downcast_ref::<WithCode>()
            .map_or(125, |with| with.code),
    )
}

/// The error and its causes in one line; the kernel's errors in our words.
#[must_use]
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let words: Vec<String> = error
        .chain()
        .map(|cause| match cause.downcast_ref::<sys::Errno>() {
            Some(errno) => sys::errno::describe(*errno),
            None => match cause
                .downcast_ref::<std::io::Error>()
                .map(sys::Errno::from_io_error)
            {
                Some(Some(errno)) => sys::errno::describe(errno),
                _ => cause.to_string(),
            },
        })
        .collect();
    words.join(": ")
}
