//! The program inside the tests' containers: `payload VERB [ARG…] [-- VERB [ARG…]]…`.
//!
//! One static file, so that a container needs nothing else. Each verb prints facts about what it sees,
//! one per line, or does one thing. A verb that fails ends the program with status 1 and one line on
//! the standard error; after `try` it prints `ok` or the errno's name instead, and the next verb runs.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what it is for"
)]

#[path = "payload/attack.rs"]
mod attack;
#[path = "../payload_kernel.rs"]
mod kernel;

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

fn main() -> ExitCode {
    let args: Vec<String> = env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    for sentence in args.split(|arg| arg == "--") {
        let words: Vec<&str> = sentence.iter().map(String::as_str).collect();
        let result = match words.as_slice() {
            ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap_or(255)),
            ["try", rest @ ..] => {
                println!(
                    "{}",
                    run(rest).map_or_else(|error| error_name(&error), |()| "ok".to_owned())
                );
                Ok(())
            }
            words => run(words),
        };
        if let Err(error) = result {
            eprintln!(
                "payload: {}: {} ({})",
                words.join(" "),
                error,
                error_name(&error)
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(words: &[&str]) -> io::Result<()> {
    match words {
        [] | ["true"] => Ok(()),
        ["echo", words @ ..] => say(&words.join(" ")),
        ["echo-stderr", words @ ..] => {
            eprintln!("{}", words.join(" "));
            Ok(())
        }
        ["copy-stdin"] => io::copy(&mut io::stdin(), &mut io::stdout()).map(drop),
        ["args", words @ ..] => words.iter().try_for_each(|word| say(word)),
        ["sleep", seconds] => {
            thread::sleep(Duration::from_secs_f64(number(seconds)?));
            Ok(())
        }
        ["spin", seconds] => {
            let end = Instant::now() + Duration::from_secs_f64(number(seconds)?);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            Ok(())
        }
        ["alloc", mebibytes] => alloc(number(mebibytes)?),
        ["fork", count] => fork(number(count)?),
        ["exec", program, args @ ..] => {
            use std::os::unix::process::CommandExt as _;
            Err(Command::new(program).args(args).exec())
        }
        words => look(words)
            .or_else(|| kernel::verb(words))
            .unwrap_or_else(|| change(words)),
    }
}

/// The verbs that only look; `None` for another verb.
fn look(words: &[&str]) -> Option<io::Result<()>> {
    Some(match words {
        ["cat", file] => cat(file),
        ["list", directory] => list(directory),
        ["readlink", path] => {
            fs::read_link(path).and_then(|target| say(&target.display().to_string()))
        }
        ["stat", path] => stat(path),
        ["pwd"] => env::current_dir().and_then(|path| say(&path.display().to_string())),
        ["env"] => env::vars_os()
            .try_for_each(|(name, value)| say(&format!("{}={}", name.display(), value.display()))),
        ["id"] => id(),
        ["pid"] => say(&std::process::id().to_string()),
        ["hostname"] => say(&rustix::system::uname().nodename().to_string_lossy()),
        ["domainname"] => say(&rustix::system::uname().domainname().to_string_lossy()),
        ["machine"] => say(&rustix::system::uname().machine().to_string_lossy()),
        ["mounts"] => cat("/proc/self/mountinfo"),
        ["status"] => cat("/proc/self/status"),
        ["status", key] => status(key),
        ["caps"] => ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
            .iter()
            .try_for_each(|key| status(key)),
        ["limits"] => cat("/proc/self/limits"),
        ["cgroup"] => cat("/proc/self/cgroup"),
        ["umask"] => status("Umask"),
        ["namespaces"] => namespaces(),
        ["fds"] => fds(),
        ["tty"] => (0..3).try_for_each(tty),
        ["clock"] => clock(),
        _ => return None,
    })
}

/// The verbs that change something.
fn change(words: &[&str]) -> io::Result<()> {
    match words {
        ["write", file, text] => fs::write(file, text),
        ["append", file, text] => fs::OpenOptions::new()
            .append(true)
            .open(file)?
            .write_all(text.as_bytes()),
        ["touch", file] => fs::File::create(file).map(drop),
        ["read", file] => fs::File::open(file)?.read(&mut [0; 64]).map(drop),
        ["mkdir", path] => fs::create_dir(path),
        ["rm", path] => fs::remove_file(path),
        ["chown", path, uid, gid] => {
            std::os::unix::fs::chown(path, Some(number(uid)?), Some(number(gid)?))
        }
        ["symlink", target, path] => std::os::unix::fs::symlink(target, path),
        ["mknod", path, kind, major, minor] => mknod(path, kind, number(major)?, number(minor)?),
        ["mount", kind, source, target] => {
            use rustix::mount::MountFlags;
            Ok(rustix::mount::mount(
                *source,
                *target,
                *kind,
                MountFlags::empty(),
                None,
            )?)
        }
        ["umount", target] => Ok(rustix::mount::unmount(
            *target,
            rustix::mount::UnmountFlags::DETACH,
        )?),
        ["sethostname", name] => Ok(rustix::system::sethostname(name.as_bytes())?),
        ["setuid", id] => Ok(rustix::thread::set_thread_uid(
            rustix::process::Uid::from_raw(number(id)?),
        )?),
        ["kill", pid, signal] => kill(number(pid)?, number(signal)?),
        ["signal-wait"] => signal_wait(),
        ["wait-for", path] => {
            while !Path::new(path).exists() {
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        }
        words => attack::run(words),
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn error_name(error: &io::Error) -> String {
    let errno = rustix::io::Errno::from_io_error(error);
    errno.map_or_else(|| error.to_string(), sys::errno::name)
}

fn cat(file: &str) -> io::Result<()> {
    let content = fs::read(file)?;
    io::stdout().write_all(&content)?;
    io::stdout().flush()
}

fn list(directory: &str) -> io::Result<()> {
    let entries =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = entries.collect::<io::Result<_>>()?;
    names.sort();
    names.iter().try_for_each(|name| say(name))
}

/// `TYPE MODE UID GID SIZE MAJOR:MINOR`, of the link itself.
fn stat(path: &str) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symlink",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () => "file",
    };
    let (major, minor) = (
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    );
    let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    say(&format!(
        "{kind} {mode:o} {uid} {gid} {} {major}:{minor}",
        meta.len()
    ))
}

/// `uid=U gid=G groups=…`, effective.
fn id() -> io::Result<()> {
    let groups = rustix::process::getgroups()?;
    let groups: Vec<String> = groups
        .iter()
        .map(|group| group.as_raw().to_string())
        .collect();
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    say(&format!("uid={uid} gid={gid} groups={}", groups.join(",")))
}

fn status(key: &str) -> io::Result<()> {
    let text = fs::read_to_string("/proc/self/status")?;
    let of_key = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name == key);
    text.lines()
        .filter(of_key)
        .try_for_each(|line| say(&line.replace(":\t", "=")))
}

fn namespaces() -> io::Result<()> {
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        if let Ok(link) = fs::read_link(format!("/proc/self/ns/{kind}")) {
            say(&link.display().to_string())?;
        }
    }
    Ok(())
}

/// `N TARGET` of every open file descriptor but the one that reads the directory.
fn fds() -> io::Result<()> {
    let mut numbers: Vec<i32> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_string_lossy().parse::<i32>());
    }
    numbers.sort_unstable();
    for fd in numbers {
        if let Ok(target) = fs::read_link(format!("/proc/self/fd/{fd}")) {
            say(&format!("{fd} {}", target.display()))?;
        }
    }
    Ok(())
}

/// `N tty ROWSxCOLS`, or `N no tty`.
fn tty(fd: i32) -> io::Result<()> {
    let file = fs::OpenOptions::new()
        .read(true)
        .open(format!("/proc/self/fd/{fd}"))?;
    match rustix::termios::tcgetwinsize(&file) {
        Ok(size) => say(&format!("{fd} tty {}x{}", size.ws_row, size.ws_col)),
        Err(_) => say(&format!("{fd} no tty")),
    }
}

/// Seconds of the monotonic and the boot clock.
fn clock() -> io::Result<()> {
    use rustix::time::{ClockId, clock_gettime};
    let seconds = |clock| clock_gettime(clock).tv_sec;
    say(&format!(
        "monotonic={} boottime={}",
        seconds(ClockId::Monotonic),
        seconds(ClockId::Boottime)
    ))
}

/// Takes and touches memory, says so, and holds it until the end of the program.
fn alloc(mebibytes: usize) -> io::Result<()> {
    let mut memory = vec![0_u8; mebibytes << 20];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(Box::leak(memory.into_boxed_slice()));
    say(&format!("allocated {mebibytes}"))
}

/// Starts sleeping children and says how many there are, and what stopped it.
fn fork(count: usize) -> io::Result<()> {
    for made in 0..count {
        if let Err(error) = Command::new("/proc/self/exe")
            .args(["sleep", "1000"])
            .spawn()
        {
            return say(&format!("forked {made} {}", error_name(&error)));
        }
    }
    say(&format!("forked {count}"))
}

fn mknod(path: &str, kind: &str, major: u32, minor: u32) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, makedev};
    let kind = match kind {
        "b" => FileType::BlockDevice,
        "c" => FileType::CharacterDevice,
        _ => FileType::Fifo,
    };
    Ok(rustix::fs::mknodat(
        CWD,
        path,
        kind,
        Mode::from_raw_mode(0o666),
        makedev(major, minor),
    )?)
}

/// Says `ready`, waits for any signal that can be blocked, and says which.
fn signal_wait() -> io::Result<()> {
    let signals = sys::signal::block_to_fd(None)?;
    say("ready")?;
    loop {
        if let Some(signal) = sys::signal::next(&signals)? {
            return say(&format!("signal {signal}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn kill(pid: i32, signal: i32) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let signal =
        rustix::process::Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, signal)?)
}
