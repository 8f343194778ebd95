//! criu, or whatever speaks as it does, as a process of its own.
//!
//! The engine of checkpoint and restore is not linked into the runtime
//! (docs/decisions/0007-criu-beside-the-runtime.md): it is executed as `criu swrk FD` and told over
//! a socket what to do. It asks back at each stage.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};

use criu_rpc::{Connection, Notify, Options, Request, RequestType, Response, Version};
use rustix::process::Pid;

use crate::error::{During, Error, Result};

/// The version from which on all that we use is there.
const OLDEST: (i32, i32) = (3, 0);

/// A running criu that waits for requests. Dropping it closes the line and waits for its end.
#[derive(Debug)]
pub(crate) struct Criu {
    child: Child,
    /// `None` once it is closed.
    line: Option<Connection>,
    version: Version,
}

/// A stage of its work at which criu asks back.
#[derive(Debug)]
pub(crate) struct Stage {
    /// One of [`criu_rpc::script`].
    pub(crate) script: String,
    /// The root of the tree, where there is one.
    pub(crate) pid: Option<Pid>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Criu {
    /// Executes it. `inherited` stay open in it, under their numbers.
    pub(crate) fn start(program: &Path, inherited: &[OwnedFd]) -> Result<Criu> {
        let mut criu = Criu::execute(program, inherited)?;
        criu.version = criu.ask_version(true)?;
        Ok(criu)
    }

    /// Asks a program whether it is floe's.
    pub(crate) fn probe(program: &Path) -> Result<bool> {
        let mut criu = Criu::execute(program, &[])?;
        criu.version = criu.ask_version(false)?;
        let floe = criu.is_floe();
        criu.finish()?;
        Ok(floe)
    }

    fn execute(program: &Path, inherited: &[OwnedFd]) -> Result<Criu> {
        let (ours, theirs) = sys::message::pair().during(|| "make a socket pair")?;
        for fd in inherited.iter().chain([&theirs]) {
            sys::fd::keep_on_exec(fd).during(|| "hand a descriptor on")?;
        }
        let mut command = Command::new(program);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        let child = command
            .spawn()
            .during(|| format!("execute `{}`", program.display()))?;
        drop(theirs);
        Ok(Criu {
            child,
            line: Some(Connection::new(ours)),
            version: Version::default(),
        })
    }

    /// `more`: another request follows, without which criu itself takes the end of the line ill.
    fn ask_version(&self, more: bool) -> Result<Version> {
        let request = Request {
            r#type: RequestType::Version as i32,
            keep_open: Some(more),
            ..Request::default()
        };
        self.send(&request)?;
        let version = self.receive()?.0.version.unwrap_or_default();
        let found = (version.major_number, version.minor_number);
        if found < OLDEST {
            let (major, minor) = found;
            let text = format!("criu {major}.{minor}: too old: 3.0 is needed");
            return Err(Error::plain(text));
        }
        Ok(version)
    }

    /// Whether it is floe's own, which takes more than criu does.
    pub(crate) fn is_floe(&self) -> bool {
        self.version.name.as_deref() == Some("floe")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| Error::plain("criu has no pid"))
    }

    /// Has it do something. `act` does our part at each stage; its error ends the request.
    pub(crate) fn request(
        &self,
        kind: RequestType,
        options: Options,
        act: &mut dyn FnMut(Stage) -> Result<()>,
    ) -> Result<Response> {
        self.send(&Request {
            r#type: kind as i32,
            opts: Some(options),
            ..Request::default()
        })?;
        let mut own_error = None;
        loop {
            let (response, fds) = match (self.receive(), own_error.take()) {
                (Ok(received), kept) => {
                    own_error = kept;
                    received
                }
                // What criu dies of after a failure of ours is no news.
                (Err(_), Some(error)) => return Err(error),
                (Err(error), None) => return Err(error),
            };
            if response.r#type == RequestType::Notify as i32 {
                let result = stage(response.notify, fds).and_then(&mut *act);
                self.send(&Request {
                    r#type: RequestType::Notify as i32,
                    notify_success: Some(result.is_ok()),
                    ..Request::default()
                })?;
                own_error = own_error.or(result.err());
                continue;
            }
            return match (response.success, own_error) {
                (_, Some(error)) => Err(error),
                (true, None) => Ok(response),
                (false, None) => Err(refusal(kind, &response)),
            };
        }
    }

    fn send(&self, request: &Request) -> Result<()> {
        let line = self.line.as_ref().ok_or_else(gone)?;
        line.send(request).during(|| "speak to criu")
    }

    fn receive(&self) -> Result<(Response, Vec<OwnedFd>)> {
        let line = self.line.as_ref().ok_or_else(gone)?;
        let received = line.receive().during(|| "listen to criu")?;
        received.ok_or_else(gone)
    }

    /// Closes the line and waits for the end.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.line = None;
        let status = self.child.wait().during(|| "wait for criu")?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::new("criu", status))
        }
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        self.line = None;
        let _already_waited_for = self.child.wait();
    }
}

fn gone() -> Error {
    Error::plain("criu ended without an answer")
}

fn stage(notify: Option<Notify>, fds: Vec<OwnedFd>) -> Result<Stage> {
    let notify = notify.ok_or_else(|| Error::plain("criu told of a stage without its name"))?;
    Ok(Stage {
        script: notify.script.unwrap_or_default(),
        pid: notify.pid.and_then(Pid::from_raw),
        fds,
    })
}

fn refusal(kind: RequestType, response: &Response) -> Error {
    match response.cr_errmsg.as_deref().map(str::trim) {
        Some(text) if !text.is_empty() => Error::plain(text),
        _ => {
            let kind = format!("{kind:?}").to_uppercase();
            let errno = response.cr_errno.unwrap_or_default();
            Error::plain(format!("criu failed: type {kind} errno {errno}"))
        }
    }
}

/// The error in criu's log that ended it: the last one that is not about another. criu's lines have a
/// time and a place before the text.
pub(crate) fn decisive_error(log: &Path) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    let errors = text.lines().filter_map(|line| {
        let (_, after) = line.split_once("Error (")?;
        let (_, message) = after.split_once("): ")?;
        Some(message.trim())
    });
    let follows = |message: &&str| message.contains("FAILED") || message.contains("failed with");
    errors
        .filter(|message| !follows(message))
        .last()
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decisive_error_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("dump.log");
        let text = "(00.1) Error (x.c:1): rlimit: not now\n(00.2) Error (criu/cr-dump.c:7): no way: 3\n\
                    (00.3) Error (x.c:9): Dump files failed with -1\n(00.3) Error (x.c:9): Dumping FAILED.\n";
        std::fs::write(&log, text).unwrap();
        assert_eq!(decisive_error(&log).as_deref(), Some("no way: 3"));
        assert_eq!(decisive_error(&directory.path().join("none")), None);
    }

    #[test]
    fn an_answer_without_words_gets_runcs() {
        let silent = Response {
            cr_errno: Some(5),
            ..Response::default()
        };
        let error = refusal(RequestType::Dump, &silent);
        assert_eq!(error.to_string(), "criu failed: type DUMP errno 5");
    }
}
