//! `update`: limits from flags, or as a document.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use container::spec::{self, BlockIo, Cpu, Memory, Pids, Resources};

use crate::flags::{Global, Update};

pub(crate) fn update(global: &Global, flags: &Update) -> anyhow::Result<ExitCode> {
    let wanted = match &flags.resources {
        Some(path) => document(path).context("--resources")?,
        None => from_flags(flags),
    };
    container::update(&super::root(global), &super::id(&flags.id)?, &wanted)?;
    Ok(ExitCode::SUCCESS)
}

fn document(path: &Path) -> anyhow::Result<Resources> {
    let mut source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let named = || format!("open `{}`", path.display());
        Box::new(std::fs::File::open(path).with_context(named)?)
    };
    let text = spec::read_document("resources", &mut source)?;
    Ok(spec::parse_resources(&text)?)
}

fn from_flags(flags: &Update) -> Resources {
    Resources {
        cpu: Some(Cpu {
            shares: flags.cpu_share,
            quota: flags.cpu_quota,
            burst: flags.cpu_burst,
            period: flags.cpu_period,
            realtime_runtime: flags.cpu_rt_runtime,
            realtime_period: flags.cpu_rt_period,
            cpus: flags.cpuset_cpus.clone(),
            mems: flags.cpuset_mems.clone(),
            idle: flags.cpu_idle,
        }),
        memory: Some(Memory {
            limit: flags.memory,
            reservation: flags.memory_reservation,
            swap: flags.memory_swap,
            ..Memory::default()
        }),
        pids: flags.pids_limit.map(|limit| Pids { limit: Some(limit) }),
        block_io: flags.blkio_weight.map(|weight| BlockIo {
            weight: Some(weight),
            ..BlockIo::default()
        }),
        ..Resources::default()
    }
}
