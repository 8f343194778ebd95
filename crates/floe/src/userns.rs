//! Work in a user namespace of the caller's, with the ids that containers have.
//!
//! Files that an ordinary user's container made may belong to the user's subordinate ids: outside
//! of such a namespace the user may neither make nor remove them.

use std::io::{Read, Write};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};
use sys::clone::{Clone, Side, clone};
use sys::namespace::Kind;

use crate::plan::identity::{IdMaps, IdRange};

/// Whether these maps hold ids that are not the caller's own.
#[must_use]
pub(crate) fn has_other_ids(maps: &IdMaps) -> bool {
    let more = |ranges: &[IdRange]| ranges.iter().any(|range| range.count > 1);
    more(&maps.uids) || more(&maps.gids)
}

/// Does the work in a process in a new user namespace with these maps, with every capability over
/// its ids.
///
/// # Errors
/// The maps cannot be set, or the work's own error, as text.
pub(crate) fn run(maps: &IdMaps, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context("make pipe");
    let ((wait, go), (answer, report)) = (pipe()?, pipe()?);
    let options = Clone {
        flags: Kind::User.flag(),
        ..Clone::default()
    };
    match clone(&options).context("make user namespace")? {
        Side::Child => {
            drop((go, answer));
            // Its end tells that the maps are set.
            let mut byte = [0];
            let told = rustix::io::read(&wait, &mut byte).context("wait for id maps");
            let done = told.map(drop).and_then(|()| work());
            finish(done, report.into())
        }
        Side::Parent { pid, .. } => {
            drop((wait, report));
            let mapped = map("newuidmap", pid, &maps.uids).and(map("newgidmap", pid, &maps.gids));
            if mapped.is_err() {
                // It waits for maps that will not come.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            drop(go);
            let mut text = String::new();
            let read = std::fs::File::from(answer).read_to_string(&mut text);
            rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))
                .context("wait for helper")?;
            mapped?;
            read.context("listen to helper")?;
            match text.strip_prefix("done") {
                Some(_) => Ok(()),
                None if text.is_empty() => bail!("the helper in the user namespace was killed"),
                None => Err(anyhow!(text)),
            }
        }
    }
}

#[expect(
    clippy::exit,
    reason = "the helper's life ends here; its parent goes on in our place"
)]
fn finish(done: Result<()>, mut report: std::fs::File) -> ! {
    let text = match done {
        Ok(()) => "done".to_owned(),
        Err(error) => crate::output::describe(&error),
    };
    // Without a listener there is nobody to tell.
    let _ = report.write_all(text.as_bytes());
    std::process::exit(0)
}

fn map(helper: &str, pid: Pid, ranges: &[IdRange]) -> Result<()> {
    let mut command = Command::new(helper);
    command.arg(pid.to_string());
    for range in ranges {
        for number in [range.inside, range.outside, range.count] {
            command.arg(number.to_string());
        }
    }
    let output = command
        .output()
        .with_context(|| format!("execute `{helper}`"))?;
    if !output.status.success() {
        bail!(
            "{helper}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
