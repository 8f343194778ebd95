//! `state`, `list` and `ps`: what is printed is what engines parse.

use std::io::Write;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::flags::{Format, Global, Id, List, Ps};
use crate::log::printable;

pub(crate) fn state(global: &Global, flags: &Id) -> anyhow::Result<ExitCode> {
    let state = container::state(&super::root(global), &super::id(&flags.id)?)?;
    print(&format!("{}\n", serde_json::to_string_pretty(&state)?))
}

pub(crate) fn list(global: &Global, flags: &List) -> anyhow::Result<ExitCode> {
    let states = container::list(&super::root(global))?;
    if flags.quiet {
        let ids: String = states
            .iter()
            .map(|state| format!("{}\n", state.id))
            .collect();
        return print(&ids);
    }
    match flags.format {
        // Go prints an absent list as null, and callers know it.
        Format::Json if states.is_empty() => print("null"),
        Format::Json => print(&serde_json::to_string(&states)?),
        Format::Table => {
            let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
            let rows = states.iter().map(|state| {
                let status = format!("{:?}", state.status).to_lowercase();
                let bundle = printable(&state.bundle.display().to_string());
                let (created, owner) = (state.created.clone(), state.owner.clone());
                [
                    state.id.clone(),
                    state.pid.to_string(),
                    status,
                    bundle,
                    created,
                    owner,
                ]
            });
            print(&table(
                &std::iter::once(head).chain(rows).collect::<Vec<_>>(),
            ))
        }
    }
}

/// Columns as wide as their widest cell, three spaces apart.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].len())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}   "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

pub(crate) fn processes(global: &Global, flags: &Ps) -> anyhow::Result<ExitCode> {
    let pids = container::processes(&super::root(global), &super::id(&flags.id)?)?;
    match flags.format {
        Format::Json => print(&serde_json::to_string(&pids)?),
        Format::Table => {
            let options: &[String] = match flags.options.as_slice() {
                [] => &["-ef".to_owned()],
                given => given,
            };
            let output = Command::new("ps")
                .args(options)
                .output()
                .context("run `ps`")?;
            if !output.status.success() {
                bail!(
                    "run `ps`: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
            }
            print(&lines_of(&String::from_utf8_lossy(&output.stdout), &pids)?)
        }
    }
}

/// The heading and the lines of these processes.
fn lines_of(output: &str, pids: &[i32]) -> anyhow::Result<String> {
    let heading = output.lines().next().unwrap_or_default();
    let column = heading.split_whitespace().position(|name| name == "PID");
    let column = column.context("ps: its output has no column PID")?;
    let ours = output.lines().skip(1).filter(|line| {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    });
    Ok(std::iter::once(heading)
        .chain(ours)
        .map(|line| format!("{}\n", printable(line)))
        .collect())
}

/// Writes a command's result; a reader that has gone is an error, not a panic.
pub(crate) fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_stay() {
        let output = "UID PID PPID CMD\nroot 1 0 init\nroot 42 1 sleep 42\nroot 7 1 sh\n";
        let wanted = "UID PID PPID CMD\nroot 42 1 sleep 42\n";
        assert_eq!(lines_of(output, &[42]).unwrap(), wanted);
        assert!(lines_of("A B\n", &[]).is_err());
    }
}
