//! Verbs of the payload program about what belongs to a namespace: pids, keys, shared memory,
//! credentials over sockets; and about what the kernel keeps per process.

use std::ffi::CString;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::{Pid, WaitOptions, waitpid};
use sys::clone::{Clone, Side, clone};
use sys::namespace::Kind;

use super::{number, run, say};

/// Runs a verb of this file; `None` for another verb.
pub(crate) fn verb(words: &[&str]) -> Option<io::Result<()>> {
    Some(match words {
        ["pids"] => pids(),
        ["in-new-pid-namespace", rest @ ..] => child(Kind::Pid.flag(), &[], rest),
        ["with-pid", pid, rest @ ..] => number(pid).and_then(|pid| child(0, &[pid], rest)),
        ["in-new-pid-namespace-with-pid", pid, rest @ ..] => {
            number(pid).and_then(|pid| child(Kind::Pid.flag(), &[1, pid], rest))
        }
        ["key-add", name, value] => {
            c(name).and_then(|name| say(&sys::keyring::add(&name, value.as_bytes())?.to_string()))
        }
        ["key-search", name] => {
            c(name).and_then(|name| say(&sys::keyring::search(&name)?.to_string()))
        }
        ["key-read", serial] => number(serial).and_then(key_read),
        ["shm-write", key, text] => number(key).and_then(|key| {
            let segment = sys::sysv_shm::create(key, 4096)?;
            Ok(segment.write(text.as_bytes())?)
        }),
        ["shm-read", key, length] => shm_read(key, length),
        ["connect", path] => UnixStream::connect(path).and_then(|stream| peer(&stream)),
        ["listen", path] => listen(path),
        ["chmod", path, mode] => u32::from_str_radix(mode, 8)
            .map_err(io::Error::other)
            .and_then(|mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))),
        ["kill-self", signal] => number(signal).and_then(|signal: i32| {
            let signal = sys::signal::from_number(signal).ok_or(io::ErrorKind::InvalidInput)?;
            Ok(rustix::process::kill_process(
                rustix::process::getpid(),
                signal,
            )?)
        }),
        ["scheduling"] => scheduling(),
        ["tty-is-controlling"] => std::fs::File::open("/dev/tty").map(drop),
        _ => return None,
    })
}

fn c(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(io::Error::other)
}

/// The numbers of all processes in `/proc`.
fn pids() -> io::Result<()> {
    let mut pids: Vec<i32> = std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.iter().try_for_each(|pid| say(&pid.to_string()))
}

/// Runs a verb in a child with these namespaces and pids; says `child N` before.
fn child(flags: u64, pids: &[i32], rest: &[&str]) -> io::Result<()> {
    let options = Clone {
        flags,
        set_tid: pids,
        ..Clone::default()
    };
    match clone(&options)? {
        Side::Child => {
            let code = i32::from(run(rest).is_err());
            sys::process::leave(code)
        }
        Side::Parent { pid, .. } => {
            say(&format!("child {pid}"))?;
            wait(pid)
        }
    }
}

fn wait(pid: Pid) -> io::Result<()> {
    let waited = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
    match waited {
        Some((_, status)) if status.exit_status() == Some(0) => Ok(()),
        other => Err(io::Error::other(format!("the child ended as {other:?}"))),
    }
}

fn key_read(serial: i32) -> io::Result<()> {
    let mut buffer = [0; 64];
    let length = sys::keyring::read(serial, &mut buffer)?.min(buffer.len());
    say(&String::from_utf8_lossy(&buffer[..length]))
}

fn shm_read(key: &str, length: &str) -> io::Result<()> {
    let mut buffer = vec![0; number(length)?];
    sys::sysv_shm::find(number(key)?)?.read(&mut buffer)?;
    say(&String::from_utf8_lossy(&buffer))
}

/// Says `listening`, takes one connection, and says who it is from.
fn listen(path: &str) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    say("listening")?;
    peer(&listener.accept()?.0)
}

/// Says who is at the other end: `peer PID UID GID` by SO_PEERCRED, and `sender …` by the
/// credentials of the message that each end sends (SCM_CREDENTIALS).
fn peer(mut stream: &UnixStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_passcred(stream, true)?;
    say(&format!("peer {}", sys::credentials::peer(stream)?))?;
    stream.write_all(b"x")?;
    match sys::credentials::receive(stream)? {
        Some(sender) => say(&format!("sender {sender}")),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

/// `policy=P nice=N priority=R`, by the numbers of sched(7).
fn scheduling() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .collect();
    // The state is field 3.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or("?");
    say(&format!(
        "policy={} nice={} priority={}",
        field(41),
        field(19),
        field(40)
    ))
}
