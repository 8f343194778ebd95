//! A group that is older than its container.

use std::fs;
use tests::{Bundle, Container, host};

/// The second process would be born in a group that has been killed before: Linux 6.18 kills it.
#[test]
fn containers_follow_each_other_in_a_group_that_stays() {
    let bundle = Bundle::new().args(["echo", "here"]);
    let group = bundle.config()["linux"]["cgroupsPath"]
        .as_str()
        .expect("a path")
        .to_owned();
    for mount in host::cgroup_mounts() {
        // A v1 cpuset without processors takes no process; the runtime makes that one.
        if !mount.ends_with("cpuset") {
            fs::create_dir_all(mount.join(group.trim_start_matches('/'))).expect("a group");
        }
    }
    let container = Container::new(bundle);
    for _ in 0..2 {
        container.create().succeeds();
        container.call(["kill", container.id(), "KILL"]).succeeds();
        container.wait_for_status("stopped");
        container
            .call(["delete", "--force", container.id()])
            .succeeds();
    }
    container.run().succeeds().prints("here\n");
    for mount in host::cgroup_mounts() {
        // What was there before the container is not the runtime's to remove; runc removes it.
        let _ = fs::remove_dir(mount.join(group.trim_start_matches('/')));
    }
}
