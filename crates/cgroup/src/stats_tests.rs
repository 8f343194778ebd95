use std::path::PathBuf;

use super::*;

/// A group whose directories hold these files: (directory name, file, text).
fn group(names: &[(&str, &str)], files: &[(&str, &str, &str)]) -> (tempfile::TempDir, Group) {
    let root = tempfile::tempdir().unwrap();
    let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (name, directory) in names {
        let path = root.path().join(directory);
        std::fs::create_dir_all(&path).unwrap();
        paths.insert((*name).to_owned(), path);
    }
    for (directory, file, text) in files {
        std::fs::write(root.path().join(directory).join(file), text).unwrap();
    }
    let group = Group::open(&paths);
    (root, group)
}

fn entry(operation: &str, value: u64) -> BlockIoEntry {
    BlockIoEntry {
        major: 8,
        minor: 0,
        operation: operation.to_owned(),
        value,
    }
}

const V1_FILES: &[(&str, &str, &str)] = &[
    ("c", "cpuacct.usage", "3000\n"),
    ("c", "cpuacct.usage_percpu", "1000 2000 \n"),
    (
        "c",
        "cpuacct.usage_all",
        "cpu user system\n0 400 600\n1 1500 500\n",
    ),
    ("c", "cpuacct.stat", "user 5\nsystem 3\n"),
    (
        "c",
        "cpu.stat",
        "nr_periods 7\nnr_throttled 2\nthrottled_time 99\n",
    ),
    ("m", "memory.stat", "cache 10\ntotal_cache 20\nrss 30\n"),
    ("m", "memory.use_hierarchy", "1\n"),
    ("m", "memory.usage_in_bytes", "100\n"),
    ("m", "memory.max_usage_in_bytes", "200\n"),
    ("m", "memory.limit_in_bytes", "9223372036854771712\n"),
    ("m", "memory.failcnt", "4\n"),
    (
        "m",
        "memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    ),
    ("p", "pids.current", "3\n"),
    ("p", "pids.max", "max\n"),
    (
        "b",
        "blkio.throttle.io_serviced_recursive",
        "8:0 Read 5\n8:0 Total 5\nTotal 5\n",
    ),
];

#[test]
fn v1_counters() {
    let names = [
        ("cpu", "c"),
        ("cpuacct", "c"),
        ("memory", "m"),
        ("pids", "p"),
        ("blkio", "b"),
    ];
    let (_root, group) = group(&names, V1_FILES);
    let stats = group.stats().unwrap();
    assert_eq!(stats.cpu.total, 3000);
    assert_eq!(stats.cpu.per_cpu, [1000, 2000]);
    assert_eq!(stats.cpu.per_cpu_user, [400, 1500]);
    assert_eq!(stats.cpu.per_cpu_kernel, [600, 500]);
    assert_eq!(stats.cpu.user, 50_000_000);
    assert_eq!(
        (stats.cpu.throttled_periods, stats.cpu.throttled_time),
        (2, 99)
    );
    let memory = stats.memory.unwrap();
    assert_eq!(
        (memory.cache, memory.oom_kills, memory.raw["rss"]),
        (20, 3, 30)
    );
    let limit = 9_223_372_036_854_771_712;
    assert_eq!(
        memory.usage,
        Usage {
            usage: 100,
            max: 200,
            fail_count: 4,
            limit
        }
    );
    assert_eq!(
        stats.pids,
        Some(PidsStats {
            current: 3,
            limit: 0
        })
    );
    assert_eq!(
        stats.block_io.unwrap().serviced,
        [entry("Read", 5), entry("Total", 5)]
    );
}

const V2_FILES: &[(&str, &str, &str)] = &[
    (
        "g",
        "cgroup.controllers",
        "cpu io memory pids hugetlb rdma cpuset\n",
    ),
    (
        "g",
        "cpu.stat",
        "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\nthrottled_usec 8\n",
    ),
    ("g", "memory.stat", "file 10\nkernel 7\n"),
    ("g", "memory.current", "100\n"),
    ("g", "memory.peak", "150\n"),
    ("g", "memory.max", "1000\n"),
    ("g", "memory.swap.current", "20\n"),
    ("g", "memory.swap.max", "max\n"),
    ("g", "memory.events", "low 0\nmax 6\noom_kill 2\n"),
    (
        "g",
        "memory.pressure",
        "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\n",
    ),
    ("g", "pids.current", "2\n"),
    ("g", "pids.max", "32\n"),
    (
        "g",
        "io.stat",
        "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
    ),
    ("g", "hugetlb.2MB.current", "2097152\n"),
    ("g", "hugetlb.2MB.rsvd.current", "1\n"),
    ("g", "hugetlb.2MB.max", "max\n"),
    ("g", "hugetlb.2MB.events", "max 9\n"),
    ("g", "rdma.current", "mlx5_0 hca_handle=1 hca_object=20\n"),
    ("g", "rdma.max", "mlx5_0 hca_handle=2 hca_object=max\n"),
    ("g", "cpuset.cpus.effective", "0-2,5\n"),
];

#[test]
fn v2_counters() {
    let (_root, group) = group(&[("", "g")], V2_FILES);
    let stats = group.stats().unwrap();
    assert_eq!(
        (stats.cpu.total, stats.cpu.user, stats.cpu.kernel),
        (5000, 3000, 2000)
    );
    assert_eq!(
        (stats.cpu.throttled_periods, stats.cpu.throttled_time),
        (1, 8000)
    );
    let memory = stats.memory.unwrap();
    assert_eq!(
        memory.usage,
        Usage {
            usage: 100,
            max: 150,
            fail_count: 6,
            limit: 1000
        }
    );
    assert_eq!((memory.swap.usage, memory.swap.limit), (120, u64::MAX));
    assert_eq!((memory.cache, memory.oom_kills), (10, 2));
    assert_eq!(
        memory.pressure.unwrap().some,
        Stall {
            avg10: 1.5,
            total: 77,
            ..Stall::default()
        }
    );
    assert_eq!(
        stats.pids,
        Some(PidsStats {
            current: 2,
            limit: 32
        })
    );
    let io = stats.block_io.unwrap();
    assert_eq!(
        io.service_bytes,
        [entry("Read", 4096), entry("Write", 0), entry("Discard", 0)]
    );
    let huge = Usage {
        usage: 2_097_152,
        max: 0,
        fail_count: 9,
        limit: u64::MAX,
    };
    assert_eq!(stats.hugetlb, BTreeMap::from([("2MB".to_owned(), huge)]));
    assert_eq!(
        (stats.rdma[0].objects, stats.rdma[0].objects_limit),
        (20, None)
    );
    assert_eq!(stats.cpuset.unwrap().cpus, [0, 1, 2, 5]);
}

#[test]
fn hybrid_groups_have_time_and_pressure_from_v2() {
    let (_root, group) = group(
        &[("", "u"), ("memory", "m")],
        &[
            ("u", "cpu.stat", "usage_usec 5\n"),
            (
                "u",
                "cpu.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=3\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2\n",
            ),
            (
                "u",
                "memory.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
            ),
            ("m", "memory.usage_in_bytes", "1\n"),
        ],
    );
    let stats = group.stats().unwrap();
    assert_eq!(stats.cpu.total, 5000);
    assert_eq!(stats.cpu.pressure.unwrap().full.total, 2);
    assert_eq!(stats.memory.unwrap().pressure.unwrap().some.total, 1);
    assert_eq!(stats.pids, None);
}

#[test]
fn a_group_that_is_gone_has_no_statistics() {
    let (root, group) = group(&[("", "g")], &[]);
    std::fs::remove_dir_all(root.path().join("g")).unwrap();
    let text = group.stats().unwrap_err().to_string();
    assert!(
        text.starts_with("read statistics of") && text.contains("ENOENT"),
        "{text}"
    );
}

#[test]
fn texts_in_another_form_are_zero_or_nothing() {
    for text in [
        "",
        "\n",
        "x",
        "-1",
        "99999999999999999999999",
        "some",
        "8:0",
        "a=b",
        "0-",
    ] {
        assert_eq!(parse::number(text), 0, "{text}");
        assert_eq!(parse::flat(text), BTreeMap::new(), "{text}");
        assert_eq!(parse::pressure(text), None, "{text}");
        assert_eq!(parse::block_io_v1(text), [], "{text}");
        assert_eq!(parse::usage_all(text), [], "{text}");
    }
    assert!(parse::list("0-4294967295").len() <= 1 + (1 << 16));
    assert_eq!(parse::list("3-1,x,2"), [2]);
}
