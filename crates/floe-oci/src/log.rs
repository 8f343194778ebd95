//! Errors to standard error and, in the form that engines parse, to a log file.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use crate::flags::{Global, LogFormat};

/// Where errors go.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<PathBuf>,
    json: bool,
}

impl Log {
    pub(crate) fn new(global: &Global) -> Log {
        Log {
            file: global.log.clone(),
            json: global.log_format == LogFormat::Json,
        }
    }

    /// Reports what ends the command and gives its exit code. Exactly one line goes to the log:
    /// Podman reads the whole file as one object.
    #[expect(clippy::print_stderr, reason = "the one place that prints errors")]
    pub(crate) fn fail(&self, error: &anyhow::Error, code: u8) -> ExitCode {
        let text = container::shorten(format!("{error:#}"));
        self.write("error", &text);
        let quoted = text.replace(['\n', '\r'], " ");
        eprintln!("floe-oci: {}", printable(&quoted));
        ExitCode::from(code)
    }

    /// Notes something that did not stop the command, in the log file only.
    pub(crate) fn warn(&self, text: &str) {
        self.write("warning", text);
    }

    fn write(&self, level: &str, text: &str) {
        let Some(path) = &self.file else { return };
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let line = if self.json {
            // JSON leaves the controls from U+007F on as they are, and U+009B starts an escape.
            let line = serde_json::json!({ "level": level, "msg": text, "time": time });
            escaped(&line.to_string(), |letter| {
                format!("\\u{:04x}", u32::from(letter))
            })
        } else {
            format!("time=\"{time}\" level={level} msg={text:?}")
        };
        // The error itself goes to standard error whatever becomes of the log.
        let _unlogged = File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

/// Text of others must not reach a terminal's escape sequences.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, |letter| letter.escape_default().to_string())
}

/// Marks that change the order of the letters after them.
fn reorders(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> String {
    let letters = text.chars().map(|letter| {
        if letter.is_control() || reorders(letter) {
            escape(letter)
        } else {
            letter.into()
        }
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_shown_not_sent() {
        assert_eq!(printable("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
    }
}
