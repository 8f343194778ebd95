//! `start`: lets the waiting process execute its program.

use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect};

use crate::create::{START_SOCKET, start_address};
use crate::error::{During, Error, Result};
use crate::id::ContainerId;
use crate::protocol::{self, Message};
use crate::record::{self, Directory};
use crate::{hooks, query, spec};

/// Starts a created container and returns once its program runs.
///
/// # Errors
/// The container is not in the state `created`, a hook fails, or the program cannot be executed.
pub fn start(root: &Path, id: &ContainerId) -> Result<Vec<Error>> {
    let directory = Directory::open(root, id)?;
    match query::status(root, id)? {
        spec::Status::Created => {}
        spec::Status::Stopped => {
            return Err(Error::plain("cannot start a container that has stopped"));
        }
        spec::Status::Creating => return Err(Error::plain("the container is not created yet")),
        spec::Status::Running | spec::Status::Paused => {
            return Err(already_running());
        }
    }
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .during(|| "make a socket")?;
    let (address, _directory) = start_address(directory.path())?;
    let reached = connect(&socket, &address);
    let path = directory.path().join(START_SOCKET);
    std::fs::remove_file(&path).during(|| format!("remove `{}`", path.display()))?;
    match reached {
        // A `start` that was killed after it was heard left the socket behind.
        Err(sys::Errno::CONNREFUSED) => return Err(already_running()),
        other => other.during(|| "reach the container's process")?,
    }
    // The other end closes at exec.
    match protocol::receive(&socket)? {
        None => {}
        Some(Message::Failed { text }) => return Err(Error::plain(text)),
        Some(other) => return Err(Error::plain(format!("received {other:?}"))),
    }
    let Some(record) = record::read(root, id)?.filter(|record| record.late_hooks) else {
        return Ok(Vec::new());
    };
    let config = record::read_config(root, id)?;
    let mut state = query::state(root, id)?.into_state();
    // The program may have ended by now; what the hooks follow is that it was started.
    state.status = spec::Status::Running;
    state.pid = record.init_process_pid;
    Ok(hooks::run_all("poststart", &config.hooks.poststart, &state))
}

fn already_running() -> Error {
    Error::plain("cannot start an already running container")
}
