//! Terminal escapes that a container or a configuration puts where people read: errors, logs, lists
//! of processes and containers. A terminal that is sent them can be made to type or to lie.

use serde_json::json;
use std::fs;
use tests::{Bundle, Container};

/// Sets a window's title, and moves the cursor to overwrite the line.
const ESCAPES: &str = "\u{1b}]0;owned\u{7}\u{9b}2K\r\u{8}\n\u{202e}";

/// Nothing but printable text and the ends of lines.
#[track_caller]
fn harmless(text: &str) {
    let bad = text.chars().find(|letter| (letter.is_control() && *letter != '\n') || *letter == '\u{202e}');
    assert_eq!(bad, None, "{text:?}");
}

/// Fails without `printable` in floe-oci's log.rs.
#[test]
fn errors_and_logs_carry_no_terminal_escapes() {
    let rows = [
        ("/process/args", json!([format!("/{ESCAPES}")])),
        ("/process/args", json!([ESCAPES])),
        ("/process/cwd", json!(format!("/proc/{ESCAPES}"))),
        ("/process/rlimits", json!([{"type": ESCAPES, "soft": 1, "hard": 1}])),
        ("/hostname", json!([ESCAPES])),
        ("/root/path", json!(ESCAPES)),
        ("/mounts", json!([{"destination": "/x", "type": ESCAPES, "source": ESCAPES}])),
        ("/mounts", json!([{"destination": "/x", "type": "bind", "source": ESCAPES, "options": ["bind"]}])),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "network", "path": ESCAPES}])),
        ("/linux/sysctl", json!({ESCAPES: "1"})),
        ("/linux/maskedPaths", json!([ESCAPES])),
        ("/linux/rootfsPropagation", json!(ESCAPES)),
        ("/hooks/createRuntime", json!([{"path": format!("/{ESCAPES}")}])),
        ("/linux/devices", json!([{"path": ESCAPES, "type": "c", "major": 1, "minor": 1}])),
    ];
    for (pointer, value) in rows {
        let container = Container::new(Bundle::new().set(pointer, value));
        let bundle = container.bundle().path().display().to_string();
        for format in ["json", "text"] {
            let log = container.bundle().directory().join(format!("log.{format}"));
            let path = log.display().to_string();
            let args = ["--log", &path, "--log-format", format, "run", "--bundle", &bundle];
            let outcome = container.call(args.into_iter().chain([container.id()]));
            let error = outcome.exits(1).stderr();
            harmless(&error);
            assert_eq!(error.lines().count(), 1, "{pointer}: {error:?}");
            let text = fs::read_to_string(log).expect("the log");
            harmless(&text);
            assert_eq!(text.lines().count(), 1, "{pointer}: {text:?}");
        }
    }
}

/// Fails without `printable` in floe-oci's command/query.rs on a host whose `ps` lets them through.
#[test]
fn the_list_of_processes_carries_no_terminal_escapes() {
    let bundle = Bundle::new().set("/process/args", json!(["/payload", "name", "\u{1b}]0;x\u{7}", "--", "sleep", "1000", "--", "echo", ESCAPES]));
    let container = Container::new(bundle);
    container.create().succeeds();
    container.start().succeeds();
    for options in [&["-ef"][..], &["-e", "-o", "pid,comm,args"], &["auxe"]] {
        let args = ["ps", container.id()].into_iter().chain(options.iter().copied());
        let text = container.call(args).succeeds().stdout();
        assert!(text.lines().count() > 1, "{text}");
        harmless(&text);
    }
}

/// A bundle's directory may have any name.
/// Fails without `printable` in floe-oci's command/query.rs.
#[test]
fn the_list_of_containers_carries_no_terminal_escapes() {
    let container = Container::new(Bundle::new().args(["sleep", "1000"]));
    let place = container.bundle().directory().join(format!("b{ESCAPES}"));
    fs::create_dir(&place).expect("a directory");
    let mut config = container.bundle().config().clone();
    config["root"]["path"] = json!(container.bundle().rootfs());
    fs::write(place.join("config.json"), config.to_string()).expect("config.json");
    let mut command = container.command(["create", "--bundle"]);
    container.outcome(command.arg(&place).arg(container.id())).succeeds();
    let table = container.call(["list"]).succeeds().stdout();
    assert!(table.contains(container.id()), "{table}");
    harmless(&table);
    assert_eq!(table.lines().count(), 2, "{table:?}");
}
