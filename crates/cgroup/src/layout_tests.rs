use super::*;

const HYBRID: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 27 0:22 / /sys rw - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
const HYBRID_OWN: &str = "9:name=systemd:/init\n4:memory:/jobs/a\n1:cpuacct,cpu:/\n0::/\n";

/// A root with a v2 mount point whose `cgroup.controllers` holds `list`.
fn fixture(mount_point: &str, list: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join(mount_point);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("cgroup.controllers"), list).unwrap();
    root
}

#[test]
fn controllers_split_between_v1_and_v2_are_found_where_they_are() {
    let root = fixture("sys/fs/cgroup/unified", "hugetlb misc\n");
    let layout = Layout::from_texts(HYBRID.as_bytes(), HYBRID_OWN.as_bytes(), root.path());
    let at = |controller| {
        layout
            .hierarchy(controller)
            .map(|found| found.mount_point.clone())
    };
    let below = |path: &str| Some(root.path().join(path));
    assert_eq!(at(Controller::Cpu), below("sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(at(Controller::Cpuacct), below("sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(at(Controller::Memory), below("sys/fs/cgroup/memory"));
    assert_eq!(at(Controller::Hugetlb), below("sys/fs/cgroup/unified"));
    assert_eq!(at(Controller::Pids), None);
    assert!(!layout.is_unified());
    let names: Vec<_> = layout
        .v1
        .iter()
        .map(|hierarchy| hierarchy.names.join(","))
        .collect();
    assert_eq!(names, ["name=systemd", "memory", "cpuacct,cpu"]);
    assert_eq!(layout.v1[1].own, below("sys/fs/cgroup/memory/jobs/a"));
}

#[test]
fn unified_is_v2_with_no_v1_controller() {
    let root = fixture(
        "sys/fs/cgroup",
        "cpuset cpu io memory hugetlb pids rdma misc dmem\n",
    );
    let mounts = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    let layout = Layout::from_texts(mounts.as_bytes(), b"0::/user.slice/a\n", root.path());
    assert!(layout.is_unified());
    let v2 = layout.v2.unwrap();
    assert!(v2.read_only);
    assert!(v2.controllers.contains(Controller::Io) && v2.controllers.contains(Controller::Misc));
    assert_eq!(v2.own, Some(root.path().join("sys/fs/cgroup/user.slice/a")));
}

#[test]
fn the_own_group_is_known_only_where_the_mount_shows_it() {
    // (root of the mount, own group as /proc tells it, directory below the mount point)
    for (mounted, own, expected) in [
        ("/", "/", Some("/cg")),
        ("/", "/a/b", Some("/cg/a/b")),
        ("/docker/x", "/docker/x", Some("/cg")),
        ("/docker/x", "/docker/x/y", Some("/cg/y")),
        ("/docker/x", "/docker/xy", None),
        ("/docker/x", "/", None),
        ("/", "/../sibling", None),
        ("/..", "/", None),
        ("/../..", "/../..", None),
    ] {
        let mounts = format!("30 23 0:26 {mounted} /cg rw - cgroup2 cgroup2 rw\n");
        let own = format!("0::{own}\n");
        let layout = Layout::from_texts(mounts.as_bytes(), own.as_bytes(), Path::new("/"));
        let found = layout.v2.unwrap().own;
        assert_eq!(found.as_deref(), expected.map(Path::new), "{mounted} {own}");
    }
}

#[test]
fn the_mount_used_is_visible_writable_and_whole() {
    // (rows of: id, parent, root, mount point, options) and the mount point expected
    type Row = (u32, u32, &'static str, &'static str, &'static str);
    let check = |rows: &[Row], expected: Option<&str>| {
        let line = |(id, parent, root, point, options): &Row| {
            format!("{id} {parent} 0:9 {root} {point} {options} - cgroup cgroup rw,pids\n")
        };
        let mut text: String = rows.iter().map(line).collect();
        text.push_str("9 8 0:7 / /tmp rw - tmpfs tmpfs rw\n");
        let layout = Layout::from_texts(text.as_bytes(), b"3:pids:/\n", Path::new("/"));
        let found = layout
            .v1
            .first()
            .map(|hierarchy| hierarchy.mount_point.clone());
        assert_eq!(found.as_deref(), expected.map(Path::new), "{text}");
    };
    check(
        &[(1, 8, "/", "/a", "ro"), (2, 8, "/", "/b", "rw")],
        Some("/b"),
    );
    check(
        &[(1, 8, "/x", "/a", "rw"), (2, 8, "/", "/b", "rw")],
        Some("/b"),
    );
    check(
        &[(1, 8, "/", "/a", "rw"), (2, 8, "/", "/b", "rw")],
        Some("/a"),
    );
    // Below /tmp, but mounted before the tmpfs that now covers it; then mounted on that tmpfs.
    check(&[(1, 8, "/", "/tmp/a", "rw")], None);
    check(&[(1, 9, "/", "/tmp/a", "rw")], Some("/tmp/a"));
    // One on top of the other.
    check(
        &[(1, 8, "/", "/a", "rw"), (2, 1, "/", "/a", "ro")],
        Some("/a"),
    );
    check(&[], None);
}

#[test]
fn noprefix_is_told_by_option_and_by_the_old_type() {
    for (fs_type, options, expected) in [
        ("cgroup", "rw,cpuset", false),
        ("cgroup", "rw,cpuset,noprefix", true),
        (
            "cpuset",
            "rw,noprefix,release_agent=/sbin/cpuset_release_agent",
            true,
        ),
    ] {
        let mounts = format!("1 2 0:3 / /dev/cpuset rw - {fs_type} none {options}\n");
        let layout = Layout::from_texts(mounts.as_bytes(), b"3:cpuset:/\n", Path::new("/"));
        assert_eq!(
            layout.v1.first().map(|found| found.noprefix),
            Some(expected),
            "{options}"
        );
    }
}

#[test]
fn forged_tables_end() {
    let mounts =
        b"1 2 0:3 / /a rw - cgroup2 c rw\n2 3 0:3 / /b rw - x x rw\n3 2 0:3 / /a rw - x x rw\n";
    let layout = Layout::from_texts(mounts, b"0::/\n:::\n\xff\xfe\n7\n", Path::new("/"));
    assert_eq!(layout.v2.unwrap().own, Some(PathBuf::from("/a")));
    assert_eq!(layout.v1, []);
}

#[test]
fn a_group_path_never_leaves_its_base() {
    for (path, expected) in [
        ("/a/b", "/m/a/b"),
        ("a/./b/", "/m/a/b"),
        ("../../etc", "/m/etc"),
        ("/a/../../b", "/m/b"),
        ("", "/m"),
    ] {
        assert_eq!(
            below(Path::new("/m"), Path::new(path)),
            Path::new(expected),
            "{path}"
        );
    }
}

#[test]
fn changed_texts_make_some_layout() {
    let check = |mounts: &[u8], own: &[u8]| {
        let layout = Layout::from_texts(mounts, own, Path::new("/nowhere"));
        assert!(
            layout
                .v1
                .iter()
                .all(|found| found.mount_point.starts_with("/nowhere"))
        );
    };
    let (mounts, own) = (HYBRID.as_bytes(), HYBRID_OWN.as_bytes());
    for byte in [b' ', b'\n', b'/', b'.', b'\\', b',', b':', 0xff] {
        for at in 0..mounts.len() {
            let mut changed = mounts.to_vec();
            changed[at] = byte;
            check(&changed, own);
        }
        for at in 0..own.len() {
            let mut changed = own.to_vec();
            changed[at] = byte;
            check(mounts, &changed);
        }
    }
}
