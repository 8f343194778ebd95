//! On directories that look like resctrl: the machines that run the tests have no such hardware.

use super::*;

/// A mount with the default class, a class of the administrator's, and the kernel's last words.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        fixture.class("", "    MB:0= 100;1= 100\n    L3:0=7ff;1=7ff\n");
        fixture.class("gold", "    MB:0=  20;1= 100\n    L3:0=7f0;1=01f\n");
        std::fs::create_dir(fixture.root().join("info")).unwrap();
        fixture.says("ok\n");
        fixture
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// The files of a class, as the kernel makes them.
    fn class(&self, name: &str, schemata: &str) {
        let class = self.root().join(name);
        std::fs::create_dir_all(class.join("mon_groups")).unwrap();
        std::fs::write(class.join("tasks"), "").unwrap();
        std::fs::write(class.join("schemata"), schemata).unwrap();
    }

    fn says(&self, text: &str) {
        std::fs::write(self.root().join("info/last_cmd_status"), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.root().join(path).exists()
    }

    /// Removing a directory removes its files there.
    fn empty(&self, class: &str) {
        for name in ["tasks", "schemata", "mon_groups"] {
            let path = self.root().join(class).join(name);
            if path.is_dir() {
                std::fs::remove_dir(path).unwrap();
            } else if path.exists() {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

fn wanted(json: &str) -> IntelRdt {
    serde_json::from_str(json).unwrap()
}

const GOLD: &str = "MB:0= 20;1=100\nL3:0=7f0;1=01f\n";

#[test]
fn classes_are_chosen_as_the_specification_says() {
    let found = |json: &str, current: Option<&str>| {
        let plan = plan(&wanted(json), "web", current).unwrap();
        let groups = plan.groups;
        (groups.class, groups.made, groups.private, plan.schemata)
    };
    let none = Vec::<String>::new();
    let row = |class: &str, made, private, lines: &[&str]| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        (class.to_owned(), made, private, lines)
    };
    assert_eq!(
        found(r#"{"enableMonitoring": true}"#, None),
        row("web", true, true, &[])
    );
    assert_eq!(
        found(
            r#"{"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"}"#,
            None
        ),
        row("web", true, true, &["L3:0=f", "MB:0=20"])
    );
    // Lines for bandwidth in the cache's field are not its; `schemata` comes last and wins.
    assert_eq!(
        found(
            r#"{"closID": "a", "l3CacheSchema": "L3:0=f\nMB:0=10", "schemata": ["L3:0=1"]}"#,
            None
        ),
        row("a", true, false, &["L3:0=f", "L3:0=1"])
    );
    assert_eq!(
        found(r#"{"closID": "/"}"#, Some(GOLD)),
        ("".to_owned(), false, false, none.clone())
    );
    assert_eq!(
        found(r#"{"closID": "gold"}"#, Some(GOLD)),
        ("gold".to_owned(), false, false, none)
    );
    // The same in other spellings.
    found(
        r#"{"closID": "gold", "l3CacheSchema": "L3:1=0x1F", "memBwSchema": "MB:0=020"}"#,
        Some(GOLD),
    );
}

#[test]
fn what_cannot_be_is_one_clear_error() {
    for (json, current, error) in [
        (
            r#"{"closID": "no"}"#,
            None,
            "linux.intelRdt.closID: class `no`: not there, and without schemata it is not made",
        ),
        (
            r#"{"closID": "info", "schemata": ["L3:0=1"]}"#,
            None,
            "linux.intelRdt.closID: class `info`: the name of a directory of resctrl's own",
        ),
        (
            r#"{"closID": "gold", "schemata": ["L3:0=7f0;1=ff"]}"#,
            Some(GOLD),
            "linux.intelRdt: class `gold`: `L3:1=ff` is asked for, it has `L3:1=1f`",
        ),
        (
            r#"{"closID": "/", "memBwSchema": "MB:2=10"}"#,
            Some(GOLD),
            "linux.intelRdt: class `/`: `MB:2=10` is asked for, it has no such domain",
        ),
        (
            r#"{"memBwSchema": "L3:0=1"}"#,
            None,
            "linux.intelRdt.memBwSchema: one line that begins with `MB:`",
        ),
        (
            r#"{"memBwSchema": "MB:0=1\nL3:0=1"}"#,
            None,
            "linux.intelRdt.memBwSchema: one line that begins with `MB:`",
        ),
        (
            r#"{"schemata": ["L3:0=1", "MB:0=1\nL3:0=2"]}"#,
            None,
            "linux.intelRdt.schemata[1]: one line, `RESOURCE:DOMAIN=VALUE;…`",
        ),
    ] {
        let found = plan(&wanted(json), "web", current).unwrap_err();
        assert_eq!(found.to_string(), error);
    }
}

#[test]
fn a_class_of_its_own_comes_and_goes_with_the_container() {
    let fixture = Fixture::new();
    let wanted = wanted(r#"{"l3CacheSchema": "L3:0=f;1=f", "memBwSchema": "MB:0=20;1=70"}"#);
    let mut plan = place(fixture.root(), &wanted, "web").unwrap();
    assert!(!fixture.has("web"));
    make(fixture.root(), &mut plan).unwrap();
    assert_eq!(fixture.read("web/schemata"), "L3:0=f;1=f\nMB:0=20;1=70\n");
    std::fs::write(fixture.root().join("web/tasks"), "").unwrap();
    let pid = Pid::from_raw(4711).unwrap();
    attach(fixture.root(), &plan.groups, pid).unwrap();
    assert_eq!(fixture.read("web/tasks"), "4711\n");
    fixture.empty("web");
    remove(fixture.root(), &plan.groups, 4711).unwrap();
    assert!(!fixture.has("web"));
    // A runtime that was killed before it made the class leaves nothing to remove.
    remove(fixture.root(), &plan.groups, 0).unwrap();
}

#[test]
fn a_class_of_others_is_joined_and_stays() {
    let fixture = Fixture::new();
    let wanted = wanted(r#"{"closID": "gold", "enableMonitoring": true}"#);
    let mut plan = place(fixture.root(), &wanted, "web").unwrap();
    make(fixture.root(), &mut plan).unwrap();
    let monitor = "gold/mon_groups/web";
    std::fs::write(fixture.root().join(monitor).join("tasks"), "").unwrap();
    let pid = Pid::from_raw(4711).unwrap();
    attach(fixture.root(), &plan.groups, pid).unwrap();
    assert_eq!(fixture.read("gold/tasks"), "4711\n");
    assert_eq!(fixture.read("gold/mon_groups/web/tasks"), "4711\n");
    fixture.empty(monitor);
    remove(fixture.root(), &plan.groups, 4711).unwrap();
    assert!(!fixture.has(monitor));
    assert_eq!(fixture.read("gold/schemata").lines().count(), 2);
}

#[test]
fn a_named_class_goes_with_its_last_user() {
    let fixture = Fixture::new();
    let wanted = wanted(r#"{"closID": "new", "schemata": ["L3:0=1"]}"#);
    let mut plan = place(fixture.root(), &wanted, "web").unwrap();
    make(fixture.root(), &mut plan).unwrap();
    std::fs::create_dir(fixture.root().join("new/mon_groups")).unwrap();
    // Somebody else's process beside our own dead one.
    std::fs::write(fixture.root().join("new/tasks"), "4711\n4712\n").unwrap();
    remove(fixture.root(), &plan.groups, 4711).unwrap();
    assert!(fixture.has("new"));
    std::fs::write(fixture.root().join("new/tasks"), "4711\n").unwrap();
    std::fs::create_dir(fixture.root().join("new/mon_groups/other")).unwrap();
    remove(fixture.root(), &plan.groups, 4711).unwrap();
    assert!(fixture.has("new"));
    std::fs::remove_dir(fixture.root().join("new/mon_groups/other")).unwrap();
    fixture.empty("new");
    remove(fixture.root(), &plan.groups, 4711).unwrap();
    assert!(!fixture.has("new"));
}

#[test]
fn a_class_that_appears_meanwhile_is_not_ours() {
    let fixture = Fixture::new();
    let wanted = wanted(r#"{"closID": "new", "schemata": ["L3:0=1"]}"#);
    let mut first = place(fixture.root(), &wanted, "web").unwrap();
    fixture.class("new", "L3:0=1;1=f\n");
    make(fixture.root(), &mut first).unwrap();
    assert!(!first.groups.made);
    fixture.empty("new");
    remove(fixture.root(), &first.groups, 1).unwrap();
    assert!(fixture.has("new"));
    fixture.class("new", "L3:0=3\n");
    let mut second = Plan {
        groups: Groups {
            made: true,
            ..first.groups
        },
        ..first
    };
    make(fixture.root(), &mut second).unwrap_err();
    assert!(!second.groups.made);
}

#[test]
fn the_kernels_own_words_explain_a_refusal() {
    let fixture = Fixture::new();
    fixture.says("Mask ff0f has non-consecutive 1-bits\n");
    let refused = std::io::Error::from(sys::Errno::INVAL);
    let error = explained(Path::new("/r"), "write `x` to", Path::new("/r/a"), &refused);
    assert_eq!(
        error.to_string(),
        "linux.intelRdt: write `x` to `/r/a`: invalid argument (EINVAL)"
    );
    let error = explained(fixture.root(), "write `x` to", Path::new("/r/a"), &refused);
    assert_eq!(
        error.to_string(),
        "linux.intelRdt: write `x` to `/r/a`: Mask ff0f has non-consecutive 1-bits: invalid \
         argument (EINVAL)"
    );
    // What the kernel said to somebody else is no reason.
    let missing = std::io::Error::from(sys::Errno::NOENT);
    let error = explained(fixture.root(), "remove", Path::new("/r/a"), &missing);
    assert_eq!(
        error.to_string(),
        "linux.intelRdt: remove `/r/a`: no such file or directory (ENOENT)"
    );
}
