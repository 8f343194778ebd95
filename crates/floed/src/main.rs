//! The resident jobs of floe, one process each.
//!
//! The arguments are read by hand and errors are plain text: of this program one process per
//! running container stays in memory, so it holds no parser, no formatter of JSON and no table.

mod init;
mod monitor;

use std::ffi::OsString;
use std::process::ExitCode;

const USAGE: &str = "\
usage: floed monitor OPTIONS   hold a container: its log, console and exit status
       floed init -- PROGRAM   be a container's first process: reap, forward signals
";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let job = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    let done = match job.to_str() {
        Some("monitor") => monitor::main(&rest),
        Some("init") => init::main(&rest),
        Some("--version") => return say(concat!("floed ", env!("CARGO_PKG_VERSION"), "\n")),
        Some("--help" | "help") => return say(USAGE),
        _ => Err(format!("no such job `{}`\n{USAGE}", job.display())),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            tell(&message);
            ExitCode::from(125)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer to --help and --version")]
fn say(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "the one place that prints errors")]
fn tell(message: &str) {
    eprintln!("floed: {}", ::monitor::text::plain_lines(message));
}
