use super::*;

const MOUNTS: &str = "\
31 23 0:28 / /cg/memory rw - cgroup cgroup rw,memory
32 23 0:29 / /cg/pids ro - cgroup cgroup rw,pids
33 23 0:30 / /cg/unified rw - cgroup2 cgroup2 rw
";
const OWN: &str = "4:memory:/jobs/a\n3:pids:/\n0::/user/u1/service/app/x\n";

/// A tree in which the directories of `procs` have a `cgroup.procs` with that text. Root may
/// write everywhere: what is not delegated has none.
fn tree(procs: &[(&str, &str)]) -> (tempfile::TempDir, Layout) {
    let root = tempfile::tempdir().unwrap();
    for (directory, text) in procs {
        let directory = root.path().join("cg").join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("cgroup.procs"), text).unwrap();
    }
    let layout = Layout::from_texts(MOUNTS.as_bytes(), OWN.as_bytes(), root.path());
    (root, layout)
}

/// The group's paths below the tree's root, `name=path`.
fn placed(procs: &[(&str, &str)], path: Option<&str>, rootless: bool) -> Vec<String> {
    let (root, layout) = tree(procs);
    let group = Group::place(
        &layout,
        &Request {
            id: "web",
            path,
            rootless,
        },
    )
    .unwrap();
    let short = |path: &PathBuf| {
        path.strip_prefix(root.path())
            .unwrap()
            .display()
            .to_string()
    };
    let line = |(name, path): (&String, &PathBuf)| format!("{name}={}", short(path));
    group.paths().iter().map(line).collect()
}

#[test]
fn roots_groups_are_placed_from_the_mounts_roots() {
    for (path, v2, memory) in [
        // Never below the caller's own limited group; and not where the mount is read-only.
        (None, "=cg/unified/floe/web", "memory=cg/memory/floe/web"),
        (
            Some(""),
            "=cg/unified/floe/web",
            "memory=cg/memory/floe/web",
        ),
        (
            Some("/docker/x"),
            "=cg/unified/docker/x",
            "memory=cg/memory/docker/x",
        ),
        (
            Some("a/b"),
            "=cg/unified/floe/a/b",
            "memory=cg/memory/floe/a/b",
        ),
        (
            Some("../../etc"),
            "=cg/unified/floe/etc",
            "memory=cg/memory/floe/etc",
        ),
        (Some("/../x"), "=cg/unified/x", "memory=cg/memory/x"),
    ] {
        assert_eq!(placed(&[], path, false), [v2, memory], "{path:?}");
    }
    assert_eq!(placed(&[], Some("/"), false), [""; 0]);
}

#[test]
fn a_users_groups_are_placed_where_it_was_delegated() {
    let service = "unified/user/u1/service";
    let at = |below: &str| format!("{service}{below}");
    let (top, app, own) = (at(""), at("/app"), at("/app/x"));
    // Nearest to the caller, but rather one without processes.
    let all = [
        (top.as_str(), ""),
        (app.as_str(), ""),
        (own.as_str(), "7\n"),
    ];
    assert_eq!(
        placed(&all, None, true),
        ["=cg/unified/user/u1/service/app/floe/web"]
    );
    let busy = [
        (top.as_str(), ""),
        (app.as_str(), "8\n"),
        (own.as_str(), "7\n"),
    ];
    assert_eq!(
        placed(&busy, None, true),
        ["=cg/unified/user/u1/service/floe/web"]
    );
    let only = [(own.as_str(), "7\n")];
    assert_eq!(
        placed(&only, Some("r"), true),
        ["=cg/unified/user/u1/service/app/x/floe/r"]
    );
    assert_eq!(placed(&[], None, true), [""; 0]);
    let v1 = [("memory/jobs/a", "7\n")];
    assert_eq!(
        placed(&v1, None, true),
        ["memory=cg/memory/jobs/a/floe/web"]
    );
}

#[test]
fn paths_with_nul_are_refused() {
    let (_root, layout) = tree(&[]);
    for (id, path) in [("a\0b", None), ("a", Some("/x\0"))] {
        Group::place(
            &layout,
            &Request {
                id,
                path,
                rootless: false,
            },
        )
        .unwrap_err();
    }
}

#[test]
fn controllers_in_one_directory_reopen_as_one() {
    let paths: BTreeMap<String, PathBuf> = [
        ("cpu", "/cg/cpu,cpuacct/x"),
        ("cpuacct", "/cg/cpu,cpuacct/x"),
        ("name=systemd", "/cg/systemd/x"),
        ("", "/cg/unified/x"),
    ]
    .map(|(name, path)| (name.to_owned(), PathBuf::from(path)))
    .into();
    let mut group = Group::open(&paths);
    assert_eq!(group.paths(), paths);
    assert_eq!(group.v1.len(), 2);
    assert_eq!(group.adopted(), [""; 0]);
    group.keep(&["cpu".to_owned(), String::new()]);
    assert_eq!(group.adopted(), ["cpu", ""]);
}
