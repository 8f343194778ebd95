//! Docker and Podman, whose command lines are one language.

use crate::engine::image::{self, IMAGE};
use crate::engine::{Limit, Sandbox};
use crate::{Outcome, Runtime, host, wait_until};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An engine with the runtime under test and [`IMAGE`].
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    sandbox: Sandbox,
    archive: PathBuf,
}

/// Which engine it is, for what the two do not have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `dockerd`, containerd and the shim.
    Docker,
    /// `podman` and conmon, without a daemon.
    Podman,
}

impl Engine {
    /// Starts a `dockerd` with these further options; `None` where it or a static busybox is not installed.
    #[must_use]
    pub fn docker(options: &[&str]) -> Option<Self> {
        host::program("dockerd")?;
        Self::start_docker(Sandbox::new(), options)
    }

    /// A `dockerd` whose containers' root is the host's uid 1000000, by `--userns-remap`.
    #[must_use]
    pub fn docker_remapped(user: &str) -> Option<Self> {
        host::program("dockerd")?;
        let sandbox = Sandbox::new();
        let append = format!(
            "echo {user}:x:70707:70707::/:/bin/false >>/etc/passwd; echo {user}:x:70707: >>/etc/group; \
             for file in /etc/subuid /etc/subgid; do echo {user}:1000000:65536 >$file; done"
        );
        sandbox.shell(&append).succeeds();
        Self::start_docker(sandbox, &[&format!("--userns-remap={user}:{user}")])
    }

    /// The `dockerd` of a root file system with the newest engines.
    #[must_use]
    pub fn newest_docker(root: &Path) -> Option<Self> {
        Self::start_docker(Sandbox::with_root(root), &[])
    }

    fn start_docker(sandbox: Sandbox, options: &[&str]) -> Option<Self> {
        let mut engine = Self::new(Kind::Docker, sandbox)?;
        let sandbox = &mut engine.sandbox;
        let group = sandbox.group();
        let runtime = Runtime::default();
        let add_runtime = format!("--add-runtime=under-test={}", runtime.program().display());
        let mut command = sandbox.command("dockerd");
        command
            .args(["--host=unix:///run/docker.sock", "--exec-root=/run/docker"])
            .args([
                "--pidfile=/run/docker.pid",
                "--data-root",
                &sandbox.path("docker"),
            ])
            .args([
                "--cgroup-parent",
                &group,
                &add_runtime,
                "--default-runtime=under-test",
            ])
            .args(options);
        sandbox.daemon("dockerd", &mut command);
        wait_until("dockerd answers", || engine.call(&["version"]).code() == 0);
        engine.load();
        Some(engine)
    }

    /// Sets up Podman; `None` where it or a static busybox is not installed.
    #[must_use]
    pub fn podman() -> Option<Self> {
        host::program("podman")?;
        Self::set_up_podman(Sandbox::new())
    }

    /// The Podman of a root file system with the newest engines.
    #[must_use]
    pub fn newest_podman(root: &Path) -> Option<Self> {
        Self::set_up_podman(Sandbox::with_root(root))
    }

    fn set_up_podman(sandbox: Sandbox) -> Option<Self> {
        let engine = Self::new(Kind::Podman, sandbox)?;
        // The default of 1048576 open files is more than a process without CAP_SYS_RESOURCE may set.
        let configuration = "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]\n\
             [engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\n";
        engine.sandbox.write("/run/containers.conf", configuration);
        for file in ["/etc/subuid", "/etc/subgid"] {
            engine.sandbox.write(file, "containers:2000000:100000\n");
        }
        let user = "echo containers:x:70707:70707::/:/bin/false >>/etc/passwd";
        engine.sandbox.shell(user).succeeds();
        engine.load();
        Some(engine)
    }

    fn new(kind: Kind, sandbox: Sandbox) -> Option<Self> {
        let archive = image::archive(sandbox.directory())?;
        // BuildKit executes whatever is called runc.
        let link = sandbox.outside(sandbox.path("bin/runc"));
        symlink(Runtime::default().program(), link).expect("link to the runtime");
        Some(Self {
            kind,
            sandbox,
            archive,
        })
    }

    fn load(&self) {
        let archive = self.archive.to_str().expect("a path in UTF-8");
        self.call(&["load", "--input", archive]).succeeds();
    }

    /// Which engine it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it runs.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The client, ready for a subcommand.
    #[must_use]
    pub fn client(&self) -> Command {
        match self.kind {
            Kind::Docker => {
                let mut command = self.sandbox.client("docker");
                command.env("DOCKER_HOST", "unix:///run/docker.sock");
                command
            }
            Kind::Podman => {
                let mut command = self.sandbox.client("podman");
                command
                    .env("CONTAINERS_CONF", "/run/containers.conf")
                    .args([
                        "--root",
                        &self.sandbox.path("podman"),
                        "--runroot=/run/podman",
                    ])
                    .arg("--runtime")
                    .arg(Runtime::default().program());
                command
            }
        }
    }

    /// Runs a subcommand of the client to its end.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn call(&self, args: &[&str]) -> Outcome {
        self.sandbox.outcome(self.client().args(args))
    }

    /// `run --rm OPTIONS IMAGE COMMAND`, without a network unless the options say which.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn run(&self, options: &[&str], command: &[&str]) -> Outcome {
        let mut client = self.client();
        client
            .args(["run", "--rm"])
            .args(self.options(options))
            .arg(IMAGE)
            .args(command);
        self.sandbox.outcome(&mut client)
    }

    /// [`Self::run`] of a shell script.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn shell(&self, options: &[&str], script: &str) -> Outcome {
        self.run(options, &["sh", "-c", script])
    }

    /// `run --detach OPTIONS IMAGE sh -c SCRIPT`; the container is removed with the value.
    #[must_use]
    #[track_caller]
    pub fn start(&self, options: &[&str], script: &str) -> Running<'_> {
        let running = self.name();
        let mut client = self.client();
        client
            .args(["run", "--detach", "--name", &running.name])
            .args(self.options(options))
            .args([IMAGE, "sh", "-c", script]);
        self.sandbox.outcome(&mut client).succeeds();
        running
    }

    /// A container that sleeps, and dies at once of SIGTERM.
    #[must_use]
    #[track_caller]
    pub fn sleeper(&self, options: &[&str]) -> Running<'_> {
        self.start(
            options,
            "trap 'exit 15' TERM; while :; do sleep 1000 & wait; done",
        )
    }

    /// A name for a container that the caller makes; it is removed with the value.
    #[must_use]
    pub fn name(&self) -> Running<'_> {
        let id = crate::unique_id();
        Running {
            engine: self,
            name: id.trim_start_matches("floe-test-").to_owned(),
        }
    }

    /// The options of `run` and `create` that every container needs, before those of the case.
    #[must_use]
    pub fn options(&self, options: &[&str]) -> Vec<String> {
        let mut all = Vec::new();
        if self.kind == Kind::Podman {
            all.push(format!("--cgroup-parent={}", self.sandbox.group()));
        }
        let networked = |option: &&str| option.starts_with("--net") || option.starts_with("--pod");
        if !options.iter().any(networked) {
            all.push("--network=none".to_owned());
        }
        all.extend(options.iter().map(|option| (*option).to_owned()));
        all
    }
}

impl Drop for Engine {
    #[expect(
        clippy::print_stdout,
        reason = "what the daemon complained of, shown when the test fails"
    )]
    fn drop(&mut self) {
        if self.kind == Kind::Docker {
            println!("dockerd:\n{}", self.sandbox.complaints("dockerd"));
        }
    }
}

/// A container that is removed by force when the value goes.
#[derive(Debug)]
pub struct Running<'a> {
    engine: &'a Engine,
    name: String,
}

impl Running<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A subcommand with the container's name as its last argument.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn call(&self, args: &[&str]) -> Outcome {
        let mut client = self.engine.client();
        self.engine
            .sandbox
            .outcome(client.args(args).arg(&self.name))
    }

    /// `exec OPTIONS NAME COMMAND`.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Outcome {
        let mut client = self.engine.client();
        client
            .arg("exec")
            .args(options)
            .arg(&self.name)
            .args(command);
        self.engine.sandbox.outcome(&mut client)
    }

    /// `exec` of a shell script.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn shell(&self, options: &[&str], script: &str) -> Outcome {
        self.exec(options, &["sh", "-c", script])
    }

    /// A field of the container, as a Go template.
    #[must_use]
    #[track_caller]
    pub fn inspect(&self, template: &str) -> String {
        let outcome = self.call(&["inspect", "--format", template]).succeeds();
        outcome.stdout().trim().to_owned()
    }

    /// The pid of its first process, in the sandbox's numbers.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> String {
        self.inspect("{{.State.Pid}}")
    }

    /// Asserts limits in the groups of its first process.
    #[track_caller]
    pub fn has(&self, limits: &[Limit]) {
        let pid = self.pid();
        for limit in limits {
            limit.is_set_for(&self.engine.sandbox, &pid);
        }
    }

    /// `rm --force`, without a time of grace.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn remove(&self) -> Outcome {
        self.call(match self.engine.kind {
            Kind::Docker => &["rm", "--force", "--volumes"],
            Kind::Podman => &["rm", "--force", "--volumes", "--time=0"],
        })
    }

    /// Waits until its log contains `text`.
    #[track_caller]
    pub fn logs(&self, text: &str) {
        wait_until(&format!("the log contains {text:?}"), || {
            let outcome = self.call(&["logs"]);
            outcome.stdout().contains(text) || outcome.stderr().contains(text)
        });
    }

    /// Waits until the engine calls its state this.
    #[track_caller]
    pub fn becomes(&self, status: &str) {
        wait_until(&format!("{} is {status}", self.name), || {
            self.inspect("{{.State.Status}}") == status
        });
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}
