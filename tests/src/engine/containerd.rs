//! containerd, driven by `ctr` through the runc v2 shim.

use crate::engine::Sandbox;
use crate::engine::image::{self, IMAGE};
use crate::{Outcome, Runtime, host, wait_until};
use std::path::Path;
use std::process::Command;

/// A containerd with [`IMAGE`].
#[derive(Debug)]
pub struct Containerd {
    sandbox: Sandbox,
}

impl Containerd {
    /// Starts it; `None` where it or a static busybox is not installed.
    #[must_use]
    pub fn start() -> Option<Self> {
        host::program("containerd").and(host::program("ctr"))?;
        Self::start_in(Sandbox::new())
    }

    /// The containerd of a root file system with the newest engines.
    #[must_use]
    pub fn newest(root: &Path) -> Option<Self> {
        Self::start_in(Sandbox::with_root(root))
    }

    fn start_in(mut sandbox: Sandbox) -> Option<Self> {
        let archive = image::archive(sandbox.directory())?;
        let configuration = format!(
            "version = 2\nroot = \"{}\"\nstate = \"/run/containerd\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"/run/containerd.sock\"\n",
            sandbox.path("containerd")
        );
        sandbox.write("/run/containerd.toml", &configuration);
        let mut command = sandbox.command("containerd");
        sandbox.daemon("containerd", command.arg("--config=/run/containerd.toml"));
        let containerd = Self { sandbox };
        wait_until("containerd answers", || {
            containerd.call(&["version"]).code() == 0
        });
        let archive = archive.to_str().expect("a path in UTF-8");
        containerd.call(&["images", "import", archive]).succeeds();
        Some(containerd)
    }

    /// Where it runs.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The client, ready for a subcommand.
    #[must_use]
    pub fn client(&self) -> Command {
        let mut command = self.sandbox.client("ctr");
        command.env("CONTAINERD_ADDRESS", "/run/containerd.sock");
        command
    }

    /// Runs a subcommand of the client to its end.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn call(&self, args: &[&str]) -> Outcome {
        self.sandbox.outcome(self.client().args(args))
    }

    /// `run OPTIONS IMAGE ID COMMAND`.
    #[must_use]
    pub fn run_command(&self, id: &str, options: &[&str], command: &[&str]) -> Command {
        let mut client = self.client();
        client
            .args(["run", "--runc-binary"])
            .arg(Runtime::default().program())
            .args(["--cgroup", &format!("{}/{id}", self.sandbox.group())])
            .args(options)
            .args([IMAGE, id])
            .args(command);
        client
    }

    /// Runs a container to its end and removes it.
    #[must_use = "an outcome that is not asserted proves nothing"]
    pub fn run(&self, options: &[&str], command: &[&str]) -> Outcome {
        let id = crate::unique_id();
        let options: Vec<&str> = options.iter().copied().chain(["--rm"]).collect();
        self.sandbox
            .outcome(&mut self.run_command(&id, &options, command))
    }

    /// Starts a container in the background and returns its id.
    #[must_use]
    #[track_caller]
    pub fn start_container(&self, options: &[&str], script: &str) -> String {
        let id = crate::unique_id();
        let options: Vec<&str> = options.iter().copied().chain(["--detach"]).collect();
        let mut command = self.run_command(&id, &options, &["sh", "-c", script]);
        self.sandbox.outcome(&mut command).succeeds();
        id
    }
}

impl Drop for Containerd {
    #[expect(
        clippy::print_stdout,
        reason = "what the daemon complained of, shown when the test fails"
    )]
    fn drop(&mut self) {
        println!("containerd:\n{}", self.sandbox.complaints("containerd"));
    }
}
