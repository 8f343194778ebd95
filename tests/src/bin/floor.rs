//! The least that starting a container can cost: `floor ROOTFS PROGRAM`.
//!
//! The same namespaces, mounts, devices, masks, pivot_root and execve as a runtime makes of `runc spec`'s
//! bundle, directly: no configuration is read, no state kept, no group made, no privilege dropped. The
//! benchmark measures it beside the runtimes.

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat, symlinkat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
    mount_remount, unmount,
};
use std::env;
use std::error::Error;
use std::ffi::CString;
use std::path::Path;
use std::process::ExitCode;
use sys::clone::{Clone, Side};
use sys::namespace::Kind;

const MASKED: [&str; 9] = [
    "proc/acpi",
    "proc/asound",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];
const DEVICES: [(&str, u32); 6] = [
    ("null", 3),
    ("zero", 5),
    ("full", 7),
    ("random", 8),
    ("urandom", 9),
    ("tty", 0),
];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (rootfs, program) = args
        .next()
        .zip(args.next())
        .ok_or("usage: floor ROOTFS PROGRAM")?;
    let kinds = [
        Kind::Pid,
        Kind::Network,
        Kind::Ipc,
        Kind::Uts,
        Kind::Mount,
        Kind::Cgroup,
    ];
    let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
    match sys::clone::clone(&Clone {
        flags,
        ..Clone::default()
    })? {
        Side::Child => start(&rootfs, &program).map(|()| ExitCode::FAILURE),
        Side::Parent { pid, .. } => {
            let waited =
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            let code = waited
                .and_then(|(_, status)| status.exit_status())
                .and_then(|code| u8::try_from(code).ok());
            Ok(ExitCode::from(code.unwrap_or(255)))
        }
    }
}

fn start(rootfs: &str, program: &str) -> Result<(), Box<dyn Error>> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount_bind(rootfs, rootfs)?;
    env::set_current_dir(rootfs)?;
    mount_all()?;
    make_devices()?;
    rustix::system::sethostname(b"floor")?;
    protect()?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    env::set_current_dir("/")?;
    let program = CString::new(program)?;
    Err(std::io::Error::from(sys::exec::execve(
        &program,
        std::slice::from_ref(&program),
        &[],
    ))
    .into())
}

fn mount_all() -> Result<(), Box<dyn Error>> {
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let none = MountFlags::empty();
    for (kind, at, flags, data) in [
        ("proc", "proc", none, c""),
        (
            "tmpfs",
            "dev",
            MountFlags::NOSUID | MountFlags::STRICTATIME,
            c"mode=755,size=65536k",
        ),
        (
            "devpts",
            "dev/pts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            c"newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        ("tmpfs", "dev/shm", safe, c"mode=1777,size=65536k"),
        ("mqueue", "dev/mqueue", safe, c""),
        ("sysfs", "sys", safe | MountFlags::RDONLY, c""),
        (
            "cgroup2",
            "sys/fs/cgroup",
            safe | MountFlags::RELATIME | MountFlags::RDONLY,
            c"",
        ),
    ] {
        if at.starts_with("dev/") {
            std::fs::create_dir(at)?;
        }
        mount(kind, at, kind, flags, Some(data))?;
    }
    Ok(())
}

fn make_devices() -> Result<(), Box<dyn Error>> {
    for (name, minor) in DEVICES {
        let major = if name == "tty" { 5 } else { 1 };
        mknodat(
            CWD,
            format!("dev/{name}"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            makedev(major, minor),
        )?;
    }
    for (target, name) in [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ] {
        symlinkat(target, CWD, format!("dev/{name}"))?;
    }
    Ok(())
}

fn protect() -> Result<(), Box<dyn Error>> {
    for path in READ_ONLY.iter().filter(|path| Path::new(path).exists()) {
        mount_bind(*path, *path)?;
        mount_remount(*path, MountFlags::BIND | MountFlags::RDONLY, c"")?;
    }
    for path in MASKED.iter().filter(|path| Path::new(path).exists()) {
        if Path::new(path).is_dir() {
            mount("tmpfs", *path, "tmpfs", MountFlags::RDONLY, None)?;
        } else {
            mount_bind("dev/null", *path)?;
        }
    }
    Ok(())
}
