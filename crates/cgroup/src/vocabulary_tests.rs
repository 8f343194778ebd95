use std::collections::BTreeMap;

use super::*;
use crate::controller::Controllers;
use crate::plan::Places;

/// A fixture tree: the files of a group at some level, `level place file` to text.
#[derive(Default)]
struct Tree(BTreeMap<(usize, bool, String), String>);

impl Tree {
    /// Lines `file=text`, on v2 if they begin with `2:`; one `/` in front for each level up.
    fn of(lines: &[&str]) -> Self {
        let mut tree = Self::default();
        for line in lines {
            let (path, text) = line.split_once('=').unwrap();
            let file = path.trim_start_matches('/');
            let level = path.len() - file.len();
            let (v2, file) = match file.strip_prefix("2:") {
                Some(file) => (true, file),
                None => (false, file),
            };
            tree.0.insert((level, v2, file.to_owned()), text.to_owned());
        }
        tree
    }

    fn read(&self, level: usize, place: Place, file: &str) -> Option<String> {
        self.0
            .get(&(level, place == Place::V2, file.to_owned()))
            .cloned()
    }
}

fn all() -> Controllers {
    let names = "cpu cpuacct cpuset memory io pids hugetlb rdma misc freezer";
    Controllers::of(names.split(' '))
}

fn v1() -> Places {
    Places {
        v1: all(),
        ..Places::default()
    }
}

fn v2() -> Places {
    Places {
        v2: Controllers::of("cpu cpuset memory io pids hugetlb rdma misc".split(' ')),
        unified: true,
        ..Places::default()
    }
}

/// As on hosts with controllers on both sides: hugetlb is on v2, the rest on v1.
fn hybrid() -> Places {
    Places {
        v1: Controllers::of("cpu cpuset memory blkio pids freezer".split(' ')),
        v2: Controllers::of(["hugetlb"]),
        unified: true,
        ..Places::default()
    }
}

/// New groups' files on each layout.
const NEW_V1: &[&str] = &[
    "cpu.shares=1024",
    "cpu.idle=0",
    "cpu.cfs_quota_us=-1",
    "cpu.cfs_period_us=100000",
    "cpu.cfs_burst_us=0",
    "cpuset.cpus=0-1",
    "/cpuset.cpus=0-3",
    "cpuset.mems=0",
    "/cpuset.mems=0",
    "cpuset.effective_cpus=0-1",
    "cpuset.memory_migrate=0",
    "cpuset.mem_hardwall=0",
    "memory.limit_in_bytes=9223372036854771712",
    "memory.memsw.limit_in_bytes=9223372036854771712",
    "memory.soft_limit_in_bytes=9223372036854771712",
    "memory.swappiness=60",
    "blkio.bfq.weight=100",
    "blkio.throttle.read_bps_device=",
    "blkio.throttle.write_bps_device=",
    "blkio.throttle.read_iops_device=",
    "blkio.throttle.write_iops_device=",
    "pids.max=max",
    "hugetlb.2MB.limit_in_bytes=9223372036854771712",
    "freezer.state=THAWED",
];

const NEW_V2: &[&str] = &[
    "2:cpu.weight=100",
    "2:cpu.idle=0",
    "2:cpu.max=max 100000",
    "2:cpu.max.burst=0",
    "2:cpu.uclamp.min=0.00",
    "2:cpuset.cpus=",
    "2:cpuset.cpus.effective=0-3",
    "2:cpuset.cpus.partition=member",
    "2:cpuset.mems=",
    "2:memory.max=max",
    "2:memory.high=max",
    "2:memory.low=0",
    "2:memory.swap.max=max",
    "2:memory.oom.group=0",
    "2:io.max=",
    "2:io.weight=default 100",
    "2:pids.max=max",
    "2:hugetlb.2MB.max=max",
    "2:cgroup.max.depth=max",
    "2:cgroup.freeze=0",
    "2:misc.max=a max\nb 4",
];

/// What is asked, and the writes on v1 and v2.
type Written = (
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

const WRITTEN: &[Written] = &[
    (
        &["cpu.weight=200"],
        &["cpu.shares=2048"],
        &["cpu.weight=200"],
    ),
    (&["cpu.weight=1"], &["cpu.shares=10"], &["cpu.weight=1"]),
    (
        &["cpu.max=150%"],
        &["cpu.cfs_quota_us=150000"],
        &["cpu.max=150000"],
    ),
    (
        &["cpu.max=5000 10000", "cpu.max.burst=1ms"],
        &[
            "cpu.cfs_period_us=10000",
            "cpu.cfs_quota_us=5000",
            "cpu.cfs_burst_us=1000",
        ],
        &["cpu.max=5000 10000", "cpu.max.burst=1000"],
    ),
    (
        &["memory.max=512M"],
        &["memory.limit_in_bytes=536870912"],
        &["memory.max=536870912"],
    ),
    (
        &["memory.swap.max=1M", "memory.max=2M"],
        &[
            "memory.limit_in_bytes=2097152",
            "memory.memsw.limit_in_bytes=3145728",
        ],
        &["memory.max=2097152", "memory.swap.max=1048576"],
    ),
    (
        &["memory.low=1M"],
        &["memory.soft_limit_in_bytes=1048576"],
        &["memory.low=1048576"],
    ),
    (
        &["memory.low=default"],
        &["memory.soft_limit_in_bytes=-1"],
        &["memory.low=0"],
    ),
    (&["pids.max=max"], &["pids.max=max"], &["pids.max=max"]),
    (&["cpuset.cpus=1"], &["cpuset.cpus=1"], &["cpuset.cpus=1"]),
    (
        &["cpuset.cpus=inherit"],
        &["cpuset.cpus=0-3"],
        &["cpuset.cpus=<>"],
    ),
    // The old name of what is memset's now.
    (&["cpuset.mems=0"], &["cpuset.mems=0"], &["cpuset.mems=0"]),
    (
        &["memset.memory_migrate=1"],
        &["cpuset.memory_migrate=1"],
        &[],
    ),
    (&["cpuset.mem_hardwall=0"], &["cpuset.mem_hardwall=0"], &[]),
    (
        &["io.weight=5000"],
        &["blkio.bfq.weight=1000"],
        &["io.weight=5000"],
    ),
    (
        &["io.max=8:0 rbps=1M wiops=max"],
        &[
            "blkio.throttle.read_bps_device=8:0 1048576",
            "blkio.throttle.write_iops_device=8:0 0",
        ],
        &["io.max=8:0 rbps=1048576 wiops=max"],
    ),
    (&["io.max=default"], &[], &[]),
    (
        &["hugetlb.2MB.max=4M"],
        &["hugetlb.2MB.limit_in_bytes=4194304"],
        &["hugetlb.2MB.max=4194304"],
    ),
    (
        &["hugetlb.2MB.max=max"],
        &["hugetlb.2MB.limit_in_bytes=-1"],
        &["hugetlb.2MB.max=max"],
    ),
    (
        &["freezer.state=frozen"],
        &["freezer.state=FROZEN"],
        &["cgroup.freeze=1"],
    ),
    // What a layout lacks may be asked to be as it is anyway.
    (
        &["memory.high=max", "cgroup.max.depth=default"],
        &[],
        &["memory.high=max", "cgroup.max.depth=max"],
    ),
];

/// Key, the file on v1 and on v2, and the value.
const READ_BACK: &[[&str; 4]] = &[
    [
        "memory.max",
        "memory.limit_in_bytes=9223372036854771712",
        "2:memory.max=max",
        "max",
    ],
    [
        "memory.max",
        "memory.limit_in_bytes=999424",
        "2:memory.max=999424",
        "976K",
    ],
    [
        "memory.low",
        "memory.soft_limit_in_bytes=9223372036854771712",
        "2:memory.low=0",
        "0",
    ],
    ["cpu.weight", "cpu.shares=2048", "2:cpu.weight=200", "200"],
    ["cpu.weight", "cpu.shares=10", "2:cpu.weight=1", "1"],
    ["cpuset.cpus", "cpuset.cpus=0-1", "2:cpuset.cpus=0-1", "0-1"],
    [
        "memset.memory_migrate",
        "cpuset.memory_migrate=1",
        "2:x=",
        "1",
    ],
    [
        "io.weight",
        "blkio.bfq.weight=300",
        "2:io.weight=default 300",
        "300",
    ],
    [
        "io.max",
        "blkio.throttle.read_bps_device=8:0 1024",
        "2:io.max=8:0 rbps=1024 wbps=max riops=max wiops=max",
        "8:0 rbps=1K wbps=max riops=max wiops=max",
    ],
    [
        "freezer.state",
        "freezer.state=FREEZING",
        "2:cgroup.freeze=1",
        "frozen",
    ],
    ["pids.max", "pids.max=7", "2:pids.max=7", "7"],
];

fn planned(places: &Places, lines: &[&str], asked: &[&str]) -> Result<Vec<Step>> {
    let tree = Tree::of(lines);
    let assignments: Result<Vec<Assignment>> =
        asked.iter().map(|text| Assignment::parse(text)).collect();
    plan(places, &assignments?, &|level, place, file| {
        tree.read(level, place, file)
    })
}

/// The writes as `file=value` words; an empty line is told as such.
fn writes(places: &Places, lines: &[&str], asked: &[&str]) -> Vec<String> {
    let steps = planned(places, lines, asked).unwrap();
    let text = |step: &Step| {
        format!(
            "{}={}",
            step.write.file,
            step.write.value.replace('\n', "<>")
        )
    };
    steps.iter().map(text).collect()
}

fn refused(places: &Places, lines: &[&str], asked: &[&str]) -> String {
    planned(places, lines, asked).unwrap_err().to_string()
}

fn reading(places: &Places, lines: &[&str], key: &str) -> String {
    let tree = Tree::of(lines);
    let key = Key::parse(key).unwrap();
    let unit = key.entry().map_or(Unit::Text, |entry| entry.unit);
    match read(places, &key, &|level, place, file| {
        tree.read(level, place, file)
    }) {
        Reading::Has {
            value,
            effective,
            bounded_by,
        } => {
            let (value, effective) = (value.print(unit), effective.print(unit));
            let above = bounded_by
                .map(|level| format!(" by {level}"))
                .unwrap_or_default();
            if value == effective {
                value + &above
            } else {
                format!("{value} -> {effective}{above}")
            }
        }
        Reading::Lacks(why) => format!("lacks: {why}"),
    }
}

#[test]
fn values_have_units() {
    for (text, printed) in [
        ("memory.max=512M", "512M"),
        ("memory.max=1.5GiB", "1536M"),
        ("memory.max=1000000", "1000000"),
        ("memory.max=unlimited", "max"),
        ("cpu.max=150%", "150%"),
        ("cpu.max=12.5%", "12.5%"),
        ("cpu.max=50000 10000", "500%"),
        ("cpu.max=max", "max"),
        ("cpu.max.burst=0.5s", "500ms"),
        ("cpu.idle=on", "1"),
        ("cpu.uclamp.min=12.5%", "12.5"),
        ("cpuset.cpus=2,0-1,1,7", "0-2,7"),
        ("memset.mems=inherit", "inherit"),
        (
            "io.max=8:0 rbps=10M wiops=100; 8:16 wbps=max",
            "8:0 rbps=10M wiops=100; 8:16 wbps=max",
        ),
        ("pids.max=100", "100"),
        ("hugetlb.2MB.max=4M", "4M"),
        ("rdma.max=mlx4_0 hca_handle=2", "mlx4_0 hca_handle=2"),
        ("freezer.state=frozen", "frozen"),
        ("memory.max=default", "default"),
        ("v1:memory.oom_control=1", "1"),
    ] {
        let assignment = Assignment::parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(assignment.text(), printed, "{text}");
        let again = Assignment::parse(&assignment.to_string()).unwrap();
        assert_eq!(again.text(), printed, "{text} is read back");
    }
}

#[test]
fn wrong_values_are_refused_with_what_is_expected() {
    for (text, cause) in [
        ("memory.max", "not of the form key=value"),
        ("memory.most=1", "no such key"),
        ("memory.max=+5", "a size such as 512M"),
        ("memory.max=-5", "a size such as 512M"),
        ("memory.max=5x", "a size such as 512M"),
        ("memory.max=99999999999T", "a size such as 512M"),
        ("cpu.max=150", "a share such as 150%"),
        ("cpu.max=0%", "a share such as 150%"),
        ("cpu.max=0 100000", "a share such as 150%"),
        ("cpu.weight=0", "a number from 1 to 10000"),
        ("cpu.idle=2", "0 or 1"),
        ("cpuset.cpus=", "a list such as 0-2,4"),
        ("cpuset.cpus=3-1", "a list such as 0-2,4"),
        ("cpuset.cpus=0-4294967295", "a list such as 0-2,4"),
        ("io.max=8:0", "devices and rates"),
        ("io.max=8:0 rbps=0", "devices and rates"),
        ("io.max=sda rbps=1", "devices and rates"),
        ("freezer.state=cold", "thawed or frozen"),
        ("hugetlb.2MB/../x.max=1", "no such key"),
        ("v2:../memory.max=1", "not the name of a file"),
        ("v2:memory=1", "not the name of a file"),
        ("v1:cgroup.procs=1", "not a file of a v1 controller"),
        ("pids.max=1\n2", "not a value"),
    ] {
        let error = Assignment::parse(text).unwrap_err().to_string();
        assert!(error.contains(cause), "{text}: {error}");
    }
}

#[test]
fn each_layout_gets_its_own_files() {
    for (asked, on_v1, on_v2) in WRITTEN {
        assert_eq!(writes(&v1(), NEW_V1, asked), *on_v1, "v1 {asked:?}");
        assert_eq!(writes(&v2(), NEW_V2, asked), *on_v2, "v2 {asked:?}");
    }
}

#[test]
fn on_hybrid_hosts_each_controller_is_where_it_is() {
    let both = [NEW_V1, NEW_V2].concat();
    let asked = [
        "memory.max=1M",
        "hugetlb.2MB.max=2M",
        "freezer.state=frozen",
        "cgroup.max.depth=3",
    ];
    let expected = [
        "hugetlb.2MB.max=2097152",
        "cgroup.max.depth=3",
        "cgroup.freeze=1",
        "memory.limit_in_bytes=1048576",
    ];
    assert_eq!(writes(&hybrid(), &both, &asked), expected);
    assert!(
        refused(&hybrid(), &both, &["rdma.max=x hca_handle=1"])
            .contains("no usable rdma controller")
    );
}

#[test]
fn what_a_layout_lacks_is_said_before_anything_is_written() {
    for (places, lines, asked, cause) in [
        (
            v1(),
            NEW_V1,
            &["pids.max=1", "memory.high=1M"][..],
            "`memory.high`: the memory controller is on v1, which has no such value",
        ),
        (
            v2(),
            NEW_V2,
            &["memory.swappiness=10"],
            "the memory controller is on v2, which has no such value",
        ),
        (v2(), NEW_V2, &["memset.memory_migrate=0"], "always 1"),
        (v2(), NEW_V2, &["memory.zswap.max=0"], "no such file"),
        (
            v1(),
            NEW_V1,
            &["memory.swap.max=1M"],
            "it needs a memory.max",
        ),
        (v1(), NEW_V1, &["cgroup.max.depth=1"], "on v1"),
        (v1(), NEW_V1, &["v2:memory.high=1"], "no such directory"),
        (
            v2(),
            NEW_V2,
            &["v1:memory.oom_control=1"],
            "no such directory",
        ),
        (v2(), NEW_V2, &["pids.max=1", "pids.max=2"], "given twice"),
        (
            v2(),
            NEW_V2,
            &["cpuset.mems=0", "memset.mems=0"],
            "given twice",
        ),
        (
            v2(),
            &["2:cpu.idle=1", "2:cpu.weight=0"],
            &["cpu.weight=5"],
            "an idle group has no weight",
        ),
        (v2(), NEW_V2, &["misc.max=default"], "no default"),
        (v1(), NEW_V1, &["memory.max=0"], "no limit of 0"),
    ] {
        let error = refused(&places, lines, asked);
        assert!(error.contains(cause), "{asked:?}: {error}");
    }
}

#[test]
fn an_idle_group_wakes_before_it_has_a_weight() {
    let idle = ["2:cpu.idle=1", "2:cpu.weight=0"];
    let asked = ["cpu.weight=5", "cpu.idle=0"];
    assert_eq!(writes(&v2(), &idle, &asked), ["cpu.idle=0", "cpu.weight=5"]);
    let asked = ["cpu.idle=1", "cpu.weight=5"];
    assert_eq!(
        writes(&v2(), NEW_V2, &asked),
        ["cpu.weight=5", "cpu.idle=1"]
    );
}

#[test]
fn swap_alone_keeps_its_limit_when_memory_changes_on_v1() {
    let limited = [
        "memory.limit_in_bytes=4194304",
        "memory.memsw.limit_in_bytes=6291456",
    ];
    for (asked, expected) in [
        (
            &["memory.max=1M"][..],
            &[
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=3145728",
            ][..],
        ),
        (
            &["memory.max=8M"],
            &[
                "memory.memsw.limit_in_bytes=10485760",
                "memory.limit_in_bytes=8388608",
            ],
        ),
        (
            &["memory.swap.max=0"],
            &["memory.memsw.limit_in_bytes=4194304"],
        ),
        (
            &["memory.swap.max=max"],
            &["memory.memsw.limit_in_bytes=-1"],
        ),
        (
            &["memory.max=max", "memory.swap.max=max"],
            &["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"],
        ),
    ] {
        assert_eq!(writes(&v1(), &limited, asked), expected, "{asked:?}");
    }
    assert!(refused(&v1(), &limited, &["memory.max=max"]).contains("it needs a memory.max"));
    // Without a count of swap, memory has its limit all the same.
    let uncounted = &limited[..1];
    assert_eq!(
        writes(&v1(), uncounted, &["memory.max=1M"]),
        ["memory.limit_in_bytes=1048576"]
    );
    assert!(refused(&v1(), uncounted, &["memory.swap.max=1M"]).contains("does not count swap"));
}

#[test]
fn each_write_can_be_taken_back() {
    for (places, line, asked, former) in [
        (v1(), "cpu.shares=512", "cpu.weight=1", "512"),
        (
            v1(),
            "memory.oom_control=oom_kill_disable 0\nunder_oom 0",
            "v1:memory.oom_control=1",
            "0",
        ),
        (
            v1(),
            "blkio.throttle.read_bps_device=8:0 5\n8:16 7",
            "io.max=8:16 rbps=1",
            "8:16 7",
        ),
        (
            v1(),
            "blkio.throttle.read_bps_device=8:0 5",
            "io.max=8:16 rbps=1",
            "8:16 0",
        ),
        (
            v1(),
            "freezer.state=THAWED",
            "freezer.state=frozen",
            "THAWED",
        ),
        (v2(), "2:cpu.max=max 100000", "cpu.max=50%", "max 100000"),
        (v2(), "2:cpuset.cpus=", "cpuset.cpus=0", "\n"),
        (
            v2(),
            "2:io.weight=default 100\n8:0 5",
            "io.weight=7",
            "default 100",
        ),
        (
            v2(),
            "2:io.max=8:0 rbps=5 wbps=max riops=max wiops=max",
            "io.max=8:0 rbps=1",
            "8:0 rbps=5 wbps=max riops=max wiops=max",
        ),
        (
            v2(),
            "2:io.max=",
            "io.max=8:0 rbps=1",
            "8:0 rbps=max wbps=max riops=max wiops=max",
        ),
        (v2(), "2:misc.max=a max\nb 4", "misc.max=b 9", "b 4"),
        (
            v2(),
            "2:cpuset.cpus.partition=root invalid (x)",
            "cpuset.partition=member",
            "root",
        ),
    ] {
        let steps = planned(&places, &[line], &[asked]).unwrap();
        assert_eq!(
            steps[0].former.as_deref(),
            Some(former),
            "{asked} over {line}"
        );
    }
    let steps = planned(&v2(), &[], &["v2:memory.reclaim=1M"]).unwrap();
    assert_eq!(steps[0].former, None, "a file that only takes");
}

#[test]
fn values_are_read_back_the_same_on_each_layout() {
    for [key, line_v1, line_v2, expected] in READ_BACK {
        assert_eq!(reading(&v1(), &[line_v1], key), *expected, "v1 {key}");
        assert_eq!(reading(&v2(), &[line_v2], key), *expected, "v2 {key}");
    }
    assert_eq!(
        reading(
            &v1(),
            &["cpu.cfs_quota_us=50000", "cpu.cfs_period_us=25000"],
            "cpu.max"
        ),
        "200%"
    );
    assert_eq!(
        reading(
            &v1(),
            &[
                "memory.limit_in_bytes=4096",
                "memory.memsw.limit_in_bytes=8192"
            ],
            "memory.swap.max"
        ),
        "4K"
    );
    assert_eq!(
        reading(&v2(), &["2:cpu.uclamp.max=max"], "cpu.uclamp.max"),
        "100"
    );
    assert_eq!(
        reading(
            &v2(),
            &["2:memory.events=low 0\nhigh 1\n"],
            "v2:memory.events"
        ),
        "low 0\nhigh 1"
    );
}

#[test]
fn what_is_effective_is_the_least_of_all_above() {
    let tree = [
        "2:memory.max=1073741824",
        "/2:memory.max=max",
        "//2:memory.max=536870912",
        "2:cpu.max=max 100000",
        "/2:cpu.max=20000 20000",
        "2:cpuset.cpus=",
        "2:cpuset.cpus.effective=0-3",
        "2:pids.max=5",
        "/2:pids.max=9",
    ];
    assert_eq!(reading(&v2(), &tree, "memory.max"), "1G -> 512M by 2");
    assert_eq!(reading(&v2(), &tree, "cpu.max"), "max -> 100% by 1");
    assert_eq!(reading(&v2(), &tree, "cpuset.cpus"), "inherit -> 0-3");
    assert_eq!(reading(&v2(), &tree, "pids.max"), "5");
    // On v1 the state alone would not tell whose it is.
    let v1_tree = [
        "freezer.state=FROZEN",
        "freezer.self_freezing=0",
        "/freezer.state=FROZEN",
        "/freezer.self_freezing=1",
    ];
    let v2_tree = ["2:cgroup.freeze=0", "/2:cgroup.freeze=1"];
    for (places, tree) in [(v1(), &v1_tree[..]), (v2(), &v2_tree[..])] {
        assert_eq!(
            reading(&places, tree, "freezer.state"),
            "thawed -> frozen by 1"
        );
    }
}

#[test]
fn a_lacking_value_is_told_when_read() {
    assert!(reading(&v1(), NEW_V1, "memory.high").contains("is on v1"));
    assert!(reading(&hybrid(), &[], "rdma.max").contains("no rdma controller"));
    assert!(reading(&v2(), &[], "memory.max").contains("no such file"));
}

#[test]
fn each_entry_reads_its_own_default() {
    let mut names: Vec<&str> = entries().iter().map(|entry| entry.name).collect();
    for entry in entries() {
        if !entry.default.is_empty() {
            let value = Value::parse(entry.unit, entry.default);
            let printed = value.map(|value| value.print(entry.unit));
            assert_eq!(printed.as_deref(), Ok(entry.default), "{}", entry.name);
        }
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), entries().len(), "each name once");
}

#[test]
fn a_cpuset_mounted_without_prefix_has_bare_names() {
    let places = Places {
        noprefix: true,
        ..v1()
    };
    let bare = ["cpus=0-1", "mems=0", "effective_cpus=0", "pids.max=max"];
    assert_eq!(
        writes(&places, &bare, &["cpuset.cpus=1", "memset.mems=0"]),
        ["cpus=1", "mems=0"]
    );
    assert_eq!(reading(&places, &bare, "cpuset.cpus"), "0-1 -> 0");
    assert_eq!(writes(&places, &bare, &["pids.max=1"]), ["pids.max=1"]);
}
