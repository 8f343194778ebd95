//! What cannot be dumped: looked for before anything is stopped, and met again once all is.
//!
//! Problem: a program that holds, say, an io_uring is best told so while it still runs. Race: it may
//! open one between the look and the stop. Solution: one table; before the stop `/proc` is searched
//! for its rows, and after it every descriptor, mapping and thread passes by it again.

use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::files::Descriptor;
use crate::procfs::{self, Mapping, Stat};

/// How an object is recognized.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// What the link in `/proc/PID/fd`, or a mapping's name, begins with.
    Link(&'static str),
    /// A character device: major, minor; no minor: all of them.
    Device(u32, Option<u32>),
    /// What the name of a socket's protocol begins with.
    Protocol(&'static str),
}

/// An object that no interface reads out or makes again, and what its owner can do.
#[derive(Debug)]
struct Obstacle {
    sign: Sign,
    reason: &'static str,
    remedy: &'static str,
}

const fn row(sign: Sign, reason: &'static str, remedy: &'static str) -> Obstacle {
    Obstacle {
        sign,
        reason,
        remedy,
    }
}

const IO_URING: Obstacle = row(
    Sign::Link("anon_inode:[io_uring]"),
    "no interface tells what an io_uring has in flight",
    "run the program without io_uring (libuv: UV_USE_IO_URING=0), or let it close the ring first",
);
const USERFAULTFD: Obstacle = row(
    Sign::Link("anon_inode:[userfaultfd]"),
    "page faults that another program answers cannot be carried over",
    "let it close the userfaultfd first",
);
const KVM: (&str, &str) = (
    "the state of a virtual machine is not in its process",
    "use the machine's own snapshots",
);
const GPU: (&str, &str) = (
    "the state of a graphics card is not in its process",
    "let it release the device first",
);
const CLOSE: &str = "let it close the descriptor first";

const OBSTACLES: &[Obstacle] = &[
    IO_URING,
    USERFAULTFD,
    row(Sign::Link("anon_inode:kvm-"), KVM.0, KVM.1),
    row(Sign::Device(10, Some(232)), KVM.0, KVM.1),
    row(
        Sign::Link("anon_inode:[perf_event]"),
        "performance counters cannot be read out and set",
        "stop measuring it first",
    ),
    row(
        Sign::Link("anon_inode:bpf"),
        "programs and maps of the kernel cannot be read out",
        CLOSE,
    ),
    row(
        Sign::Link("anon_inode:seccomp notify"),
        "calls that wait for its answer cannot be carried over",
        "dump the processes whose calls it answers without it",
    ),
    row(
        Sign::Link("anon_inode:[landlock-ruleset]"),
        "Landlock rules cannot be read out",
        CLOSE,
    ),
    row(
        Sign::Link("anon_inode:[fscontext]"),
        "a file system that is being configured cannot be read out",
        "let it finish mounting first",
    ),
    row(
        Sign::Device(10, Some(229)),
        "a FUSE server's unanswered requests cannot be carried over",
        "unmount its file system first",
    ),
    row(
        Sign::Device(10, Some(200)),
        "a tunnel device belongs to a network namespace that is not dumped",
        CLOSE,
    ),
    row(
        Sign::Device(10, Some(238)),
        "memory that the kernel's vhost uses cannot be carried over",
        CLOSE,
    ),
    row(
        Sign::Link("/dev/vfio/"),
        "a device in its hands cannot be read out",
        "let it release the device first",
    ),
    row(Sign::Device(195, None), GPU.0, GPU.1),
    row(Sign::Device(226, None), GPU.0, GPU.1),
    row(
        Sign::Protocol("AF_VSOCK"),
        "connections between a host and its guest cannot be carried over",
        CLOSE,
    ),
    row(
        Sign::Protocol("XDP"),
        "its rings in the kernel cannot be read out",
        CLOSE,
    ),
    row(
        Sign::Protocol("ALG"),
        "the kernel's cipher state cannot be read out",
        CLOSE,
    ),
    row(
        Sign::Protocol("SCTP"),
        "an association's state cannot be read out",
        CLOSE,
    ),
];

/// `PF_IO_WORKER` of a task's flags.
const IO_WORKER: u32 = 0x10;

/// Searches the running tree of `root`. What ends or changes meanwhile is met later or never.
///
/// # Errors
/// One object that cannot be dumped.
pub(crate) fn look(root: Pid) -> Result<()> {
    let mut waiting = vec![root];
    while let Some(process) = waiting.pop() {
        look_at(process)?;
        let threads = procfs::numbers_in(process, "task").unwrap_or_default();
        for thread in threads {
            let children = procfs::read(process, &format!("task/{thread}/children"));
            waiting.extend(
                children
                    .unwrap_or_default()
                    .split_whitespace()
                    .filter_map(|word| Pid::from_raw(word.parse().ok()?)),
            );
        }
    }
    Ok(())
}

fn look_at(process: Pid) -> Result<()> {
    for number in procfs::numbers_in(process, "fd").unwrap_or_default() {
        let path = format!("{}/{process}/fd/{number}", procfs::root());
        let Ok(link) = std::fs::read_link(&path) else {
            continue;
        };
        let link = link.to_string_lossy();
        let object = || object(process, &format!("descriptor {number}"), &link);
        if let Some(found) = of_link(&link) {
            return Err(found.error(object()));
        }
        let found = if link.starts_with("socket:") {
            of_socket(&path)
        } else if link.starts_with("/dev/") {
            rustix::fs::stat(&path)
                .ok()
                .and_then(|stat| of_device(&stat))
        } else {
            None
        };
        if let Some(found) = found {
            return Err(found.error(object()));
        }
    }
    for mapping in procfs::plain_mappings(process).unwrap_or_default() {
        check_mapping(process, &mapping)?;
    }
    for thread in procfs::numbers_in(process, "task").unwrap_or_default() {
        if let Some(thread) = Pid::from_raw(thread) {
            check_thread(process, thread)?;
        }
    }
    Ok(())
}

/// A thread that the kernel started for an io_uring whose descriptor is hidden.
pub(crate) fn check_thread(process: Pid, thread: Pid) -> Result<()> {
    match Stat::of_thread(process, thread) {
        Ok(stat) if stat.flags & IO_WORKER != 0 => {
            Err(IO_URING.error(object(process, &format!("thread {thread}"), &stat.comm)))
        }
        _ => Ok(()),
    }
}

/// A descriptor of a stopped process.
pub(crate) fn check_descriptor(descriptor: &Descriptor) -> Result<()> {
    let found = of_link(&descriptor.link).or_else(|| of_device(&descriptor.stat));
    let found = found.or_else(|| {
        let (process, number) = (descriptor.process, descriptor.number);
        let path = format!("{}/{process}/fd/{number}", procfs::root());
        let socket = descriptor.link.starts_with("socket:");
        socket.then(|| of_socket(&path)).flatten()
    });
    found.map_or(Ok(()), |found| Err(found.error(descriptor.object())))
}

/// A mapping of a stopped process.
pub(crate) fn check_mapping(process: Pid, mapping: &Mapping) -> Result<()> {
    let registered = ["um", "uw", "ui"].iter().any(|flag| mapping.has(flag));
    let found = of_link(&mapping.name).or(registered.then_some(&USERFAULTFD));
    found.map_or(Ok(()), |found| {
        let about = format!("mapping {:x}-{:x}", mapping.start, mapping.end);
        Err(found.error(object(process, &about, &mapping.name)))
    })
}

fn of_link(link: &str) -> Option<&'static Obstacle> {
    let is = |row: &&Obstacle| matches!(row.sign, Sign::Link(start) if link.starts_with(start));
    OBSTACLES.iter().find(is)
}

fn of_device(stat: &rustix::fs::Stat) -> Option<&'static Obstacle> {
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR {
        return None;
    }
    let (major, minor) = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    let is = |row: &&Obstacle| match row.sign {
        Sign::Device(own, only) => own == major && only.is_none_or(|only| only == minor),
        Sign::Link(_) | Sign::Protocol(_) => false,
    };
    OBSTACLES.iter().find(is)
}

/// The name of a socket's protocol is an extended attribute of its file.
fn of_socket(path: &str) -> Option<&'static Obstacle> {
    let mut name = [0; 64];
    let length = rustix::fs::getxattr(path, "system.sockprotoname", &mut name).ok()?;
    let name = String::from_utf8_lossy(&name[..length]);
    let is = |row: &&Obstacle| matches!(row.sign, Sign::Protocol(start) if name.starts_with(start));
    OBSTACLES.iter().find(is)
}

fn object(process: Pid, what: &str, link: &str) -> String {
    let comm = procfs::read(process, "comm").unwrap_or_default();
    format!("{what} of process {process} ({}): {link}", comm.trim())
}

impl Obstacle {
    fn error(&self, object: String) -> Error {
        Error::because("dump", object, format!("{}; {}", self.reason, self.remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_what_cannot_be_dumped() {
        for (link, found) in [
            ("anon_inode:[io_uring]", true),
            ("anon_inode:[userfaultfd]", true),
            ("anon_inode:kvm-vcpu:0", true),
            ("anon_inode:bpf-prog", true),
            ("anon_inode:seccomp notify", true),
            ("anon_inode:[eventfd]", false),
            ("/home/me/anon_inode:[io_uring]", false),
            ("socket:[77]", false),
        ] {
            assert_eq!(of_link(link).is_some(), found, "{link}");
        }
    }

    #[test]
    fn memory_registered_with_a_userfaultfd_is_refused() {
        let own = rustix::process::getpid();
        let mapping = |flags: &[&str]| Mapping {
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..Mapping::default()
        };
        assert!(check_mapping(own, &mapping(&["rd", "wr"])).is_ok());
        let error = check_mapping(own, &mapping(&["rd", "um"])).unwrap_err();
        assert!(error.to_string().contains("userfaultfd"), "{error}");
    }
}
