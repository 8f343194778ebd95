//! A program to dump and restore, which one test owns.
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use checkpoint::image::Directory;
use checkpoint::{DumpOptions, RestoreOptions};
use rustix::process::{Pid, Signal, WaitOptions};

/// Ends the process when the test ends.
pub(crate) struct Program {
    pub(crate) pid: i32,
    pub(crate) directory: tempfile::TempDir,
    child: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid).unwrap();
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        let _ = self.child.try_wait();
    }
}

impl Program {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("it needs root");
        }
        if !Path::new(program).exists() {
            return skip(&format!("{program} is not installed"));
        }
        let directory = tempfile::tempdir().unwrap();
        let output = std::fs::File::create(directory.path().join("output")).unwrap();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        // A session of its own, as daemons have.
        let child = command.process_group(0).spawn().unwrap();
        let program = Self {
            pid: child.id() as i32,
            directory,
            child,
        };
        let command_line =
            || std::fs::read_to_string(format!("/proc/{}/cmdline", program.pid)).unwrap();
        while command_line().contains("\0clean\0") {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Until it has loaded its libraries, however slow the machine.
        let maps = || std::fs::read_to_string(format!("/proc/{}/maps", program.pid)).unwrap();
        let mut before = String::new();
        while before != maps() {
            before = maps();
            std::thread::sleep(Duration::from_millis(150));
        }
        Some(program)
    }

    pub(crate) fn images(&self) -> Directory {
        Directory::open(self.directory.path().to_str().unwrap()).unwrap()
    }

    pub(crate) fn options(&self) -> DumpOptions {
        DumpOptions {
            tree: self.pid,
            shell_job: true,
            tcp_established: true,
            ..DumpOptions::default()
        }
    }

    pub(crate) fn reap(&self) {
        // Where the test is parent and engine at once, the engine has reaped it already.
        let _ = rustix::process::waitpid(Pid::from_raw(self.pid), WaitOptions::empty());
    }

    pub(crate) fn dump_and_restore(&self) {
        self.dump_and_restore_with(&self.options());
    }

    pub(crate) fn dump_and_restore_with(&self, options: &DumpOptions) {
        checkpoint::dump(&self.images(), options).unwrap();
        self.reap();
        let restored = checkpoint::restore(&self.images(), &self.restore_options()).unwrap();
        assert_eq!(restored.root, self.pid);
    }

    pub(crate) fn restore_options(&self) -> RestoreOptions {
        RestoreOptions {
            shell_job: true,
            tcp_established: true,
            ..RestoreOptions::default()
        }
    }

    /// Starts a Python script that prints `ready` once it has made its objects.
    pub(crate) fn python(script: &str, arguments: &[&str]) -> Option<Self> {
        let arguments = [&["-c", script], arguments].concat();
        let program = Self::start("/usr/bin/python3", &arguments)?;
        program.wait_for(|output| output.contains("ready\n"));
        Some(program)
    }

    /// Sends SIGUSR1 and waits for the line that the program prints then.
    pub(crate) fn ask(&self) -> String {
        let before = self.output().lines().count();
        let pid = Pid::from_raw(self.pid).unwrap();
        rustix::process::kill_process(pid, Signal::USR1).unwrap();
        self.wait_for(|output| output.lines().count() > before && output.ends_with('\n'));
        self.output().lines().last().unwrap_or_default().to_owned()
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("output")).unwrap()
    }

    pub(crate) fn wait_for(&self, what: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !what(&self.output()) {
            assert!(
                Instant::now() < deadline,
                "waited in vain; the output is:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What must be the same after a dump that failed, and after a restore.
    pub(crate) fn fingerprint(&self) -> String {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap();
        let status = read("status");
        let kept = [
            "Name",
            "Umask",
            "Uid",
            "Gid",
            "Groups",
            "Threads",
            "TracerPid",
            "Sig",
            "Cap",
            "NoNewPrivs",
            "Seccomp",
        ];
        let lines = status
            .lines()
            .filter(|line| kept.iter().any(|key| line.starts_with(key)));
        let lines = lines
            .filter(|line| !line.starts_with("SigQ"))
            .collect::<Vec<_>>()
            .join("\n");
        format!("{lines}\n{}\n{}", read("maps"), read("limits"))
    }
}

pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    assert!(
        std::env::var_os("FLOE_STRICT").is_none(),
        "prerequisite missing: {reason}"
    );
    println!("SKIP: {reason}");
    None
}
