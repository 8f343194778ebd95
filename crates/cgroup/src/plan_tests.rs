use super::*;
use crate::resources::{BlockIo, Cpu, DeviceNumber, HugetlbLimit, Memory, Throttle};

const MIB: u64 = 1 << 20;

fn everything(v1: bool) -> Places {
    let all = ["cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma"];
    let none = Controllers::default();
    let all = Controllers::of(all);
    Places {
        v1: if v1 {
            all.with(Controller::NetCls).with(Controller::NetPrio)
        } else {
            none
        },
        v2: if v1 { none } else { all },
        unified: true,
        noprefix: false,
    }
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.writes
        .iter()
        .map(|write| format!("{}={}", write.file, write.value))
        .collect()
}

/// Both layouts' writes for resources on a new group, each as `file=value` words.
fn check(resources: &Resources, v1: &[&str], v2: &[&str]) {
    check_update(resources, &Current::default(), v1, v2);
}

fn check_update(resources: &Resources, current: &Current, v1: &[&str], v2: &[&str]) {
    let on = |places| lines(&plan(&places, resources, current).unwrap());
    assert_eq!(on(everything(true)), v1, "v1 {resources:?}");
    assert_eq!(on(everything(false)), v2, "v2 {resources:?}");
}

fn refused(places: &Places, resources: &Resources) -> String {
    plan(places, resources, &Current::default())
        .unwrap_err()
        .to_string()
}

fn cpu(cpu: Cpu) -> Resources {
    Resources {
        cpu,
        ..Resources::default()
    }
}

fn memory(memory: Memory) -> Resources {
    Resources {
        memory,
        ..Resources::default()
    }
}

fn unified(pairs: &[(&str, &str)]) -> Resources {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Resources {
        unified: pairs.collect(),
        ..Resources::default()
    }
}

#[test]
fn nothing_asked_is_nothing_written() {
    check(&Resources::default(), &[], &[]);
    check(
        &memory(Memory {
            check_before_update: true,
            ..Memory::default()
        }),
        &[],
        &[],
    );
}

#[test]
fn shares_become_weights_on_the_parabola() {
    for (shares, weight) in [
        (1, 1),
        (2, 1),
        (102, 17),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (4096, 303),
        (262_144, 10_000),
        (u64::MAX, 10_000),
    ] {
        let resources = cpu(Cpu {
            shares: Some(shares),
            ..Cpu::default()
        });
        let v1 = format!("cpu.shares={shares}");
        check(&resources, &[&v1], &[&format!("cpu.weight={weight}")]);
    }
    check(
        &cpu(Cpu {
            shares: Some(0),
            ..Cpu::default()
        }),
        &[],
        &[],
    );
}

#[test]
fn weights_become_shares_on_the_same_parabola() {
    for (weight, shares) in [(1, 2), (100, 1024), (10_000, 262_144), (59, 521), (0, 2)] {
        assert_eq!(v2::shares_of_weight(weight), shares, "{weight}");
    }
}

#[test]
fn bandwidth_on_a_new_group() {
    let quota = |quota, period| {
        cpu(Cpu {
            quota,
            period,
            ..Cpu::default()
        })
    };
    let max = |value| Some(Limit::Max(value));
    check(
        &quota(max(50_000), None),
        &["cpu.cfs_quota_us=50000"],
        &["cpu.max=50000"],
    );
    check(
        &quota(max(5_000), Some(10_000)),
        &["cpu.cfs_period_us=10000", "cpu.cfs_quota_us=5000"],
        &["cpu.max=5000 10000"],
    );
    check(
        &quota(None, Some(10_000)),
        &["cpu.cfs_period_us=10000"],
        &["cpu.max=max 10000"],
    );
    check(&quota(max(0), Some(0)), &[], &[]);
    check(&quota(Some(Limit::Unlimited), None), &[], &["cpu.max=max"]);
}

#[test]
fn bandwidth_never_exceeds_old_and_new_ratio_in_between() {
    let current = Current {
        quota: Limit::Max(50_000),
        burst: 20_000,
        ..Current::default()
    };
    let max = |value| Some(Limit::Max(value));
    // (quota, period, burst, the order of v1's files)
    for (quota, period, burst, order) in [
        (max(500_000), Some(1_000_000), None, "period quota"),
        (max(10_000), Some(20_000), None, "quota period"),
        (Some(Limit::Unlimited), Some(200_000), None, "quota period"),
        (max(60_000), None, Some(30_000), "quota burst"),
        (max(10_000), None, Some(5_000), "burst quota"),
    ] {
        let resources = cpu(Cpu {
            quota,
            period,
            burst,
            ..Cpu::default()
        });
        let written = plan(&everything(true), &resources, &current)
            .unwrap()
            .writes;
        let name = |write: &Write| write.file.replace("cpu.cfs_", "").replace("_us", "");
        let names: Vec<_> = written.iter().map(name).collect();
        assert_eq!(names.join(" "), order, "{resources:?}");
    }
}

#[test]
fn an_idle_group_has_no_shares() {
    let idle = |idle| {
        cpu(Cpu {
            shares: Some(1024),
            idle: Some(idle),
            ..Cpu::default()
        })
    };
    check(
        &idle(1),
        &["cpu.shares=1024", "cpu.idle=1"],
        &["cpu.weight=100", "cpu.idle=1"],
    );
    check(
        &idle(0),
        &["cpu.idle=0", "cpu.shares=1024"],
        &["cpu.idle=0", "cpu.weight=100"],
    );
}

#[test]
fn memory_and_swap_on_a_new_group() {
    let limits = |limit: i64, swap: Option<i64>| {
        let limit = Some(Limit::from_signed(limit));
        memory(Memory {
            limit,
            swap: swap.map(Limit::from_signed),
            ..Memory::default()
        })
    };
    // (limit, memory+swap, v1, v2)
    type Row<'a> = (i64, Option<i64>, &'a [&'a str], &'a [&'a str]);
    let rows: [Row<'_>; 8] = [
        (
            100,
            None,
            &["memory.limit_in_bytes=100"],
            &["memory.max=100"],
        ),
        (
            100,
            Some(0),
            &["memory.limit_in_bytes=100"],
            &["memory.max=100"],
        ),
        (
            100,
            Some(100),
            &[
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=100",
            ],
            &["memory.swap.max=0", "memory.max=100"],
        ),
        (
            100,
            Some(300),
            &[
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=300",
            ],
            &["memory.swap.max=200", "memory.max=100"],
        ),
        (
            100,
            Some(-1),
            &["memory.limit_in_bytes=100"],
            &["memory.swap.max=max", "memory.max=100"],
        ),
        (-1, None, &[], &["memory.swap.max=max", "memory.max=max"]),
        (
            -1,
            Some(-1),
            &[],
            &["memory.swap.max=max", "memory.max=max"],
        ),
        (0, None, &[], &[]),
    ];
    for (limit, swap, v1, v2) in rows {
        check(&limits(limit, swap), v1, v2);
    }
    for places in [everything(true), everything(false)] {
        let text = refused(&places, &limits(100, Some(50)));
        assert_eq!(
            text,
            "set memory and swap limit `50`: below the memory limit"
        );
    }
}

#[test]
fn memory_and_swap_updates_go_in_the_order_the_kernel_takes() {
    let current = Current {
        memory: Limit::Max(100 * MIB),
        memory_and_swap: Limit::Max(200 * MIB),
        ..Current::default()
    };
    let mib = |count: i64| {
        Some(Limit::from_signed(if count < 0 {
            count
        } else {
            count << 20
        }))
    };
    for (limit, swap, order) in [
        (mib(300), mib(400), "memsw limit"),
        (mib(50), mib(60), "limit memsw"),
        (mib(150), mib(150), "limit memsw"),
        (mib(-1), None, "memsw limit"),
        (mib(300), mib(-1), "memsw limit"),
        (mib(100), mib(300), "memsw"),
        (mib(100), mib(200), ""),
        (None, mib(300), "memsw"),
    ] {
        let resources = memory(Memory {
            limit,
            swap,
            ..Memory::default()
        });
        let written = plan(&everything(true), &resources, &current)
            .unwrap()
            .writes;
        let short = |write: &Write| write.file.replace("memory.", "").replace("_in_bytes", "");
        let names: Vec<_> = written
            .iter()
            .map(|write| short(write).replace(".limit", ""))
            .collect();
        assert_eq!(names.join(" "), order, "{resources:?}");
    }
    // Swap alone on v2 is counted from the limit that the group has.
    let swap = memory(Memory {
        swap: mib(300),
        ..Memory::default()
    });
    let v2 = plan(&everything(false), &swap, &current).unwrap();
    assert_eq!(lines(&v2), [format!("memory.swap.max={}", 200 * MIB)]);
    assert!(refused(&everything(false), &swap).ends_with("v2 needs a memory limit with it"));
}

#[test]
fn other_memory_values() {
    let resources = memory(Memory {
        reservation: Some(Limit::Max(5)),
        kernel: Some(Limit::Max(6)),
        kernel_tcp: Some(Limit::Unlimited),
        swappiness: Some(0),
        disable_oom_killer: Some(true),
        use_hierarchy: Some(true),
        ..Memory::default()
    });
    check(
        &resources,
        &[
            "memory.use_hierarchy=1",
            "memory.kmem.limit_in_bytes=6",
            "memory.kmem.tcp.limit_in_bytes=-1",
            "memory.soft_limit_in_bytes=5",
            "memory.oom_control=1",
            "memory.swappiness=0",
        ],
        &["memory.low=5"],
    );
    let ignored = plan(&everything(false), &resources, &Current::default())
        .unwrap()
        .ignored;
    assert_eq!(ignored.len(), 4, "{ignored:?}");
    let swappiness = memory(Memory {
        swappiness: Some(101),
        ..Memory::default()
    });
    assert!(refused(&everything(true), &swappiness).contains("`101`: not between 0 and 100"));
}

#[test]
fn a_limit_below_use_is_refused_when_asked_to_check() {
    let current = Current {
        usage: 200,
        ..Current::default()
    };
    for (check_before_update, limit, accepted) in
        [(true, 199, false), (true, 200, true), (false, 199, true)]
    {
        let limit = Some(Limit::Max(limit));
        let resources = memory(Memory {
            limit,
            check_before_update,
            ..Memory::default()
        });
        for places in [everything(true), everything(false)] {
            assert_eq!(
                plan(&places, &resources, &current).is_ok(),
                accepted,
                "{resources:?}"
            );
        }
    }
}

#[test]
fn block_io_throttles_and_weights() {
    let device = DeviceNumber {
        major: 8,
        minor: 16,
    };
    let rate = |rate| vec![Throttle { device, rate }];
    let io = BlockIo {
        weight: Some(500),
        read_bps: rate(1024),
        write_bps: rate(0),
        read_iops: rate(7),
        write_iops: rate(8),
        ..BlockIo::default()
    };
    let resources = Resources {
        block_io: io,
        ..Resources::default()
    };
    check(
        &resources,
        &[
            "blkio.bfq.weight=500",
            "blkio.throttle.read_bps_device=8:16 1024",
            "blkio.throttle.write_bps_device=8:16 0",
            "blkio.throttle.read_iops_device=8:16 7",
            "blkio.throttle.write_iops_device=8:16 8",
        ],
        &[
            "io.bfq.weight=500",
            "io.max=8:16 rbps=1024",
            "io.max=8:16 wbps=max",
            "io.max=8:16 riops=7",
            "io.max=8:16 wiops=8",
        ],
    );
    let v2 = plan(&everything(false), &resources, &Current::default()).unwrap();
    let other = v2.writes[0].otherwise.clone();
    assert_eq!(other, Some(("io.weight".to_owned(), "4950".to_owned())));
}

#[test]
fn pids_hugetlb_cpuset_rdma_network() {
    let resources = Resources {
        pids: Some(Limit::Max(32)),
        hugetlb: vec![HugetlbLimit {
            page_size: "2MB".to_owned(),
            limit: 4096,
        }],
        cpu: Cpu {
            cpus: Some("0-1".to_owned()),
            mems: Some("0".to_owned()),
            ..Cpu::default()
        },
        rdma: vec![crate::resources::RdmaLimit {
            device: "mlx5_0".to_owned(),
            handles: Some(3),
            objects: None,
        }],
        network: crate::resources::Network {
            class_id: Some(0x10010),
            priorities: vec![crate::resources::InterfacePriority {
                name: "eth0".to_owned(),
                priority: 5,
            }],
        },
        ..Resources::default()
    };
    check(
        &resources,
        &[
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
            "pids.max=32",
            "hugetlb.2MB.limit_in_bytes=4096",
            "hugetlb.2MB.rsvd.limit_in_bytes=4096",
            "net_cls.classid=65552",
            "net_prio.ifpriomap=eth0 5",
            "rdma.max=mlx5_0 hca_handle=3",
        ],
        &[
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
            "pids.max=32",
            "hugetlb.2MB.max=4096",
            "hugetlb.2MB.rsvd.max=4096",
            "rdma.max=mlx5_0 hca_handle=3",
        ],
    );
}

#[test]
fn noprefix_cpusets_have_bare_names() {
    let places = Places {
        noprefix: true,
        ..everything(true)
    };
    let resources = cpu(Cpu {
        cpus: Some("1".to_owned()),
        ..Cpu::default()
    });
    assert_eq!(
        lines(&plan(&places, &resources, &Current::default()).unwrap()),
        ["cpus=1"]
    );
}

#[test]
fn what_no_controller_can_do_is_named() {
    let nowhere = Places {
        unified: true,
        ..Places::default()
    };
    let pids = |limit| Resources {
        pids: Some(limit),
        ..Resources::default()
    };
    let text = refused(&nowhere, &pids(Limit::Max(1)));
    assert_eq!(
        text,
        "set `pids.max`: no usable pids controller on this host"
    );
    assert_eq!(
        plan(&nowhere, &pids(Limit::Unlimited), &Current::default())
            .unwrap()
            .writes,
        []
    );
    let odd = HugetlbLimit {
        page_size: "../2MB".to_owned(),
        limit: 1,
    };
    let resources = Resources {
        hugetlb: vec![odd],
        ..Resources::default()
    };
    assert!(refused(&everything(false), &resources).ends_with("not a page size"));
}

#[test]
fn unified_keys_are_written_on_v2_and_translated_on_v1() {
    let pairs = [
        ("cpu.max", "5000 10000"),
        ("cpu.weight", "100"),
        ("cgroup.max.depth", "3"),
        ("hugetlb.2MB.max", "4096"),
        ("memory.max", "100"),
        ("memory.swap.max", "50"),
        ("memset.mems", "0"),
        ("pids.max", "max"),
    ];
    check(
        &unified(&pairs),
        &[
            "cpu.shares=1024",
            "cpu.cfs_period_us=10000",
            "cpu.cfs_quota_us=5000",
            "cpuset.mems=0",
            "memory.limit_in_bytes=100",
            "memory.memsw.limit_in_bytes=150",
            "pids.max=max",
            "hugetlb.2MB.limit_in_bytes=4096",
            "hugetlb.2MB.rsvd.limit_in_bytes=4096",
            "cgroup.max.depth=3",
        ],
        &[
            "cgroup.max.depth=3",
            "cpu.max=5000 10000",
            "cpu.weight=100",
            "hugetlb.2MB.max=4096",
            "memory.max=100",
            "memory.swap.max=50",
            "cpuset.mems=0",
            "pids.max=max",
        ],
    );
}

#[test]
fn unified_keys_with_no_place_are_refused() {
    for (v1, key, value, cause) in [
        (false, "../memory.max", "1", "not a file of a group"),
        (false, "memory", "1", "not a file of a group"),
        (
            true,
            "memory.high",
            "1",
            "memory is on v1, which has no such value",
        ),
        (
            true,
            "memory.max",
            "many",
            "memory is on v1, which has no such value",
        ),
        (
            false,
            "misc.max",
            "x 1",
            "no usable misc controller on this host",
        ),
    ] {
        let text = refused(&everything(v1), &unified(&[(key, value)]));
        assert_eq!(text, format!("set unified `{key}`: {cause}"));
    }
}

#[test]
fn only_what_the_order_depends_on_is_read() {
    let limit = memory(Memory {
        limit: Some(Limit::Max(1)),
        ..Memory::default()
    });
    let names = |v1: bool, resources: &Resources| -> Vec<&str> {
        needed(&everything(v1), resources)
            .iter()
            .map(|(_, _, name)| *name)
            .collect()
    };
    assert_eq!(
        names(true, &limit),
        ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
    );
    assert_eq!(names(false, &limit), [""; 0]);
    let period = cpu(Cpu {
        period: Some(1),
        ..Cpu::default()
    });
    assert_eq!(names(true, &period), [""; 0]);
    assert_eq!(names(false, &period), ["cpu.max"]);
}

#[test]
fn current_values_are_read_as_v1_and_v2_print_them() {
    let mut current = Current::default();
    current.set(Wanted::QuotaAndPeriod, "5000 10000\n");
    assert_eq!((current.quota, current.period), (Limit::Max(5000), 10_000));
    current.set(Wanted::QuotaAndPeriod, "max 100000\n");
    assert_eq!((current.quota, current.period), (Limit::Unlimited, 100_000));
    for (text, limit) in [
        ("9223372036854771712\n", Limit::Unlimited),
        ("9223372036854710272\n", Limit::Unlimited),
        ("1048576\n", Limit::Max(1_048_576)),
        ("max\n", Limit::Unlimited),
    ] {
        current.set(Wanted::Memory, text);
        assert_eq!(current.memory, limit, "{text}");
    }
    current.set(Wanted::Usage, "");
    assert_eq!(current.usage, 0);
}
