//! `cargo xtask man`: man pages and shell completions of the programs, from their flag definitions.

use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to put man/, bash-completion/, zsh/ and fish/; /usr/local/share installs them
    #[arg(default_value = "target/share")]
    directory: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("target/share"),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let directory = std::path::absolute(&options.directory)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([
        "test",
        "--quiet",
        "--package",
        "floe",
        "--package",
        "floe-oci",
        "--package",
        "floe-criu",
        "--bins",
        "--",
    ]);
    command
        .arg("man_pages_and_completions")
        .env("FLOE_PAGES", &directory);
    let output = command
        .current_dir(crate::workspace())
        .output()
        .context("execute cargo")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let pages =
        crate::debian::files(&directory.join("man/man1")).context("no program made its pages")?;
    println!(
        "{} pages and the completions are in {}",
        pages.len(),
        directory.display()
    );
    Ok(ExitCode::SUCCESS)
}
