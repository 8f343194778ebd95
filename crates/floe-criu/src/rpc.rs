//! `swrk FD`: criu's side of its RPC, for runtimes that keep one criu per request.

mod options;

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use checkpoint::Stage;
use criu_rpc::{
    Connection, Dumped, Features, Notify, Request, RequestType, Response, Restored, Version, script,
};

use rustix::process::{Pid, Signal};

use crate::VERSION;
use crate::log::Log;

/// `EINVAL` and `EBADRQC`: what criu says of a failure that has no number, and of an unknown request.
const UNNAMED: i32 = 22;
const BAD_REQUEST: i32 = 56;

/// Serves one connection until the caller wants no more.
pub(crate) fn serve(number: &str) -> Result<()> {
    let parsed = number.parse();
    let number = parsed.with_context(|| format!("swrk `{number}`: it is no descriptor"))?;
    let socket = sys::fd::adopt(number).context("take the caller's socket")?;
    let caller = rustix::net::sockopt::socket_peercred(&socket).context("ask for the caller")?;
    let line = Line {
        connection: Connection::new(socket),
        caller: caller.pid.as_raw_nonzero().get(),
        notify: false,
    };
    line.serve()
}

/// The connection, and who is at its other end.
#[derive(Debug)]
struct Line {
    connection: Connection,
    caller: i32,
    /// The caller wants to hear of stages.
    notify: bool,
}

impl Line {
    fn serve(mut self) -> Result<()> {
        while let Some((request, _)) = self.connection.receive::<Request>().context("receive")? {
            self.notify = request
                .opts
                .as_ref()
                .is_some_and(|options| options.notify_scripts.unwrap_or(false));
            let answer = self.answer(&request);
            let success = answer.success;
            self.connection.send(&answer).context("answer")?;
            if !success || !request.keep_open.unwrap_or(false) {
                break;
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> Response {
        let kind = RequestType::try_from(request.r#type).unwrap_or(RequestType::Empty);
        let fine = response(kind, true);
        match kind {
            RequestType::Version => Response {
                version: Some(version()),
                ..fine
            },
            RequestType::Check => fine,
            RequestType::FeatureCheck => Response {
                features: Some(features(request)),
                ..fine
            },
            RequestType::Dump => self.logged(request, kind, |log| {
                self.dump(request, log)?;
                Ok(Response {
                    dump: Some(Dumped { restored: None }),
                    ..response(kind, true)
                })
            }),
            RequestType::Restore => self.logged(request, kind, |log| {
                let pid = self.restore(request, log)?;
                Ok(Response {
                    restore: Some(Restored { pid }),
                    ..response(kind, true)
                })
            }),
            RequestType::Empty
            | RequestType::PreDump
            | RequestType::PageServer
            | RequestType::Notify
            | RequestType::CpuinfoDump
            | RequestType::CpuinfoCheck
            | RequestType::WaitPid
            | RequestType::PageServerChild
            | RequestType::SinglePreDump => {
                let text = format!("request `{kind:?}`: floe-criu does not do that yet");
                let kind = RequestType::Empty;
                let (cr_errno, cr_errmsg) = (Some(BAD_REQUEST), Some(text));
                Response {
                    cr_errno,
                    cr_errmsg,
                    ..response(kind, false)
                }
            }
        }
    }

    /// Runs `work`; its error goes to the log and to the caller.
    fn logged(
        &self,
        request: &Request,
        kind: RequestType,
        work: impl FnOnce(&mut Log) -> Result<Response>,
    ) -> Response {
        let opened = options::log(request.opts.as_ref(), self.caller);
        let (mut log, result) = match opened {
            Ok(mut log) => {
                let result = work(&mut log);
                (log, result)
            }
            Err(error) => (Log::new(None), Err(error)),
        };
        result.unwrap_or_else(|error| {
            log.error(&error);
            let errno = error.downcast_ref::<checkpoint::Error>();
            let errno = errno.and_then(checkpoint::Error::errno);
            Response {
                cr_errno: Some(errno.map_or(UNNAMED, sys::Errno::raw_os_error)),
                cr_errmsg: Some(format!("{error:#}")),
                ..response(kind, false)
            }
        })
    }

    fn dump(&self, request: &Request, log: &mut Log) -> Result<()> {
        let wanted = request.opts.as_ref().context("dump: no options")?;
        options::refuse_unknown(wanted)?;
        let images = options::images(wanted, self.caller)?;
        let options = options::dump(wanted, self.caller)?;
        self.stage(script::PRE_DUMP, None)?;
        self.stage(script::NETWORK_LOCK, None)?;
        let dumped = checkpoint::dump(&images, &options);
        if dumped.is_err() || options.afterwards != checkpoint::Afterwards::Kill {
            self.stage(script::NETWORK_UNLOCK, None)?;
        }
        let statistics = dumped?;
        log.line(&format!(
            "dumped {} pages, frozen for {:?}",
            statistics.pages_written, statistics.frozen
        ));
        self.stage(script::POST_DUMP, None)
    }

    fn restore(&self, request: &Request, log: &mut Log) -> Result<i32> {
        let wanted = request.opts.as_ref().context("restore: no options")?;
        options::refuse_unknown(wanted)?;
        let images = options::images(wanted, self.caller)?;
        let options = options::restore(wanted)?;
        self.stage(script::PRE_RESTORE, None)?;
        let restored = checkpoint::restore_with(&images, &options, &mut |stage, root| {
            let pid = Some(root.as_raw_nonzero().get());
            let told = match stage {
                Stage::Cloned => self.stage(script::SETUP_NAMESPACES, pid),
                Stage::Whole => self
                    .stage(script::POST_RESTORE, pid)
                    .and_then(|()| self.stage(script::NETWORK_UNLOCK, pid)),
            };
            told.map_err(|error| {
                checkpoint::Error::because("restore", format!("{stage:?}"), format!("{error:#}"))
            })
        })?;
        log.line(&format!("restored process {}", restored.root));
        for (_, master) in &restored.consoles {
            let told = self.stage_with(script::ORPHAN_PTS_MASTER, None, Some(master));
            if let (Err(_), Some(root)) = (&told, Pid::from_raw(restored.root)) {
                let _gone = rustix::process::kill_process(root, Signal::KILL);
            }
            told?;
        }
        // The tree runs; that the caller is unhappy about it changes nothing.
        let _too_late = self.stage(script::POST_RESUME, Some(restored.root));
        Ok(restored.root)
    }

    /// Tells the caller of a stage and waits until it has done its part.
    fn stage(&self, name: &str, pid: Option<i32>) -> Result<()> {
        self.stage_with(name, pid, None)
    }

    fn stage_with(&self, name: &str, pid: Option<i32>, fd: Option<&OwnedFd>) -> Result<()> {
        if !self.notify {
            return Ok(());
        }
        let notify = Some(Notify {
            script: Some(name.to_owned()),
            pid,
        });
        let message = Response {
            notify,
            ..response(RequestType::Notify, true)
        };
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        self.connection
            .send_with_fds(&message, &fds)
            .with_context(|| format!("tell the caller of `{name}`"))?;
        let received = self.connection.receive::<Request>();
        let received = received.with_context(|| format!("hear of `{name}`"))?;
        let Some((answer, _)) = received else {
            bail!("stage `{name}`: the caller is gone");
        };
        if answer.r#type != RequestType::Notify as i32 {
            bail!("stage `{name}`: the caller answered something else");
        }
        if !answer.notify_success.unwrap_or(false) {
            bail!("stage `{name}`: the caller's part of it failed");
        }
        Ok(())
    }
}

fn response(kind: RequestType, success: bool) -> Response {
    Response {
        r#type: kind as i32,
        success,
        ..Response::default()
    }
}

/// [`VERSION`] in parts.
fn version() -> Version {
    let mut parts = VERSION.split('.').map(|part| part.parse().unwrap_or(0));
    Version {
        major_number: parts.next().unwrap_or(0),
        minor_number: parts.next().unwrap_or(0),
        sublevel: parts.next(),
        name: Some("floe".to_owned()),
        ..Version::default()
    }
}

/// Of the features that are asked for, those that are there: none of them yet.
fn features(request: &Request) -> Features {
    let asked = request.features.unwrap_or_default();
    let lacking = |asked: Option<bool>| asked.map(|_| false);
    Features {
        mem_track: lacking(asked.mem_track),
        lazy_pages: lacking(asked.lazy_pages),
        pidfd_store: lacking(asked.pidfd_store),
    }
}
