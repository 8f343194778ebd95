//! `floe ns`.

use std::path::Path;

use tests::{Floe, host, skip};

#[test]
fn namespaces_are_listed_with_owner_parent_and_both_numbers() {
    let floe = Floe::new();
    floe.line("run -d --name n -- sleep 1000").succeeds();
    let pid = floe.inspect("n")["state"]["pid"].as_i64().unwrap();
    let list = floe.line("ns ls --format json n").succeeds().json();
    let of = |kind: &str| {
        let list = list.as_array().unwrap();
        list.iter().find(|entry| entry["type"] == kind).unwrap().clone()
    };
    let process = of("pid")["processes"][0].clone();
    assert_eq!((process["pid"].as_i64(), process["numbers"][1].as_i64()), (Some(pid), Some(1)));
    assert_eq!(of("net")["containers"][0], "n");
    let inode = |path: &str| {
        let link = std::fs::read_link(path).unwrap().display().to_string();
        link[link.find('[').unwrap() + 1..link.len() - 1].parse::<u64>().unwrap()
    };
    assert_eq!(of("pid")["parent"].as_u64(), Some(inode("/proc/self/ns/pid")));
    assert_eq!(of("net")["ownerUserNamespace"].as_u64(), Some(inode("/proc/self/ns/user")));
    let table = floe.line("ns ls --type pid,net n").succeeds().stdout();
    assert_eq!(table.lines().count(), 3, "{table}");
    floe.line("ns ls --type odd").exits(125).says("odd");
}

#[test]
fn a_container_is_entered_in_whole_or_in_part() {
    let floe = Floe::new();
    floe.line("run -d --name n --hostname ice -- sleep 1000").succeeds();
    let script = "hostname; echo $(cat /proc/1/comm)";
    floe.call(["ns", "enter", "n", "--", "sh", "-c", script]).succeeds().prints("ice\nsleep\n");
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    floe.call(["ns", "enter", "--type", "net", "n", "--", "sh", "-c", "hostname; grep -c : /proc/net/dev"])
        .succeeds()
        .prints(&format!("{own}1\n"));
    let pid = floe.inspect("n")["state"]["pid"].to_string();
    floe.call(["ns", "enter", "--pid", &pid, "--", "hostname"]).succeeds().prints("ice\n");
    floe.call(["ns", "enter", "n", "--", "sh", "-c", "exit 4"]).exits(4);
    floe.call(["ns", "enter", "n", "--", "no-such-program"]).exits(127);
}

#[test]
fn kept_namespaces_outlive_their_processes() {
    let floe = Floe::new();
    floe.line("run -d --name n --hostname ice -- sleep 1000").succeeds();
    floe.line("ns keep --container n --type net,uts kept").succeeds();
    floe.line("ns keep --container n kept").exits(125).says("kept");
    let list = floe.line("ns ls --format json --type uts").succeeds().json();
    assert!(list.as_array().unwrap().iter().any(|entry| entry["keptAs"][0] == "kept"));
    floe.line("rm -f n").succeeds();
    floe.call(["ns", "enter", "--kept", "kept", "--", "hostname"]).succeeds().prints("ice\n");
    let path = floe.path("run/ns/kept/uts").display().to_string();
    floe.call(["run", "--rm", "--uts", &format!("ns:{path}"), "--", "hostname"]).succeeds().prints("ice\n");
    floe.line("ns keep --remove kept").succeeds();
    floe.line("ns enter --kept kept -- true").exits(125).says("nothing is kept");
}

#[test]
fn a_process_gets_the_pid_it_was_promised() {
    let floe = Floe::new();
    if !host::may(21) && !host::may(40) {
        skip!("needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE");
    }
    let pid = free_pid();
    floe.call(["ns", "run", "--pid", &pid.to_string(), "--", "sh", "-c", "echo $$"])
        .succeeds()
        .prints(&format!("{pid}\n"));
    // Two levels at once: 1 inside, a chosen one outside.
    let script = "echo $$; grep NSpid /proc/self/status | wc -l";
    let pids = format!("1,{pid}");
    floe.call(["ns", "run", "--new", "pid,mnt", "--pid", &pids, "--", "sh", "-c", script])
        .succeeds()
        .prints("1\n1\n");
    // Inside a container.
    floe.line("run -d --name n -- sleep 1000").succeeds();
    floe.call(["ns", "run", "--in", "n", "--pid", "77", "--", "sh", "-c", "echo $$"]).succeeds().prints("77\n");
    floe.call(["ns", "run", "--in", "n", "--pid", "1", "--", "true"]).exits(125).says("already");
    floe.call(["ns", "run", "--pid", "0", "--", "true"]).exits(125);
}

/// A number that no process and no thread has. The kernel gives those below 300 to nobody once the machine is up
/// (`RESERVED_PIDS`, kernel/pid.c), so it stays free while other tests run.
fn free_pid() -> i32 {
    (100..300).rev().find(|pid| !Path::new(&format!("/proc/{pid}")).exists()).unwrap()
}

#[test]
fn new_namespaces_are_made_for_a_program() {
    let floe = Floe::new();
    let script = "hostname inner; hostname; id -u; cat /proc/self/uid_map | tr -s ' '";
    let args = ["ns", "run", "--new", "user,uts,net,pid,mnt", "--", "sh", "-c", script];
    floe.call(args).succeeds().prints("inner\n0\n 0 0 1\n");
    floe.call(["ns", "run", "--new", "time", "--", "true"]).exits(125).says("--time-offset");
}

#[test]
fn info_has_a_line_for_each_feature() {
    let floe = Floe::new();
    let list = floe.line("info --format json").succeeds().json();
    let has = |name: &str| list.as_array().unwrap().iter().any(|entry| entry["name"] == name);
    for name in ["kernel", "cgroup layout", "user namespaces", "seccomp", "PAGEMAP_SCAN", "CAP_SYS_RESOURCE"] {
        assert!(has(name), "{name}");
    }
}
