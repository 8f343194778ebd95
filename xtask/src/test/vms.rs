//! The root tests in virtual machines: other kernels, other layouts of resource groups, systemd.

use super::{Options, Results};
use crate::vm::{self, Layout};
use anyhow::Result;
use std::time::{Duration, Instant};

/// One machine, one boot, all root tests.
#[derive(Debug)]
pub(crate) struct Round {
    kernel: &'static str,
    layout: Layout,
    systemd: bool,
    engines: bool,
}

/// The most telling first, as a short run stops where its time ends.
pub(crate) const ROUNDS: [Round; 5] = [
    Round {
        kernel: "6.1",
        layout: Layout::V2,
        systemd: false,
        engines: true,
    },
    Round {
        kernel: "6.12",
        layout: Layout::Hybrid,
        systemd: false,
        engines: false,
    },
    Round {
        kernel: "6.1",
        layout: Layout::V2,
        systemd: true,
        engines: false,
    },
    Round {
        kernel: "6.1",
        layout: Layout::V1,
        systemd: false,
        engines: false,
    },
    Round {
        kernel: "7",
        layout: Layout::V2,
        systemd: false,
        engines: false,
    },
];

/// What takes minutes where code is interpreted, waits for a race that needs two fast processors, or asks the kernel
/// for nothing that differs between these machines.
const SLOW: [&str; 12] = [
    "fuzz::",
    "engine_",
    "kill_steps",
    "floe_",
    "attack_",
    "checkpoint",
    "criu_rpc",
    "group_",
    "namespace_",
    "oci_commands",
    "oci_hooks",
    "oci_terminal",
];

impl Round {
    pub(crate) fn name(&self) -> String {
        let layout = match self.layout {
            Layout::V1 => "v1",
            Layout::Hybrid => "hybrid",
            Layout::V2 => "v2",
        };
        format!(
            "{} {layout}{}",
            self.kernel,
            if self.systemd { " systemd" } else { "" }
        )
    }
}

/// Boots and runs; a machine that fails or takes too long is one failure.
pub(crate) fn run(round: &Round, options: &Options, limit: Duration) -> Result<Results> {
    println!("\nroot tests in a virtual machine: {}", round.name());
    let mut command = vec!["test".to_owned()];
    command.extend(options.filter.clone());
    let mut except: Vec<&str> = Vec::new();
    if !options.all {
        except.extend(SLOW);
    } else if !round.engines {
        except.push("engine_");
    }
    command.extend(except.iter().map(|text| format!("--except={text}")));
    let machine = vm::Options {
        kernel: round.kernel.to_owned(),
        cgroup: round.layout,
        systemd: round.systemd,
        timeout: limit.as_secs(),
        command,
        ..vm::Options::default()
    };
    let start = Instant::now();
    let mut results = Results::default();
    match vm::boot(&machine) {
        Ok(vm::Ended {
            result: Some(text), ..
        }) => results.add_guest(Results::from_json(&text)?, &round.name()),
        Ok(vm::Ended { code, .. }) => results.failed.push((
            format!("vm {}", round.name()),
            format!("exit status {code}"),
        )),
        Err(error) => results
            .failed
            .push((format!("vm {}", round.name()), format!("{error:#}"))),
    }
    results
        .times
        .push((start.elapsed(), format!("vm {}", round.name())));
    Ok(results)
}
