//! `floe group` inside a container of floe's: groups below what the container was given.

use tests::{host, need};

use crate::group_fixture::Groups;

/// A container in which `$F` is `floe group`, and whose own processes are out of the way of controllers.
fn inside(groups: &Groups, flags: &str, script: &str) -> tests::Outcome {
    let program = tests::bundle::built_program("floe");
    let volume = format!("{}:/opt/floe:ro", program.parent().unwrap().display());
    let mut words = vec!["run", "--rm", "--privileged", "-v", &volume];
    words.extend(flags.split_whitespace());
    let script = format!(
        "mkdir -p /tmp/s /tmp/r; export FLOE_STATE_DIR=/tmp/s FLOE_RUN_DIR=/tmp/r; F='/opt/floe/floe group'
         $F create main && $F move --recursive main 1 || exit 99
         {script}"
    );
    words.extend(["--", "sh", "-c", &script]);
    groups.floe.call(words)
}

#[test]
fn groups_are_made_limited_and_removed_inside_a_container() {
    need!(host::controller("pids"), "needs a pids controller");
    let groups = Groups::new();
    let script = "$F create web/api pids.max=5 || exit 1
                  $F get web/api pids.max | tail -n 1
                  $F run web/api -- sh -c 'cat /proc/self/cgroup' | grep -c web/api >/dev/null || exit 2
                  $F run web/api -- sleep 1000 &
                  until $F tree | grep -q '1 process)'; do :; done
                  $F freeze web; $F tree; $F thaw web; $F rm -rf web; $F ls -q";
    let text = inside(&groups, "", script).succeeds().stdout();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("pids.max  5") && lines[0].ends_with('5'), "{text}");
    assert!(text.contains("web frozen\n  api (1 process) frozen pids.max=5\n"), "{text}");
    assert_eq!(lines.last(), Some(&"main"), "{text}");
}

#[test]
fn the_containers_limits_hold_for_its_own_groups() {
    need!(host::controller("pids"), "needs a pids controller");
    let groups = Groups::new();
    let script = "$F create web pids.max=max
                  $F run web -- sh -c 'i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done'; echo $?
                  $F kill web";
    let text = inside(&groups, "--pids 25", script).stdout();
    assert_ne!(text.trim(), "0", "a fork beyond the container's limit fails");
    assert!(!text.is_empty());
}

#[test]
fn a_containers_groups_go_with_it() {
    let groups = Groups::new();
    let script = "$F create web/api || exit 1
                  $F run web/api -- sleep 1000 &
                  until $F tree web | grep -q '1 process)'; do :; done; exit 0";
    inside(&groups, "--name n", script).succeeds();
    // The fixture looks for what is left of the container's groups.
    groups.floe.line("ps -a -q").succeeds().prints("");
}

#[test]
fn without_rights_there_are_no_groups_and_that_is_said() {
    let groups = Groups::new();
    let program = tests::bundle::built_program("floe");
    let volume = format!("{}:/opt/floe:ro", program.parent().unwrap().display());
    let outcome = groups.floe.call(["run", "--rm", "-v", &volume, "--", "/opt/floe/floe", "group", "create", "x"]);
    outcome.exits(125).says("may be written");
}
