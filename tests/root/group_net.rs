//! `net.connect`, `net.bind`: which peers and ports a group's sockets may use.

use std::net::TcpListener;

use tests::{Outcome, host, need};

use crate::group_fixture::Groups;

/// A connection from within a group, made by a shell.
fn connect(groups: &Groups, group: &str, address: &str, port: u16) -> Outcome {
    let script = format!("exec 3<>/dev/tcp/{address}/{port}");
    groups.call(["run", group, "--", "bash", "-c", &script])
}

#[test]
fn connections_pass_or_are_refused_by_the_groups_policy() {
    need!(host::program("bash"), "needs bash");
    if host::layout() == host::Layout::V1 {
        let groups = Groups::new();
        groups.call(["create", "%", "net.connect=deny"]).exits(125).says("on v1");
        return;
    }
    let groups = Groups::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    groups.call(["create", "%/inner", &format!("net.connect=deny; allow tcp 127.0.0.0/8:{port}")]).succeeds();
    connect(&groups, "%/inner", "127.0.0.1", port).succeeds();
    connect(&groups, "%/inner", "127.0.0.1", 1).exits(1).says("not permitted");
    connect(&groups, "%/inner", "::1", port).exits(1).says("not permitted");
    groups.call(["create", "%/beside"]).succeeds();
    connect(&groups, "%/beside", "127.0.0.1", 1).exits(1).says("refused");
    let shown = format!("deny; allow tcp 127.0.0.0/8:{port}");
    assert_eq!(groups.get("%/inner", "net.connect")["requested"], shown.as_str());
    assert_eq!(groups.effective("%/inner", "net.connect"), shown);
    // A group above is asked too.
    groups.call(["set", "%", "net.connect=deny"]).succeeds();
    connect(&groups, "%/inner", "127.0.0.1", port).exits(1).says("not permitted");
    groups.call(["set", "%/inner", "net.connect=default"]).succeeds();
    assert_eq!(groups.get("%/inner", "net.connect")["note"], format!("bounded by `{}`", groups.top));
    groups.call(["set", "%", "net.connect=allow"]).succeeds();
    connect(&groups, "%/inner", "127.0.0.1", 1).exits(1).says("refused");
}

#[test]
fn a_policy_is_part_of_a_change_that_is_taken_back() {
    if host::layout() == host::Layout::V1 {
        tests::elsewhere!("needs a v2 hierarchy");
    }
    need!(host::program("bash"), "needs bash");
    let groups = Groups::new();
    groups.call(["create", "%", "net.connect=deny tcp :1"]).succeeds();
    for wrong in ["net.connect=sometimes", "net.connect=allow tcp somewhere", "net.accept=deny; deny"] {
        groups.call(["set", "%", wrong]).exits(125);
    }
    let asked = ["set", "%", "net.connect=allow", "v2:no.such_file=1"];
    groups.call(asked).exits(125).says("no.such_file");
    assert_eq!(groups.effective("%", "net.connect"), "allow; deny tcp :1");
    connect(&groups, "%", "127.0.0.1", 1).exits(1).says("not permitted");
    connect(&groups, "%", "127.0.0.1", 2).exits(1).says("refused");
    groups.call(["set", "%", "net.bind=deny tcp :1-1023"]).succeeds();
    groups.call(["set", "%", "net.accept=deny; allow tcp 192.168.0.0/16 from :80"]).succeeds();
    assert_eq!(groups.effective("%", "net.accept"), "deny; allow tcp 192.168.0.0/16 from :80");
    assert_eq!(groups.effective("%", "net.bind"), "allow; deny tcp :1-1023");
}
