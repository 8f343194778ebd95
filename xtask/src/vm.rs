//! `cargo xtask vm`: a command, or the root tests, under another kernel and another layout of resource
//! groups, in a throw-away virtual machine.
//!
//! The guest's root is the host's `/`, read-only over virtiofs and under an overlay in the guest's RAM,
//! so that the host's programs and this build run as they are. QEMU interprets (TCG): no /dev/kvm is
//! needed, a boot takes about three seconds, programs run 6 to 30 times slower than on the host. Needs
//! root, apt, qemu-system-x86, busybox-static, xz-utils, e2fsprogs and a virtiofsd.

pub(crate) mod guest;
mod initramfs;
mod kernel;
mod qemu;

use crate::debian::{Archive, cache, output};
use anyhow::{Context as _, Result, bail};
use guest::{Conf, Share};
use kernel::Kernel;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, fs};

const SUITES: [&str; 4] = [
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
];

/// How the guest mounts its resource groups.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Every controller on a v1 hierarchy, as far as the kernel was built for that
    V1,
    /// The same, and a v2 hierarchy at /sys/fs/cgroup/unified with what v1 has not
    Hybrid,
    /// Every controller on v2
    V2,
}

#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// Version of Debian's kernel: 6.1, 6.12, 6.18, 7 (the newest that begins so)
    #[arg(long, default_value = "6.1")]
    pub(crate) kernel: String,
    /// Layout of resource groups
    #[arg(long, value_enum, default_value_t = Layout::V2)]
    pub(crate) cgroup: Layout,
    /// systemd is process 1, the command a service of it with delegation
    #[arg(long)]
    pub(crate) systemd: bool,
    /// Memory of the guest
    #[arg(long, default_value = "2G")]
    pub(crate) memory: String,
    /// Processors of the guest
    #[arg(long, default_value_t = 2)]
    pub(crate) cpus: u32,
    /// Host directory that the guest may write to, at the same path
    #[arg(long, value_name = "DIR")]
    pub(crate) share: Vec<PathBuf>,
    /// Seconds until the machine is stopped (exit status 124)
    #[arg(long, default_value_t = 900)]
    pub(crate) timeout: u64,
    /// More words for the kernel's command line
    #[arg(long, default_value = "")]
    pub(crate) append: String,
    /// `test [FILTER]` for the root tests, or a command and its arguments
    #[arg(required = true, last = true)]
    pub(crate) command: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kernel: "6.1".to_owned(),
            cgroup: Layout::V2,
            systemd: false,
            memory: "2G".to_owned(),
            cpus: 2,
            share: Vec::new(),
            timeout: 900,
            append: String::new(),
            command: Vec::new(),
        }
    }
}

/// How a machine ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: u8,
    /// What the command wrote to `$FLOE_VM_RESULT`, if it did.
    pub(crate) result: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    Ok(ExitCode::from(boot(options)?.code))
}

/// Boots, runs the command to its end, its output going to ours.
pub(crate) fn boot(options: &Options) -> Result<Ended> {
    let archive = Archive::open(&cache("floe-vm")?, &SUITES)?;
    let kernel = Kernel::fetch(&archive, &options.kernel)?;
    let qemu = qemu::Program::find(&archive)?;
    let directory = tempfile::Builder::new().prefix("floe-vm.").tempdir()?;
    let root = if options.systemd {
        systemd_root()?
    } else {
        PathBuf::from("/")
    };
    let shares = shares(options, &root)?;
    let conf = conf(options, &shares, &kernel)?;
    let initramfs = directory.path().join("initramfs");
    initramfs::write(fs::File::create(&initramfs)?, &files(&conf, &kernel)?)?;
    let machine = qemu::Machine {
        program: &qemu,
        kernel: &kernel.image(),
        initramfs: &initramfs,
        command_line: &command_line(options),
        memory: &options.memory,
        cpus: options.cpus,
        directory: directory.path(),
    };
    let mut served = vec![
        qemu::Served {
            tag: "root".to_owned(),
            directory: root,
            writable: false,
        },
        qemu::Served {
            tag: "modules".to_owned(),
            directory: kernel.modules(),
            writable: false,
        },
    ];
    served.extend(shares.into_iter().map(|share| qemu::Served {
        tag: share.tag,
        directory: share.directory,
        writable: share.writable,
    }));
    machine.run(&served, Duration::from_secs(options.timeout))
}

/// What the guest needs besides its root: the directories to write to, and this build where it lies elsewhere.
fn shares(options: &Options, root: &Path) -> Result<Vec<Share>> {
    let workspace = crate::workspace().canonicalize()?;
    let same_file_system = fs::metadata("/")?.dev() == fs::metadata(&workspace)?.dev();
    let mut directories: Vec<(PathBuf, bool)> = Vec::new();
    if root != Path::new("/") || !same_file_system {
        directories.push((workspace, false));
    }
    for share in &options.share {
        let path = share
            .canonicalize()
            .with_context(|| format!("share `{}`", share.display()))?;
        directories.push((path, true));
    }
    let numbered = directories.into_iter().enumerate();
    let share = |(number, (directory, writable))| Share {
        tag: format!("share{number}"),
        directory,
        writable,
    };
    Ok(numbered.map(share).collect())
}

fn conf(options: &Options, shares: &[Share], kernel: &Kernel) -> Result<Conf> {
    let mut environment = vec![
        (
            "PATH".to_owned(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("HOME".to_owned(), "/root".to_owned()),
        ("TMPDIR".to_owned(), guest::TEMPORARY.to_owned()),
        ("FLOE_TEST_SLOWNESS".to_owned(), "8".to_owned()),
        ("FLOE_VM_RESULT".to_owned(), guest::RESULT.to_owned()),
    ];
    let passed_on = env::vars()
        .filter(|(name, _)| ["FLOE_TEST_RUNTIME", "RUST_BACKTRACE"].contains(&name.as_str()));
    environment.extend(passed_on);
    let names = kernel
        .early_modules()?
        .into_iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let mut command = options.command.clone();
    if command[0] == "test" {
        command[0] = guest::SELF.to_owned();
        command.insert(1, "test".to_owned());
        command.push(format!("--plan={}", crate::test::save_plan()?.display()));
    }
    Ok(Conf {
        modules: names.collect(),
        shares: shares.to_vec(),
        layout: options.cgroup,
        systemd: options.systemd,
        directory: env::current_dir()?,
        environment,
        command,
    })
}

fn files(conf: &Conf, kernel: &Kernel) -> Result<Vec<(String, Option<Vec<u8>>)>> {
    let directories = [
        "bin", "modules", "floe-vm", "dev", "proc", "sys", "lower", "root", "rw",
    ];
    let mut files: Vec<_> = directories
        .iter()
        .map(|name| ((*name).to_owned(), None))
        .collect();
    let this = fs::read("/proc/self/exe").context("read this program")?;
    files.push(("init".to_owned(), Some(this.clone())));
    files.push(("floe-vm/xtask".to_owned(), Some(this)));
    files.push((
        "floe-vm/conf.json".to_owned(),
        Some(conf.to_json().into_bytes()),
    ));
    let busybox =
        fs::read("/bin/busybox").context("read `/bin/busybox` (apt-get install busybox-static)")?;
    files.push(("floe-vm/busybox".to_owned(), Some(busybox)));
    for module in kernel.early_modules()? {
        let name = module
            .file_name()
            .context("a module's name")?
            .to_string_lossy()
            .into_owned();
        files.push((format!("modules/{name}"), Some(fs::read(&module)?)));
    }
    Ok(files)
}

fn command_line(options: &Options) -> String {
    let mut words = String::from(
        "console=ttyS0 loglevel=4 panic=-1 reboot=t psi=1 mitigations=off audit=0 nokaslr random.trust_cpu=1 \
         cryptomgr.notests rcupdate.rcu_expedited=1 systemd.getty_auto=no",
    );
    words += match (options.cgroup, options.systemd) {
        (Layout::V2, _) => " cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1",
        (Layout::Hybrid, true) => " systemd.unified_cgroup_hierarchy=0",
        (Layout::V1, true) => {
            " systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
        }
        (Layout::Hybrid | Layout::V1, false) => "",
    };
    format!("{words} {}", options.append)
}

/// A Debian root with systemd, made once.
fn systemd_root() -> Result<PathBuf> {
    let root = cache("floe-vm")?.join("systemd-bookworm");
    if root.is_dir() {
        return Ok(root);
    }
    let temporary = root.with_extension("tmp");
    let _ = fs::remove_dir_all(&temporary);
    eprintln!("xtask: making {}", root.display());
    let mut command = Command::new("mmdebstrap");
    command.args([
        "--quiet",
        "--variant=minbase",
        "--include=systemd,systemd-sysv,dbus,iproute2,procps,kmod",
    ]);
    output(
        command
            .arg("bookworm")
            .arg(&temporary)
            .arg(crate::debian::mirror()?),
    )?;
    if !temporary.join("lib/systemd/systemd").exists() {
        bail!("`{}` has no systemd", temporary.display());
    }
    fs::rename(&temporary, &root)?;
    Ok(root)
}
