//! The log file, in the form in which criu's callers look for what went wrong.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

/// Where messages go; to nowhere where no file was named.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    started: Instant,
}

impl Log {
    /// A log in this file.
    pub(crate) fn new(file: Option<File>) -> Self {
        let started = Instant::now();
        Self { file, started }
    }

    /// Notes what was done.
    pub(crate) fn line(&mut self, text: &str) {
        let time = self.started.elapsed();
        if let Some(file) = &mut self.file {
            let (seconds, micros) = (time.as_secs(), time.subsec_micros());
            let _unlogged = writeln!(file, "({seconds:02}.{micros:06}) {text}");
        }
    }

    /// Notes what went wrong: callers show the lines with this word.
    pub(crate) fn error(&mut self, error: &anyhow::Error) {
        self.line(&format!("Error (floe): {error:#}"));
    }
}
