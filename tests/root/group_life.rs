//! `floe group`: making, listing, entering, freezing, killing and removing groups.

use tests::{host, wait_until};

use crate::group_fixture::{Groups, groups_of};

#[test]
fn a_group_is_made_in_every_hierarchy_and_removed() {
    let groups = Groups::new();
    groups.line("create %/api").succeeds();
    assert_eq!(groups.directories("%/api").len(), host::cgroup_mounts().len());
    groups.line("create %/api").exits(125).says("exists already");
    groups.line("create --exist-ok %/api").succeeds();
    groups.line("rm %").exits(1).says("--recursive");
    groups.line("rm %/api %/none").exits(1).says("no group");
    assert!(groups.directories("%/api").is_empty());
    groups.line("rm -r %").succeeds();
    assert!(groups.directories("%").is_empty());
}

#[test]
fn wrong_names_are_refused_before_anything_is_made() {
    let groups = Groups::new();
    for name in ["../%", "%/../../x", "%/cgroup.procs", "%/", "", "%/a b"] {
        groups.call(["create", name]).exits(125).says("not a group's name");
    }
    assert!(groups.directories("%").is_empty());
    groups.line("get %").exits(125).says("no group");
    groups.line("run % -- true").exits(125).says("no group");
}

#[test]
fn groups_are_listed_as_a_table_a_tree_and_json() {
    let mut groups = Groups::new();
    groups.line("create %/api/v1 pids.max=50").succeeds();
    groups.line("create %/jobs").succeeds();
    groups.start("%/jobs", &["sleep", "1000"]);
    let top = groups.top.clone();
    groups.line("ls -q %").succeeds().prints(&format!("{top}\n{top}/api\n{top}/api/v1\n{top}/jobs\n"));
    let expected = format!("{top}\n  api\n    v1 pids.max=50\n  jobs (1 process)\n");
    groups.line("tree %").succeeds().prints(&expected);
    let list = groups.line("ls --format json %").succeeds().json();
    assert_eq!(list[2]["values"]["pids.max"], "50", "{list}");
    assert_eq!((&list[3]["processes"], &list[0]["processes"]), (&1.into(), &0.into()));
    assert!(groups.line("ls").succeeds().stdout().contains(&top));
}

#[test]
fn a_program_runs_in_its_group_everywhere() {
    let groups = Groups::new();
    groups.line("run % -- true").exits(125);
    let script = "cat /proc/self/cgroup; exit 7";
    let outcome = groups.call(["run", "--create", "-s", "pids.max=20", "%", "--", "sh", "-c", script]);
    let text = outcome.exits(7).stdout();
    let inside = text.lines().filter(|line| line.ends_with(&groups.top)).count();
    assert_eq!(inside, host::cgroup_mounts().len(), "{text}");
    groups.line("run % -- no-such-program").exits(127);
    groups.line("run % -- /etc/passwd").exits(126);
    groups.line("run -s pids.max=x % -- true").exits(125);
}

#[test]
fn processes_move_with_their_children_or_alone() {
    let mut groups = Groups::new();
    groups.line("create %/a").succeeds();
    groups.line("create %/b").succeeds();
    let script = "sleep 1000 & (sleep 1001 & wait) & wait";
    let parent = groups.start("%/a", &["sh", "-c", script]);
    let procs = |group: &str| {
        let file = groups.directories(group).remove(0).join("cgroup.procs");
        std::fs::read_to_string(file).unwrap().lines().count()
    };
    wait_until("all four run", || procs("%/a") == 4);
    groups.call(["move", "%/b", &parent.to_string()]).succeeds();
    assert_eq!((procs("%/a"), procs("%/b")), (3, 1));
    groups.call(["move", "--recursive", "%/b", &parent.to_string()]).succeeds();
    assert_eq!((procs("%/a"), procs("%/b")), (0, 4));
    assert!(groups_of(parent).iter().all(|at| at.ends_with("/b")));
    groups.line("move %/a 0 4194304").exits(1).says("not the number of a process");
}

#[test]
fn a_process_that_cannot_go_everywhere_stays_where_it_was() {
    let mut groups = Groups::new();
    groups.line("create %/a").succeeds();
    groups.line("create %/full pids.max=1").succeeds();
    let pid = groups.start("%/a", &["sleep", "1000"]);
    let before = groups_of(pid);
    // A cpuset without memory nodes (v1), or a group whose subgroups have controllers (v2).
    if let Some(mems) = groups.file("%/full", "cpuset", ["cpuset.mems", "none"])
        && host::layout() != host::Layout::V2
        && mems.parent().unwrap().join("cpuset.memory_migrate").exists()
    {
        std::fs::write(mems, "\n").unwrap();
    } else if host::layout() == host::Layout::V2 {
        groups.line("create %/full/deep pids.max=5").succeeds();
    } else {
        tests::elsewhere!("needs cpuset on v1, or v2 alone");
    }
    groups.call(["move", "%/full", &pid.to_string()]).exits(1).says("move process");
    assert_eq!(groups_of(pid), before);
}

#[test]
fn a_tree_is_frozen_thawed_and_killed() {
    let mut groups = Groups::new();
    groups.line("create %/a/b").succeeds();
    let pid = groups.start("%/a/b", &["sh", "-c", "while :; do :; done"]);
    let ticks = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    groups.line("freeze %/a").succeeds();
    assert!(groups.line("tree %").succeeds().stdout().contains("a frozen"));
    let then = ticks();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(ticks(), then, "it does not run while it is frozen");
    assert_eq!(groups.effective("%/a", "freezer.state"), "frozen");
    groups.line("set %/a freezer.state=thawed").succeeds();
    wait_until("it runs again", || ticks() > then);
    groups.line("rm -r %").exits(1).says("--force");
    groups.line("freeze %/a").succeeds();
    groups.line("kill --signal USR1 %/a").succeeds();
    groups.line("thaw %/a").succeeds();
    assert_eq!(groups.wait(pid), 128 + 10);
    let pid = groups.start("%/a/b", &["sleep", "1000"]);
    groups.line("freeze %").succeeds();
    groups.line("kill %").succeeds();
    assert_eq!(groups.wait(pid), 128 + 9, "also while it is frozen");
    groups.line("kill --signal NONE %").exits(125);
}

#[test]
fn statistics_tell_what_was_used() {
    let mut groups = Groups::new();
    groups.line("create %/a").succeeds();
    let pid = groups.start("%/a", &["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]);
    assert_eq!(groups.wait(pid), 0);
    let stats = groups.line("stats --recursive --format json %").succeeds().json();
    for index in 0..2 {
        let used = stats[index]["cpu"]["totalNanoseconds"].as_u64().unwrap();
        assert!(used > 1_000_000, "{index}: {used}");
    }
    if host::controller("memory").is_some() {
        assert!(stats[1]["memory"]["bytes"].as_u64().is_some(), "{stats}");
    }
    assert!(groups.line("stats %/a").succeeds().stdout().contains(&format!("{}/a", groups.top)));
}

#[test]
fn containers_groups_are_left_to_their_commands() {
    let groups = Groups::new();
    let id = groups.floe.line("run -d --name c -- sleep 1000").succeeds().stdout().trim().to_owned();
    assert!(!groups.line("ls -q").succeeds().stdout().contains(&id));
    assert!(groups.line("ls -a").succeeds().stdout().contains("container c"));
    groups.call(["set", &id, "pids.max=9"]).exits(125).says("floe update");
    groups.call(["rm", "-rf", &id]).exits(1).says("floe rm");
    groups.call(["get", &id]).succeeds();
    groups.call(["stats", &id]).succeeds();
    groups.floe.line("rm -f c").succeeds();
}
