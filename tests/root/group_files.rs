//! `floe group apply`, `diff`: groups as files describe them.

use std::path::PathBuf;

use tests::{Outcome, host, need};

use crate::group_fixture::Groups;

struct Files {
    groups: Groups,
    directory: PathBuf,
}

impl Files {
    fn new() -> Self {
        let groups = Groups::new();
        let directory = groups.floe.path("groups.d");
        std::fs::create_dir(&directory).unwrap();
        Self { groups, directory }
    }

    /// Writes a file; `TOP` is the name of the topmost group.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text.replace("TOP", &self.groups.top)).unwrap();
    }

    /// `apply` or `diff`, with the directory.
    fn call(&self, line: &str) -> Outcome {
        let directory = self.directory.display().to_string();
        let mut words: Vec<&str> = line.split(' ').collect();
        words.extend(["--dir", &directory]);
        self.groups.call(words)
    }
}

#[test]
fn files_are_applied_once() {
    need!(host::controller("memory"), "needs a memory controller");
    let files = Files::new();
    let top = files.groups.top.clone();
    files.write("10-top.toml", "[group.\"TOP\"]\nmemory.max = \"64M\"\n");
    files.write("20-api.toml", "[group.\"TOP/api\"]\nmemory.max = 1000000\npids.max = 50\ndelegate = 1000\n");
    files.write("notes.txt", "not a definition");
    let expected = format!(
        "+ {top}\n+ {top} memory.max=64M\n+ {top}/api\n+ {top}/api memory.max=1000000\n+ {top}/api pids.max=50\n"
    );
    let text = files.call("diff").exits(1).stdout();
    assert!(text.starts_with(&expected), "{text}");
    files.call("apply --check").succeeds();
    assert!(files.groups.directories("%").is_empty(), "looking makes nothing");
    files.call("apply").succeeds();
    assert_eq!(files.groups.effective("%/api", "memory.max"), "976K");
    // Again: also the rounded value is no difference, and nothing is written.
    files.call("diff").succeeds().prints("");
    files.call("apply").succeeds().prints("");
    files.write("20-api.toml", "[group.\"TOP/api\"]\nmemory.max = 1000000\ncpuset.cpus = \"0\"\n");
    let list = files.call("diff --format json").exits(1).json();
    let changes: Vec<&str> = list.as_array().unwrap().iter().map(|one| one["change"].as_str().unwrap()).collect();
    assert_eq!(changes, ["set", "reset", "delegate"], "{list}");
    files.call("apply").succeeds();
    assert_eq!(files.groups.effective("%/api", "pids.max"), "max");
    assert!(files.groups.line("ls --format json %/api").succeeds().json()[0]["user"].is_null());
    // What somebody changed by hand is set again.
    files.groups.line("set %/api cpuset.cpus=inherit").succeeds();
    files.call("apply").succeeds();
    assert_eq!(files.groups.effective("%/api", "cpuset.cpus"), "0");
    // What no file has any more goes only where that is asked for.
    std::fs::remove_file(files.directory.join("20-api.toml")).unwrap();
    files.call("diff").exits(1).prints(&format!("- {top}/api\n"));
    files.call("apply").succeeds();
    assert!(!files.groups.directories("%/api").is_empty());
    files.call("apply --prune").succeeds();
    assert!(files.groups.directories("%/api").is_empty());
    files.call("diff").succeeds();
}

#[test]
fn files_are_applied_as_a_whole_or_not_at_all() {
    need!(host::controller("cpu"), "needs a cpu controller");
    let files = Files::new();
    files.write("a.toml", "[group.\"TOP\"]\npids.max = 9\n");
    files.call("apply").succeeds();
    for (text, says) in [
        // The kernel refuses the last: a burst beyond the quota.
        ("[group.\"TOP/b\"]\n\"cpu.max\" = \"10%\"\n\"cpu.max.burst\" = \"1s\"\n", "invalid argument"),
        ("[group.\"TOP/b\"]\nnothing.max = 1\n", "no such key"),
        ("[group.\"TOP/b\"]\ndelegate = \"nobody-of-that-name\"\n", "no user"),
        ("[group.\"TOP\"]\npids.max = 1\n", "is in"),
        ("[group.\"TOP/b\"\n", "line 1"),
    ] {
        files.write("a.toml", "[group.\"TOP\"]\npids.max = 7\n\n[group.\"TOP/a\"]\npids.max = 3\n");
        files.write("b.toml", text);
        files.call("apply").exits(125).says(says);
        assert_eq!(files.groups.effective("%", "pids.max"), "9", "{text}");
        assert!(files.groups.directories("%/a").is_empty() && files.groups.directories("%/b").is_empty());
        assert_eq!(files.groups.get("%", "pids.max")["requested"], "9");
    }
    files.write("b.toml", "");
    files.call("apply").succeeds();
    assert_eq!(files.groups.effective("%/a", "pids.max"), "3");
}

#[test]
fn a_tree_is_raised_and_lowered_in_one_step() {
    need!(host::controller("cpu"), "needs a cpu controller");
    let files = Files::new();
    // v1 keeps a child's share below its parent's at every moment, so the order matters.
    for (parent, child) in [("100%", "50%"), ("300%", "200%"), ("40%", "20%")] {
        let text = format!("[group.\"TOP\"]\ncpu.max = \"{parent}\"\n[group.\"TOP/a\"]\ncpu.max = \"{child}\"\n");
        files.write("a.toml", &text);
        files.call("apply").succeeds();
        assert_eq!(files.groups.effective("%", "cpu.max"), parent);
        assert_eq!(files.groups.effective("%/a", "cpu.max"), child);
    }
}

#[test]
fn what_a_host_lacks_is_left_out_where_asked_for() {
    need!(host::controller("memory"), "needs a memory controller");
    let files = Files::new();
    let text = "[group.\"TOP\"]\npids.max = 9\nmemory.high = \"8M\"\nmemory.swappiness = 10\n";
    files.write("a.toml", text);
    files.call("apply").exits(125).says("has no such value");
    assert!(files.groups.directories("%").is_empty());
    files.call("apply --lenient").succeeds().says("left out");
    assert_eq!(files.groups.effective("%", "pids.max"), "9");
    files.call("diff").exits(1);
    files.call("diff --lenient").succeeds().prints("");
    files.call("apply --lenient").succeeds().prints("");
}
