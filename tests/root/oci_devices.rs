//! `linux.devices` and the devices that every container has.

use serde_json::json;
use tests::{Bundle, Container};

/// Gives the process more capabilities than the short list of the default bundle.
fn with_capability(bundle: Bundle, name: &str) -> Bundle {
    ["bounding", "effective", "permitted"]
        .iter()
        .fold(bundle, |bundle, set| {
            bundle.push(&format!("/process/capabilities/{set}"), name)
        })
}

#[test]
fn the_default_devices_are_there() {
    let bundle = Bundle::new().args([
        "stat", "/dev/null", "--", "stat", "/dev/zero", "--", "stat", "/dev/full", "--", "stat",
        "/dev/random", "--", "stat", "/dev/urandom", "--", "stat", "/dev/tty", "--", "readlink",
        "/dev/ptmx", "--", "readlink", "/dev/fd", "--", "readlink", "/dev/stdin", "--",
        "readlink", "/dev/stdout", "--", "readlink", "/dev/stderr", "--", "read", "/dev/zero",
        "--", "write", "/dev/null", "x",
    ]);
    let printed = Container::new(bundle).run().succeeds().stdout();
    let lines: Vec<&str> = printed.lines().collect();
    for (line, number) in lines.iter().zip(["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"]) {
        assert!(line.starts_with("char 666 0 0 ") && line.ends_with(number), "{line}");
    }
    assert_eq!(
        lines[6..],
        ["pts/ptmx", "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]
    );
}

#[test]
fn nodes_have_their_type_number_mode_and_owner() {
    let bundle = Bundle::new()
        .args([
            "stat", "/dev/one", "--", "stat", "/dev/two", "--", "stat", "/dev/deep/pipe", "--",
            "stat", "/dev/four",
        ])
        .set(
            "/linux/devices",
            json!([
                {"path": "/dev/one", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8},
                {"path": "/dev/two", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600},
                {"path": "/dev/deep/pipe", "type": "p", "fileMode": 0o622, "uid": 9, "gid": 9},
                {"path": "/dev/four", "type": "u", "major": 1, "minor": 3},
            ]),
        );
    let printed = Container::new(bundle).run().succeeds().stdout();
    let wanted = [
        "char 640 7 8 0 10:229",
        "block 600 0 0 0 7:0",
        "fifo 622 9 9 0 0:0",
        "char 666 0 0 0 1:3",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_fifo_may_be_given_numbers() {
    let device = json!([{"path": "/dev/pipe", "type": "p", "major": 8, "minor": 666}]);
    let bundle = Bundle::new().args(["stat", "/dev/pipe"]).set("/linux/devices", device);
    let container = Container::new(bundle);
    if !container.runtime().is_floe() {
        tests::elsewhere!("runc refuses a fifo whose configuration gives numbers");
    }
    container.run().succeeds().prints("fifo 666 0 0 0 0:0\n");
}

/// The nodes of a user namespace's container are the host's.
#[test]
fn a_user_namespace_has_devices_too() {
    let bundle = Bundle::new()
        .args(["read", "/dev/zero", "--", "write", "/dev/null", "x", "--", "stat", "/dev/null"])
        .user_namespace(100_000);
    let printed = Container::new(bundle).run().succeeds().stdout();
    assert!(printed.starts_with("char 666 "), "{printed}");
}

/// The rules of `linux.resources.devices` hold whatever the layout of resource groups is.
#[test]
fn access_is_what_the_rules_allow() {
    // Making a node is always allowed, as peers have it: using it is what counts.
    let bundle = Bundle::new()
        .args([
            "try", "mknod", "/tmp/mem", "c", "1", "1", "--", "try", "read", "/tmp/mem", "--", "try",
            "read", "/tmp/null2", "--", "try", "write", "/tmp/null2", "x",
            "--", "try", "read", "/dev/zero",
        ])
        .set(
            "/linux/resources/devices",
            json!([
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            ]),
        )
        .set(
            "/linux/devices",
            json!([{"path": "/tmp/null2", "type": "c", "major": 1, "minor": 3}]),
        );
    let container = Container::new(with_capability(bundle, "CAP_MKNOD"));
    container.run().succeeds().prints("ok\nEPERM\nok\nok\nok\n");
}

#[test]
fn reading_may_be_allowed_without_writing() {
    let bundle = Bundle::new()
        .args(["try", "read", "/dev/rtc9", "--", "try", "append", "/dev/rtc9", "x"])
        .set(
            "/linux/resources/devices",
            // Device 1:12 does not exist: access that is allowed fails for want of a driver.
            json!([
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 12, "access": "r"},
            ]),
        )
        .set(
            "/linux/devices",
            json!([{"path": "/dev/rtc9", "type": "c", "major": 1, "minor": 12}]),
        );
    let printed = Container::new(bundle).run().succeeds().stdout();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines, ["ENXIO", "EPERM"]);
}

#[test]
fn without_rules_everything_is_allowed_that_a_node_exists_for() {
    let bundle = Bundle::new()
        .args(["try", "mknod", "/tmp/mem", "c", "1", "1"])
        .set(
            "/linux/resources/devices",
            json!([{"allow": true, "access": "rwm"}]),
        );
    let container = Container::new(with_capability(bundle, "CAP_MKNOD"));
    container.run().succeeds().prints("ok\n");
}
