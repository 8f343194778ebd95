//! What runs inside the guest: this same program, as process 1 and then as the command's parent.
//!
//! 1. `init`, from the initramfs: the host's root under an overlay, then switch to it.
//! 2. `second`, in the new root: the usual mounts and the asked-for layout of resource groups (where
//!    systemd is process 1 it does these itself), then the command; its status leaves by the third console.

use super::Layout;
use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{Pid, WaitOptions, getpid, setsid, wait};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// This program's path in the guest.
pub(crate) const SELF: &str = "/run/floe-vm/xtask";
/// Where the command may leave a result for the host.
pub(crate) const RESULT: &str = "/run/floe-vm/result";
/// The guest's `$TMPDIR`: short, for paths of sockets begin with it.
pub(crate) const TEMPORARY: &str = "/mnt";
const CONF: &str = "/floe-vm/conf.json";
const BUSYBOX: &str = "/run/floe-vm/busybox";
const GROUPS: &str = "/sys/fs/cgroup";

/// A host directory at the same path in the guest.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) tag: String,
    pub(crate) directory: PathBuf,
    pub(crate) writable: bool,
}

/// What the host tells the guest.
#[derive(Debug)]
pub(crate) struct Conf {
    pub(crate) modules: Vec<String>,
    pub(crate) shares: Vec<Share>,
    pub(crate) layout: Layout,
    pub(crate) systemd: bool,
    pub(crate) directory: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) command: Vec<String>,
}

impl Conf {
    pub(crate) fn to_json(&self) -> String {
        let share = |share: &Share| json!([share.tag, share.directory, share.writable]);
        let layout = match self.layout {
            Layout::V1 => "v1",
            Layout::Hybrid => "hybrid",
            Layout::V2 => "v2",
        };
        json!({
            "modules": self.modules, "shares": self.shares.iter().map(share).collect::<Vec<Value>>(),
            "layout": layout, "systemd": self.systemd, "directory": self.directory,
            "environment": self.environment, "command": self.command,
        })
        .to_string()
    }

    fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("read `{}`", file.display()))?;
        let mut value: Value = serde_json::from_slice(&text)?;
        let mut take = |key: &str| value[key].take();
        let shares: Vec<(String, PathBuf, bool)> = serde_json::from_value(take("shares"))?;
        let share = |(tag, directory, writable)| Share {
            tag,
            directory,
            writable,
        };
        Ok(Self {
            modules: serde_json::from_value(take("modules"))?,
            shares: shares.into_iter().map(share).collect(),
            layout: match take("layout").as_str() {
                Some("v1") => Layout::V1,
                Some("hybrid") => Layout::Hybrid,
                _ => Layout::V2,
            },
            systemd: take("systemd") == true,
            directory: serde_json::from_value(take("directory"))?,
            environment: serde_json::from_value(take("environment"))?,
            command: serde_json::from_value(take("command"))?,
        })
    }
}

/// Whether this process is the first of a guest.
pub(crate) fn is_init() -> bool {
    getpid() == Pid::INIT && Path::new(CONF).exists()
}

/// Process 1 of the initramfs; returns only by an error, after which the kernel panics and the host shows its log.
pub(crate) fn init() -> Result<ExitCode> {
    attach("devtmpfs", "dev", "/dev", "mode=755")?;
    attach("proc", "proc", "/proc", "")?;
    attach("sysfs", "sysfs", "/sys", "")?;
    let conf = Conf::read(Path::new(CONF))?;
    for module in &conf.modules {
        let file = File::open(Path::new("/modules").join(module))?;
        finit_module(&file, c"", 0).with_context(|| format!("load {module}"))?;
    }
    attach("virtiofs", "root", "/lower", "ro")?;
    attach("tmpfs", "rw", "/rw", "mode=755")?;
    fs::create_dir("/rw/upper")?;
    fs::create_dir("/rw/work")?;
    attach(
        "overlay",
        "root",
        "/root",
        "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work",
    )?;
    attach("tmpfs", "run", "/root/run", "mode=755")?;
    fs::create_dir("/root/run/floe-vm")?;
    for file in ["xtask", "busybox", "conf.json"] {
        fs::copy(
            Path::new("/floe-vm").join(file),
            Path::new("/root/run/floe-vm").join(file),
        )?;
    }
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let modules = format!("/root/lib/modules/{release}");
    attach("virtiofs", "modules", &modules, "ro")?;
    for share in &conf.shares {
        let target = format!("/root{}", share.directory.display());
        attach(
            "virtiofs",
            &share.tag,
            &target,
            if share.writable { "" } else { "ro" },
        )?;
    }
    for directory in ["dev", "proc", "sys"] {
        let (from, to) = (format!("/{directory}"), format!("/root/{directory}"));
        fs::create_dir_all(&to)?;
        mount_move(&from, &to).with_context(|| format!("move `{from}`"))?;
    }
    std::env::set_current_dir("/root")?;
    mount_move("/root", "/").context("move the root")?;
    rustix::process::chroot(".").context("chroot")?;
    let mut next = Command::new(SELF);
    next.arg("guest");
    if conf.systemd {
        let units = Path::new("/run/systemd/system");
        fs::create_dir_all(units.join("multi-user.target.wants"))?;
        let unit = format!("[Service]\nExecStart={SELF} guest\nDelegate=yes\n");
        fs::write(units.join("floe-vm.service"), unit)?;
        symlink(
            "../floe-vm.service",
            units.join("multi-user.target.wants/floe-vm.service"),
        )?;
        next = Command::new("/lib/systemd/systemd");
    }
    Err(next.exec()).context("execute the next program")
}

/// The second half; reboots, which ends the machine.
pub(crate) fn second() -> Result<ExitCode> {
    let conf = Conf::read(Path::new("/run/floe-vm/conf.json"))?;
    if getpid() == Pid::INIT {
        prepare(conf.layout)?;
    }
    // The kernel calls it as modprobe; busybox goes by that name.
    symlink(BUSYBOX, "/run/floe-vm/modprobe")?;
    fs::write("/proc/sys/kernel/modprobe", "/run/floe-vm/modprobe")?;
    // Room on a disk, as containers have it: no overlay can stack on the root, which is one, and a tmpfs
    // lacks the user's extended attributes before Linux 6.6. Not below /run, which tests of engines cover.
    attach("ext4", "/dev/vda", TEMPORARY, "nobarrier").context("mount the disk")?;
    let everyone = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o1777);
    fs::set_permissions(TEMPORARY, everyone)?;
    let code = run(&conf).unwrap_or_else(|error| {
        eprintln!("xtask in the guest: {error:#}");
        125
    });
    let result = fs::read_to_string(RESULT).unwrap_or_default();
    let console = raw_console("/dev/hvc2")?;
    std::io::Write::write_all(
        &mut &console,
        format!("{}\n{code}\n", result.trim_end()).as_bytes(),
    )?;
    rustix::fs::sync();
    reboot(RebootCommand::Restart).context("reboot")?;
    Ok(ExitCode::SUCCESS)
}

/// What an init system would have done: mounts, resource groups, loopback.
fn prepare(layout: Layout) -> Result<()> {
    for (kind, target, options) in [
        ("tmpfs", "/dev/shm", "mode=1777"),
        ("mqueue", "/dev/mqueue", ""),
        ("devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666"),
        ("bpf", "/sys/fs/bpf", "mode=700"),
        ("tracefs", "/sys/kernel/tracing", ""),
        ("securityfs", "/sys/kernel/security", ""),
    ] {
        attach(kind, kind, target, options)?;
    }
    for (name, target) in [
        ("fd", "fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlink(format!("/proc/self/{target}"), format!("/dev/{name}"))?;
    }
    match layout {
        Layout::V2 => unified(GROUPS, true)?,
        Layout::V1 => legacy()?,
        Layout::Hybrid => {
            legacy()?;
            unified(&format!("{GROUPS}/unified"), false)?;
        }
    }
    rustix::system::sethostname(b"floe-vm")?;
    let up = Command::new(BUSYBOX)
        .args(["ip", "link", "set", "lo", "up"])
        .status()?;
    anyhow::ensure!(up.success(), "bring up the loopback device");
    Ok(())
}

/// The v2 hierarchy; as its only one it gets every controller, and this process a leaf of its own.
fn unified(at: &str, alone: bool) -> Result<()> {
    attach(
        "cgroup2",
        "cgroup2",
        at,
        if alone {
            "nsdelegate,memory_recursiveprot"
        } else {
            "nsdelegate"
        },
    )?;
    if alone {
        let controllers = fs::read_to_string(format!("{at}/cgroup.controllers"))?;
        let enable: Vec<String> = controllers
            .split_whitespace()
            .map(|name| format!("+{name}"))
            .collect();
        fs::write(format!("{at}/cgroup.subtree_control"), enable.join(" "))?;
        fs::create_dir(format!("{at}/init"))?;
        fs::write(format!("{at}/init/cgroup.procs"), "1")?;
    }
    Ok(())
}

/// One hierarchy per controller; cpu and cpuacct, net_cls and net_prio share, as distributions had it.
fn legacy() -> Result<()> {
    attach("tmpfs", "tmpfs", GROUPS, "mode=755")?;
    let table = fs::read_to_string("/proc/cgroups")?;
    let lines = table
        .lines()
        .filter(|line| !line.starts_with('#') && line.ends_with('1'));
    let controllers: Vec<&str> = lines
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let pairs = [("cpu", "cpuacct"), ("net_cls", "net_prio")];
    for controller in &controllers {
        let pair = pairs
            .iter()
            .find(|(first, second)| controller == first || controller == second);
        let (name, single) = match pair {
            Some((first, second))
                if controllers.contains(first) && controllers.contains(second) =>
            {
                if controller == second {
                    continue;
                }
                (format!("{first},{second}"), vec![*first, *second])
            }
            _ => ((*controller).to_owned(), Vec::new()),
        };
        let point = format!("{GROUPS}/{name}");
        if attach("cgroup", "cgroup", &point, &name).is_err() {
            // Kernels are built without the v1 side of some controllers (CONFIG_CPUSETS_V1, CONFIG_MEMCG_V1).
            fs::remove_dir(&point)?;
            continue;
        }
        for alias in single {
            symlink(&name, format!("{GROUPS}/{alias}"))?;
        }
    }
    Ok(())
}

/// Runs the command on the first two consoles; as process 1 it reaps orphans meanwhile.
fn run(conf: &Conf) -> Result<i32> {
    let (output, errors) = (raw_console("/dev/hvc0")?, raw_console("/dev/hvc1")?);
    let _ = setsid();
    let (program, args) = conf.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(conf.environment.iter().cloned());
    let directory = if conf.directory.is_dir() {
        conf.directory.as_path()
    } else {
        Path::new("/")
    };
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let child = command
        .spawn()
        .with_context(|| format!("execute `{program}`"))?;
    let child = Pid::from_child(&child);
    loop {
        if let Some((pid, status)) = wait(WaitOptions::empty()).context("wait")?
            && pid == child
        {
            return Ok(status
                .exit_status()
                .or(status.terminating_signal().map(|signal| 128 + signal))
                .unwrap_or(125));
        }
    }
}

/// A console that passes bytes on as they are.
fn raw_console(path: &str) -> Result<File> {
    let console = File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("open `{path}`"))?;
    let mut modes = tcgetattr(&console)?;
    modes.make_raw();
    tcsetattr(&console, OptionalActions::Now, &modes)?;
    Ok(console)
}

fn attach(kind: &str, source: &str, target: &str, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("create `{target}`"))?;
    let (flags, options) = if options == "ro" {
        (MountFlags::RDONLY, "")
    } else {
        (MountFlags::empty(), options)
    };
    let data = CString::new(options)?;
    mount(source, target, kind, flags, Some(data.as_c_str()))
        .with_context(|| format!("mount {kind} on `{target}`"))
}
