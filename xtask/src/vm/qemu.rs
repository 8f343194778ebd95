//! QEMU, the daemons that serve directories to its guest, and the guest's three consoles.

use super::Ended;
use crate::debian::{Archive, output};
use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of the guest's disk; as a file with holes it takes what the guest writes.
const DISK: u64 = 4 << 30;

/// Where QEMU lies and what it needs to run there.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// The tree that it was unpacked into, if it is not the host's.
    tree: Option<PathBuf>,
}

impl Program {
    /// The host's QEMU; in the place of version 7, whose guests start programs three times slower, a newer one.
    pub(crate) fn find(archive: &Archive) -> Result<Self> {
        let path = PathBuf::from("qemu-system-x86_64");
        let version = output(Command::new(&path).arg("--version"));
        let version = version.context("qemu is missing (apt-get install qemu-system-x86)")?;
        if !version.contains(" version 7.") {
            return Ok(Self { path, tree: None });
        }
        let packages =
            ["x86", "common", "data"].map(|part| format!("qemu-system-{part}/bookworm-backports"));
        let tree = archive.unpacked("qemu", |_| Ok(packages.to_vec()), |_| Ok(()))?;
        Ok(Self {
            path: tree.join("usr/bin/qemu-system-x86_64"),
            tree: Some(tree),
        })
    }

    fn command(&self) -> Command {
        let mut command = killed_with_us(&self.path);
        if let Some(tree) = &self.tree {
            command
                .arg("-L")
                .arg(tree.join("usr/share/qemu"))
                .args(["-L", "/usr/share/seabios"]);
            command.env(
                "QEMU_MODULE_DIR",
                tree.join("usr/lib/x86_64-linux-gnu/qemu"),
            );
        }
        command
    }
}

/// A host directory that the guest mounts by its tag.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) tag: String,
    pub(crate) directory: PathBuf,
    pub(crate) writable: bool,
}

/// One machine, not yet booted.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) program: &'a Program,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) command_line: &'a str,
    pub(crate) memory: &'a str,
    pub(crate) cpus: u32,
    /// For sockets and logs; the caller removes it.
    pub(crate) directory: &'a Path,
}

/// A child that does not outlive this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// Boots and shows the guest's output until it is over.
    pub(crate) fn run(&self, served: &[Served], limit: Duration) -> Result<Ended> {
        self.make_disk()?;
        let daemons = served
            .iter()
            .map(|share| self.serve(share))
            .collect::<Result<Vec<Running>>>()?;
        let mut command = self.program.command();
        self.add_hardware(&mut command);
        for share in served {
            let socket = self.directory.join(format!("{}.sock", share.tag));
            command.arg("-chardev").arg(format!(
                "socket,id={},path={}",
                share.tag,
                socket.display()
            ));
            command
                .arg("-device")
                .arg(format!("vhost-user-fs-pci,chardev={0},tag={0}", share.tag));
        }
        // hvc0, hvc1, hvc2 of the guest: output, errors, result.
        let mut consoles = Vec::new();
        let mut theirs = Vec::new();
        for number in 0..3 {
            let (our_end, their_end) = UnixStream::pair()?;
            fcntl_setfd(&their_end, FdFlags::empty())?;
            command.arg("-chardev").arg(format!(
                "socket,id=hvc{number},fd={}",
                their_end.as_raw_fd()
            ));
            command
                .arg("-device")
                .arg(format!("virtconsole,chardev=hvc{number}"));
            consoles.push(Some(our_end));
            theirs.push(their_end);
        }
        let log = File::create(self.directory.join("qemu.log"))?;
        let qemu = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let qemu = Running(qemu.context("execute qemu")?);
        drop(theirs);
        let ended = pump(&mut consoles, Instant::now() + limit);
        drop((qemu, daemons));
        let Some(result) = ended? else {
            return Ok(Ended {
                code: 124,
                result: None,
            });
        };
        let (text, code) = result
            .trim_end()
            .rsplit_once('\n')
            .unwrap_or(("", result.trim()));
        let Ok(code) = code.parse() else {
            for name in ["console", "qemu.log", "virtiofsd.log"] {
                let log = fs::read(self.directory.join(name)).unwrap_or_default();
                eprint!("{}", String::from_utf8_lossy(&log));
            }
            bail!("the guest failed");
        };
        Ok(Ended {
            code,
            result: (!text.is_empty()).then(|| text.to_owned()),
        })
    }

    fn make_disk(&self) -> Result<()> {
        let disk = self.directory.join("disk");
        File::create(&disk)?.set_len(DISK)?;
        let mut command = Command::new("mkfs.ext4");
        output(command.args(["-q", "-O", "^has_journal"]).arg(&disk)).context("make a disk")?;
        Ok(())
    }

    fn add_hardware(&self, command: &mut Command) {
        let cpus = self.cpus.to_string();
        // q35 without its slow parts. The `microvm` machine has no clock to calibrate by and hangs at random.
        command.args([
            "-machine",
            "q35,usb=off,sata=off,smbus=off,vmport=off,memory-backend=mem",
        ]);
        command.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            &cpus,
            "-m",
            self.memory,
        ]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        // virtiofs needs the guest's memory shared with its daemon.
        command.arg("-object").arg(format!(
            "memory-backend-memfd,id=mem,size={},share=on",
            self.memory
        ));
        command
            .arg("-serial")
            .arg(format!("file:{}", self.directory.join("console").display()));
        command
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs);
        let disk = self.directory.join("disk").display().to_string();
        command.arg("-drive").arg(format!(
            "if=none,id=disk,format=raw,cache=unsafe,file={disk}"
        ));
        command.args(["-device", "virtio-blk-pci,drive=disk"]);
        command.args(["-append", self.command_line, "-device", "virtio-serial-pci"]);
    }

    /// A virtiofsd for this directory alone, without what is mounted below it, from a mount namespace of its own.
    fn serve(&self, share: &Served) -> Result<Running> {
        let places = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
        let daemon = places.iter().find(|path| Path::new(path).exists());
        let daemon = daemon
            .context("virtiofsd is missing (apt-get install qemu-system-common, or virtiofsd)")?;
        let view = self.directory.join(&share.tag);
        fs::create_dir(&view)?;
        let socket = self.directory.join(format!("{}.sock", share.tag));
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("virtiofsd.log"))?;
        // What nobody changes meanwhile may be cached for good: without that, programs start five times slower.
        let (mode, cache) = if share.writable {
            ("rw", "auto")
        } else {
            ("ro", "always")
        };
        let script = "mount --bind \"$1\" \"$2\" && mount -o remount,bind,$3 \"$2\" && \
            exec \"$4\" --socket-path=\"$5\" -o source=\"$2\" -o cache=$6";
        let mut command = killed_with_us("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command
            .arg(&share.directory)
            .arg(&view)
            .args([mode, daemon])
            .arg(&socket)
            .arg(cache);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let running = Running(child.context("execute unshare")?);
        let end = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            if Instant::now() > end {
                let log =
                    fs::read_to_string(self.directory.join("virtiofsd.log")).unwrap_or_default();
                bail!(
                    "virtiofsd does not serve `{}`: {log}",
                    share.directory.display()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(running)
    }
}

/// A command that the kernel kills when this process dies.
fn killed_with_us(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Copies the first two consoles to our outputs until all are closed: what the third said, or `None` at `end`.
fn pump(consoles: &mut [Option<UnixStream>], end: Instant) -> Result<Option<String>> {
    let mut result = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while consoles.iter().any(Option::is_some) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let open: Vec<usize> = (0..consoles.len())
            .filter(|index| consoles[*index].is_some())
            .collect();
        let mut fds: Vec<PollFd<'_>> = consoles
            .iter()
            .flatten()
            .map(|console| PollFd::new(console, PollFlags::IN))
            .collect();
        let timeout = Timespec::try_from(left).context("the time limit")?;
        poll(&mut fds, Some(&timeout)).context("wait for the guest")?;
        let ready: Vec<usize> = open
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(index, _)| index)
            .collect();
        for index in ready {
            let Some(console) = &mut consoles[index] else {
                continue;
            };
            let count = console.read(&mut buffer).unwrap_or(0);
            match (count, index) {
                (0, _) => consoles[index] = None,
                (count, 0) => {
                    std::io::stdout().write_all(&buffer[..count])?;
                    std::io::stdout().flush()?;
                }
                (count, 1) => std::io::stderr().write_all(&buffer[..count])?,
                (count, _) => result.extend_from_slice(&buffer[..count]),
            }
        }
    }
    Ok(Some(String::from_utf8_lossy(&result).into_owned()))
}
