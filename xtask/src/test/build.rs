//! Builds the workspace's programs and tests and finds the test programs.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test program that cargo built.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// `cgroup`, or `tests::root` for an integration test.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Integration tests get a process each.
    pub(crate) process_per_test: bool,
    /// Where cargo would run it: the package's directory.
    pub(crate) directory: PathBuf,
}

impl Program {
    /// Whether its tests make groups, mounts and namespaces.
    pub(crate) fn needs_root(&self) -> bool {
        self.process_per_test && self.name != "tests::house"
    }
}

/// Builds everything; the programs come first, so that tests find the `floe-oci` of this build.
pub(crate) fn test_programs() -> Result<Vec<Program>> {
    cargo(&["build", "--workspace", "--exclude", "xtask", "--bins"])?;
    let messages = cargo(&["test", "--workspace", "--no-run"])?;
    let mut programs: Vec<Program> = messages.iter().filter_map(program).collect();
    programs.sort_by(|a, b| (a.process_per_test, &a.name).cmp(&(b.process_per_test, &b.name)));
    ensure!(!programs.is_empty(), "cargo built no tests");
    Ok(programs)
}

/// Writes the list for a machine without cargo.
pub(crate) fn save(programs: &[Program], file: &Path) -> Result<()> {
    let row = |program: &Program| {
        json!([
            program.name,
            program.path,
            program.process_per_test,
            program.directory
        ])
    };
    let text = Value::Array(programs.iter().map(row).collect()).to_string();
    fs::write(file, text).with_context(|| format!("write `{}`", file.display()))
}

/// Reads what [`save`] wrote.
pub(crate) fn load(file: &Path) -> Result<Vec<Program>> {
    let text = fs::read(file).with_context(|| format!("read `{}`", file.display()))?;
    let rows: Vec<(String, PathBuf, bool, PathBuf)> = serde_json::from_slice(&text)?;
    let program = |(name, path, process_per_test, directory)| Program {
        name,
        path,
        process_per_test,
        directory,
    };
    Ok(rows.into_iter().map(program).collect())
}

fn cargo(args: &[&str]) -> Result<Vec<Value>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(args)
        .args(["--quiet", "--message-format=json-render-diagnostics"]);
    let output = command
        .current_dir(crate::workspace())
        .stderr(Stdio::inherit())
        .output();
    let output = output.context("execute cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    let lines = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).context("read cargo's messages"))
        .collect()
}

fn program(message: &Value) -> Option<Program> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let target = message["target"]["name"].as_str()?;
    let integration = message["target"]["kind"][0] == "test";
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let directory = manifest.parent()?.to_owned();
    let package = directory.file_name()?.to_string_lossy().into_owned();
    let name = if target == package {
        package
    } else {
        format!("{package}::{target}")
    };
    let path = PathBuf::from(message["executable"].as_str()?);
    Some(Program {
        name,
        path,
        process_per_test: integration,
        directory,
    })
}
