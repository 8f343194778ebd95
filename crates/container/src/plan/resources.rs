//! `linux.resources` in the words of the cgroup library.

use cgroup::devices::{DeviceAccess, DeviceKind, DeviceRule};
use cgroup::resources::{
    BlockIo, Cpu, DeviceNumber, HugetlbLimit, InterfacePriority, Limit, Memory, Network, RdmaLimit,
    Throttle, WeightDevice,
};

use crate::error::{Error, Result};
use crate::spec;

/// Translates; the numbers have been judged by [`spec::validate`] or are judged here.
///
/// # Errors
/// A device number is out of range.
pub(crate) fn translate(from: &spec::Resources) -> Result<cgroup::Resources> {
    Ok(cgroup::Resources {
        cpu: from.cpu.as_ref().map(cpu).unwrap_or_default(),
        memory: from.memory.as_ref().map(memory).unwrap_or_default(),
        pids: from
            .pids
            .as_ref()
            .and_then(|pids| pids.limit)
            .map(pids_limit),
        block_io: from
            .block_io
            .as_ref()
            .map(block_io)
            .transpose()?
            .unwrap_or_default(),
        hugetlb: from.hugepage_limits.iter().map(hugetlb).collect(),
        network: from.network.as_ref().map(network).unwrap_or_default(),
        rdma: from.rdma.iter().map(rdma).collect(),
        devices: from.devices.iter().map(device).collect::<Result<_>>()?,
        unified: from.unified.clone(),
    })
}

/// Engines write 0 where they mean no limit.
fn pids_limit(limit: i64) -> Limit {
    if limit == 0 {
        Limit::Unlimited
    } else {
        Limit::from_signed(limit)
    }
}

fn cpu(from: &spec::Cpu) -> Cpu {
    Cpu {
        shares: from.shares.filter(|shares| *shares != 0),
        quota: from
            .quota
            .filter(|quota| *quota != 0)
            .map(Limit::from_signed),
        burst: from.burst,
        period: from.period.filter(|period| *period != 0),
        realtime_runtime: from.realtime_runtime.filter(|runtime| *runtime != 0),
        realtime_period: from.realtime_period.filter(|period| *period != 0),
        cpus: from.cpus.clone(),
        mems: from.mems.clone(),
        idle: from.idle,
    }
}

fn memory(from: &spec::Memory) -> Memory {
    let limit = |value: Option<i64>| value.filter(|value| *value != 0).map(Limit::from_signed);
    Memory {
        limit: limit(from.limit),
        reservation: limit(from.reservation),
        swap: limit(from.swap),
        kernel: limit(from.kernel),
        kernel_tcp: limit(from.kernel_tcp),
        swappiness: from.swappiness,
        disable_oom_killer: from.disable_oom_killer,
        use_hierarchy: from.use_hierarchy,
        check_before_update: from.check_before_update.unwrap_or(false),
    }
}

fn block_io(from: &spec::BlockIo) -> Result<BlockIo> {
    let throttles = |list: &[spec::ThrottleDevice]| -> Result<Vec<Throttle>> {
        let one = |entry: &spec::ThrottleDevice| {
            Ok(Throttle {
                device: number(entry.major, entry.minor)?,
                rate: entry.rate,
            })
        };
        list.iter().map(one).collect()
    };
    let weights = from.weight_device.iter().map(|entry| {
        Ok(WeightDevice {
            device: number(entry.major, entry.minor)?,
            weight: entry.weight,
            leaf_weight: entry.leaf_weight,
        })
    });
    Ok(BlockIo {
        weight: from.weight.filter(|weight| *weight != 0),
        leaf_weight: from.leaf_weight.filter(|weight| *weight != 0),
        weight_devices: weights.collect::<Result<_>>()?,
        read_bps: throttles(&from.throttle_read_bps_device)?,
        write_bps: throttles(&from.throttle_write_bps_device)?,
        read_iops: throttles(&from.throttle_read_iops_device)?,
        write_iops: throttles(&from.throttle_write_iops_device)?,
    })
}

fn number(major: i64, minor: i64) -> Result<DeviceNumber> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(DeviceNumber { major, minor }),
        _ => Err(Error::plain(format!(
            "linux.resources: {major}:{minor} is not a device number"
        ))),
    }
}

fn hugetlb(from: &spec::HugepageLimit) -> HugetlbLimit {
    HugetlbLimit {
        page_size: from.page_size.clone(),
        limit: from.limit,
    }
}

fn network(from: &spec::Network) -> Network {
    let priorities = from.priorities.iter().map(|entry| InterfacePriority {
        name: entry.name.clone(),
        priority: entry.priority,
    });
    Network {
        class_id: from.class_id,
        priorities: priorities.collect(),
    }
}

fn rdma((device, limit): (&String, &spec::Rdma)) -> RdmaLimit {
    RdmaLimit {
        device: device.clone(),
        handles: limit.hca_handles,
        objects: limit.hca_objects,
    }
}

fn device(from: &spec::DeviceRule) -> Result<DeviceRule> {
    let access = match from.access.as_deref() {
        None | Some("") => Some(DeviceAccess::ALL),
        Some(letters) => DeviceAccess::parse(letters),
    };
    // −1, as well as nothing, is any.
    let any = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    Ok(DeviceRule {
        allow: from.allow,
        kind: match from.kind {
            spec::DeviceRuleKind::All => DeviceKind::All,
            spec::DeviceRuleKind::Block => DeviceKind::Block,
            spec::DeviceRuleKind::Char => DeviceKind::Char,
        },
        major: any(from.major),
        minor: any(from.minor),
        access: access.ok_or_else(|| {
            Error::plain(format!("linux.resources.devices: access {:?}", from.access))
        })?,
    })
}

/// The complete policy: nothing, but for what the configuration allows and every container has.
pub(crate) fn device_policy(
    wanted: Vec<DeviceRule>,
    nodes: &[super::device::Node],
) -> Vec<DeviceRule> {
    let nothing = DeviceRule {
        allow: false,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        access: DeviceAccess::ALL,
    };
    std::iter::once(nothing)
        .chain(wanted)
        .chain(always_allowed(nodes))
        .collect()
}

/// What every container may use beside what its configuration allows: the nodes that it finds in
/// `/dev` (config-linux.md, "Default Devices"), its terminals, and making nodes, which opens none.
fn always_allowed(nodes: &[super::device::Node]) -> Vec<DeviceRule> {
    let allow = |kind, major, minor, access| DeviceRule {
        allow: true,
        kind,
        major,
        minor,
        access,
    };
    let mut rules = vec![
        allow(DeviceKind::Char, None, None, DeviceAccess::MAKE),
        allow(DeviceKind::Block, None, None, DeviceAccess::MAKE),
        allow(DeviceKind::Char, Some(5), Some(2), DeviceAccess::ALL), // /dev/ptmx
        allow(DeviceKind::Char, Some(136), None, DeviceAccess::ALL),  // /dev/pts/*
        allow(DeviceKind::Char, Some(5), Some(1), DeviceAccess::ALL), // /dev/console
    ];
    let default = nodes.iter().filter(|node| node.default).map(|node| {
        let (major, minor) = (
            rustix::fs::major(node.number),
            rustix::fs::minor(node.number),
        );
        allow(
            DeviceKind::Char,
            Some(major),
            Some(minor),
            DeviceAccess::ALL,
        )
    });
    rules.extend(default);
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_unset_and_minus_one_unlimited() {
        let memory = spec::Memory {
            limit: Some(0),
            swap: Some(-1),
            ..spec::Memory::default()
        };
        let from = spec::Resources {
            memory: Some(memory),
            ..spec::Resources::default()
        };
        let to = translate(&from).unwrap();
        assert_eq!(
            (to.memory.limit, to.memory.swap),
            (None, Some(Limit::Unlimited))
        );
    }

    #[test]
    fn any_device_is_minus_one_or_nothing() {
        for value in [None, Some(-1)] {
            let from = spec::DeviceRule {
                major: value,
                ..spec::DeviceRule::default()
            };
            assert_eq!(device(&from).unwrap().major, None);
        }
    }
}
