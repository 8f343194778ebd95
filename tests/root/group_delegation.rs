//! Delegation that holds: a user makes groups below a group, but neither changes its values nor escapes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use tests::{Floe, Outcome, host, need};

use crate::group_fixture::{Groups, groups_of};

const USER: &str = "1000";

/// A shell command as the user, started inside a group if one is given.
fn as_user(groups: &Groups, inside: Option<&str>, script: &str) -> Outcome {
    let shell = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "sh", "-c", script];
    let mut command = match inside {
        Some(group) => groups.command([&["run", group, "--"], &shell[..]].concat()),
        None => {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]);
            command
        }
    };
    Outcome::of(&mut command, &groups.floe.path("out"))
}

/// The user's own floe, as words for a shell.
fn users_floe(floe: &Floe) -> String {
    let command = floe.command([] as [&str; 0]);
    let variables = command.get_envs().filter_map(|(name, value)| {
        let name = name.to_str()?;
        Some(format!("{name}={}", value?.to_str()?))
    });
    let words: Vec<String> = variables.collect();
    let program = tests::bundle::built_program("floe");
    format!("env {} {}", words.join(" "), program.display())
}

fn delegated() -> Option<Groups> {
    host::program("setpriv")?;
    let groups = Groups::new();
    groups.line("create % pids.max=20").succeeds();
    groups.line("delegate --user 1000 %").succeeds();
    Some(groups)
}

/// The files by which a user moves processes and hands controllers on; the kernel's own list.
fn given() -> BTreeSet<String> {
    let list = std::fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
    let mut names: BTreeSet<String> = list.lines().map(str::to_owned).collect();
    // `cgroup.event_control` of v1 is everybody's: it only asks for notices.
    for name in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks", "cgroup.event_control"] {
        names.insert(name.to_owned());
    }
    names
}

#[test]
fn no_limit_of_a_delegated_group_is_the_users() {
    let groups = need!(delegated(), "needs setpriv");
    let given = given();
    let mut writable = 0;
    for directory in groups.directories("%") {
        let script = format!("cd '{}' && for f in *; do test -w $f && echo $f; done; true", directory.display());
        for name in as_user(&groups, None, &script).succeeds().stdout().lines() {
            assert!(given.contains(name), "{} is the user's", directory.join(name).display());
            writable += 1;
        }
    }
    assert!(writable > 0, "something is");
    let name = &groups.top;
    for (script, why) in [
        // Taking the group away, or another's place.
        ("rmdir {}".to_owned(), "is made by root"),
        ("mv {} {}x".to_owned(), "has the name that root gave it"),
        ("mkdir {}x".to_owned(), "may have groups below it, not beside it"),
    ] {
        for directory in groups.directories("%") {
            let script = script.replace("{}", &directory.display().to_string());
            as_user(&groups, None, &script).fails();
            assert!(directory.is_dir(), "{name} {why}");
        }
    }
}

#[test]
fn a_limit_holds_for_whatever_a_user_makes_below() {
    let groups = need!(delegated(), "needs setpriv");
    let pids = need!(groups.file("%", "pids", ["pids.max", "pids.max"]), "needs a pids controller");
    let directory = pids.parent().unwrap().display().to_string();
    // Attack: a group below, which is wholly the user's, with no limit and then a hundred processes.
    let script = format!(
        "mkdir {directory}/below && echo $$ >{directory}/below/cgroup.procs || exit 9
         echo max 2>/dev/null >{directory}/below/pids.max
         echo max >{directory}/pids.max && exit 8
         i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; exit 0"
    );
    as_user(&groups, Some("%"), &script).fails().says("fork");
    let count = groups.line("stats --format json %").succeeds().json()[0]["pids"].as_u64().unwrap();
    assert!((1..=20).contains(&count), "{count}");
    groups.line("kill %").succeeds();
    assert_eq!(groups.effective("%", "pids.max"), "20");
}

#[test]
fn a_user_does_not_leave_a_delegated_group() {
    let mut groups = need!(delegated(), "needs setpriv");
    let theirs = groups.start("%", &["setpriv", "--reuid", USER, "--clear-groups", "sleep", "1000"]);
    tests::wait_until("it is the user's", || {
        std::fs::read(format!("/proc/{theirs}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
    });
    let inside = groups_of(theirs);
    for mount in host::cgroup_mounts() {
        for place in ["", "floe"] {
            for list in ["cgroup.procs", "tasks"] {
                let path = mount.join(place).join(list);
                let script = format!("echo {theirs} >{}", path.display());
                as_user(&groups, None, &script).fails();
            }
        }
    }
    assert_eq!(groups_of(theirs), inside);
}

#[test]
fn a_user_moves_own_processes_and_no_others() {
    let groups = need!(delegated(), "needs setpriv");
    // Root's, in another group: inside the delegated one v2 lets its owner move every process.
    let mut others = Groups::new();
    others.line("create %").succeeds();
    let roots = others.start("%", &["sleep", "1000"]);
    let floe = Floe::as_user(1000);
    let floe_group = users_floe(&floe) + " group";
    let top = &groups.top;
    let before = groups_of(roots);
    let script = format!("{floe_group} create /floe/{top}/x && {floe_group} move /floe/{top}/x {roots}");
    as_user(&groups, Some("%"), &script).fails();
    assert_eq!(groups_of(roots), before, "root's process stays where it is");
    let script = format!("{floe_group} move /floe/{top}/x $$ && cat /proc/self/cgroup");
    let text = as_user(&groups, Some("%"), &script).succeeds().stdout();
    assert!(text.contains(&format!("{top}/x")), "{text}");
    // Where v1's limits would not hold below, the process stays in root's group.
    for line in text.lines().filter(|line| line.contains(":blkio:") || line.contains("net_cls")) {
        assert!(!line.ends_with("/x"), "{line}");
    }
    as_user(&groups, None, &format!("{floe_group} set /floe/{top} pids.max=max")).fails();
    as_user(&groups, None, &format!("{floe_group} rm -f /floe/{top}")).fails();
    as_user(&groups, None, &format!("{floe_group} rm /floe/{top}/x")).succeeds();
}

#[test]
fn a_user_has_groups_with_limits_below_what_was_delegated() {
    let groups = need!(delegated(), "needs setpriv");
    let floe = Floe::as_user(1000);
    let floe_group = users_floe(&floe) + " group";
    // On v2 a group with processes has no controllers to hand on: the shell goes below first.
    let script = format!(
        "{floe_group} create shell && {floe_group} move shell $$ || exit 1
         {floe_group} create jobs/one pids.max=3 || exit 2
         {floe_group} ls -q; {floe_group} get jobs/one pids.max
         {floe_group} run jobs/one -- sh -c 'sleep 1000 & sleep 1000 & sleep 1000 & wait' 2>&1
         {floe_group} kill jobs/one; {floe_group} rm -r jobs; {floe_group} ls -q"
    );
    let text = as_user(&groups, Some("%"), &script).stdout();
    assert!(text.starts_with("jobs\njobs/one\nshell\n"), "{text}");
    assert!(text.contains("annot fork"), "{text}");
    assert!(text.ends_with("shell\n"), "{text}");
}

#[test]
fn what_was_given_is_taken_back() {
    let groups = need!(delegated(), "needs setpriv");
    assert!(groups.line("ls %").succeeds().stdout().contains(" 1000 ") || groups.line("ls --format json %").succeeds().json()[0]["user"] == 1000);
    groups.line("delegate --revoke %").succeeds();
    for directory in groups.directories("%") {
        as_user(&groups, None, &format!("mkdir {}/x", directory.display())).fails();
        as_user(&groups, None, &format!("echo $$ >{}/cgroup.procs", directory.display())).fails();
    }
    groups.line("delegate --user no-such-user %").exits(125).says("no user");
    groups.line("delegate --user 0 %").exits(125).says("--revoke");
    groups.line("create --delegate 1000 %/own").succeeds();
    let directory = need!(groups.file("%/own", "pids", ["pids.max", ""]), "needs a pids controller");
    as_user(&groups, None, &format!("mkdir {}/x", Path::new(&directory).parent().unwrap().display())).succeeds();
}
