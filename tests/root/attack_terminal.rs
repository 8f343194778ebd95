//! Terminal escapes in what floe shows of a container, an image, a file or a caller's words.
//!
//! Each test fails without `plain`, `plain_lines`, `plain_json` or `shown` of crates/monitor/src/text.rs.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use tests::bundle::built_program;
use tests::{Floe, host, need};

/// ESC with OSC and CSI, a one-letter CSI (C1), a carriage return, a bell, a new line, and the mark that turns
/// the reading direction.
const ESCAPES: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2K\r\u{8}\n\u{202e}";

/// Nothing but printable text and the ends of `lines` lines.
#[track_caller]
fn harmless(text: &str, lines: Option<usize>) {
    let bad = |letter: &char| (letter.is_control() && *letter != '\n') || ('\u{202a}'..='\u{202e}').contains(letter);
    assert_eq!(text.chars().find(bad), None, "{text:?}");
    if let Some(lines) = lines {
        assert_eq!(text.lines().count(), lines, "{text:?}");
    }
}

/// A container whose words, labels, variables and files are all hostile.
fn hostile(floe: &Floe) {
    let label = format!("k{ESCAPES}=v{ESCAPES}");
    let script = "touch \"/opt/$0\" && exec sleep 1000";
    let words = ["run", "-d", "--name", "h", "--label", &label, "-e", &format!("E={ESCAPES}"), "--"];
    floe.call(words.into_iter().chain(["sh", "-c", script, ESCAPES])).succeeds();
    tests::wait_until("the file is there", || !floe.line("diff h").succeeds().stdout().is_empty());
}

#[test]
fn lists_carry_no_terminal_escapes() {
    let floe = Floe::new();
    hostile(&floe);
    let label = format!("label=k{ESCAPES}=v{ESCAPES}");
    for (words, lines) in [
        (&["ps", "--no-trunc"][..], Some(2)),
        (&["ps", "--filter", &label], Some(2)),
        (&["ps", "--format", "json"], None),
        (&["inspect", "h"], None),
        (&["inspect", "--format", "json", "h"], None),
        (&["inspect", "--format", "table", "h"], None),
        (&["stats", "--no-stream"], Some(2)),
        (&["stats", "--no-stream", "--format", "json"], None),
        (&["diff", "h"], Some(1)),
        (&["diff", "--format", "json", "h"], None),
        (&["ns", "ls"], None),
        (&["ns", "ls", "--format", "json"], None),
        (&["rename", "h", "g"], None),
        (&["events", "--since", "1h", "--until", "0s"], None),
        (&["events", "--since", "1h", "--until", "0s", "--format", "json"], None),
    ] {
        let text = floe.call(words).succeeds().stdout();
        assert!(!text.is_empty() || words[0] == "rename", "{words:?}");
        harmless(&text, lines);
    }
    // What programs read is the same as before.
    let shown = floe.call(["ps", "--format", "json"]).succeeds().json();
    assert_eq!(shown[0]["labels"][format!("k{ESCAPES}")], format!("v{ESCAPES}"));
}

/// Programs name themselves and what they execute.
#[test]
fn names_of_processes_carry_no_terminal_escapes() {
    let floe = Floe::new();
    let place = floe.path("out/bin");
    fs::create_dir(&place).expect("a directory");
    fs::copy(built_program("payload"), place.join("payload")).expect("the payload");
    let volume = format!("{}:/payload", place.display());
    let name = "\u{1b}]0;x\u{7}\u{9b}\n";
    floe.call(["run", "-d", "--name", "n", "-v", &volume, "--", "/payload/payload", "name", name, "--", "sleep", "1000"])
        .succeeds();
    tests::wait_until("it has its name", || {
        let pid = floe.inspect("n")["state"]["pid"].to_string();
        fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(b"\x1b"))
    });
    for words in [["ns", "ls", "--format", "table", "n"], ["ns", "ls", "--format", "json", "n"]] {
        harmless(&floe.call(words).succeeds().stdout(), None);
    }
}

#[test]
fn errors_carry_no_terminal_escapes() {
    let floe = Floe::new();
    let path = format!("/{ESCAPES}");
    let flag = format!("--{ESCAPES}");
    let pair = format!("{ESCAPES}={ESCAPES}");
    let volume = format!("{path}:{ESCAPES}");
    let variables = floe.path("out/variables");
    fs::write(&variables, format!("{ESCAPES}=1\n= {ESCAPES}\n")).expect("a file");
    let variables = variables.display().to_string();
    floe.line("run -d --name x -- sleep 1000").succeeds();
    for words in [
        &["inspect", ESCAPES][..],
        &[ESCAPES],
        &["run", &flag],
        &["run", "--rm", "--name", ESCAPES, "--", "true"],
        &["run", "--rm", "--hostname", ESCAPES, "--", "true"],
        &["run", "--rm", "--rootfs", &path, "--", "true"],
        &["run", "--rm", "--", ESCAPES],
        &["run", "--rm", "--", &path],
        &["run", "--rm", "-u", ESCAPES, "--", "true"],
        &["run", "--rm", "-w", ESCAPES, "--", "true"],
        &["run", "--rm", "-v", &volume, "--", "true"],
        &["run", "--rm", "--mount", &pair, "--", "true"],
        &["run", "--rm", "--sysctl", &pair, "--", "true"],
        &["run", "--rm", "--ulimit", &pair, "--", "true"],
        &["run", "--rm", "--device", &path, "--", "true"],
        &["run", "--rm", "--cap-add", ESCAPES, "--", "true"],
        &["run", "--rm", "--net", ESCAPES, "--", "true"],
        &["run", "--rm", "--env-file", &path, "--", "true"],
        &["run", "--rm", "--env-file", &variables, "--", "true"],
        &["run", "--rm", "--cgroup-parent", ESCAPES, "--", "true"],
        &["ps", "--filter", ESCAPES],
        &["exec", "x", ESCAPES],
        &["exec", "-u", ESCAPES, "x", "true"],
        &["cp", &format!("x:{path}"), "/nowhere"],
        &["kill", "-s", ESCAPES, "x"],
        &["update", "-m", ESCAPES, "x"],
        &["rename", "x", ESCAPES],
        &["ns", "run", "--pid", ESCAPES, "true"],
        &["group", "get", ESCAPES],
    ] {
        harmless(&floe.call(words).fails().stderr(), None);
    }
}

/// The names of an image, its tags, its settings and its files are the image's maker's.
#[test]
fn images_carry_no_terminal_escapes() {
    let floe = Floe::new();
    let layout = floe.path("out/layout");
    fs::create_dir_all(layout.join("blobs/sha256")).expect("directories");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("a file");
    let manifest = |tag: &str| {
        serde_json::json!({
            "mediaType": format!("application/{ESCAPES}"), "size": 2, "digest": format!("sha256:{ESCAPES}"),
            "annotations": {"org.opencontainers.image.ref.name": format!("{tag}{ESCAPES}")}
        })
    };
    for manifests in [vec![manifest("a")], vec![manifest("a"), manifest("b")]] {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(layout.join("index.json"), index.to_string()).expect("a file");
        let words = ["run", "--rm", "--rootfs", &layout.display().to_string(), "--", "true"].map(str::to_owned);
        harmless(&floe.call(words).exits(125).stderr(), None);
    }
    // An archive's member that leaves the root, and one of a kind that is not known.
    for (name, kind) in [(format!("../{ESCAPES}"), b'0'), (format!("x{ESCAPES}"), b'Z')] {
        let archive = floe.path("out/root.tar");
        fs::write(&archive, member(name.as_bytes(), kind)).expect("an archive");
        let words = ["run", "--rm", "--rootfs", &archive.display().to_string(), "--", "true"].map(str::to_owned);
        harmless(&floe.call(words).fails().stderr(), None);
    }
}

/// A tar archive of one empty member (pax: ustar interchange format).
fn member(name: &[u8], kind: u8) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, b"00000000000\0");
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    [&header[..], &[0; 1024]].concat()
}

/// floed's errors reach a terminal too, when it is called by hand.
#[test]
fn errors_of_the_monitor_carry_no_terminal_escapes() {
    for words in [&[ESCAPES][..], &["monitor", ESCAPES, ESCAPES], &["monitor", "--restart", ESCAPES], &["init", "--", ESCAPES]] {
        let output = Command::new(built_program("floed")).args(words).output().expect("execute floed");
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(!text.is_empty());
        harmless(&text, None);
    }
}

/// Docker prints a container's bytes as they are; so does floe, unless they go to a terminal: colours work there,
/// everything else is shown.
#[test]
fn logs_are_bytes_for_programs_and_text_for_terminals() {
    let script = need!(host::program("script"), "needs script (package bsdutils)");
    let floe = Floe::new();
    let bytes = b"\x1b]0;owned\x07\x1b[2J\x9b2K\rback\x08\n\x1b[31mred\n\xe2\x80\xaeturn\n";
    let file = floe.path("out/bytes");
    fs::File::create(&file).and_then(|mut file| file.write_all(bytes)).expect("a file");
    let volume = format!("{}:/bytes", file.display());
    floe.call(["run", "--name", "l", "-v", &volume, "--", "cat", "/bytes"]).succeeds();
    let mut command = floe.command(["logs", "l"]);
    assert_eq!(command.output().expect("execute floe").stdout, bytes);
    let json = floe.call(["logs", "--format", "json", "l"]).succeeds().stdout();
    harmless(&json, Some(3));
    let seen = floe.path("out/seen");
    let line = format!("'{}' logs l", built_program("floe").display());
    let mut terminal = Command::new(script);
    terminal.args(["--quiet", "--return", "--command", &line]).arg(&seen);
    for (name, value) in floe.command(["logs"]).get_envs() {
        if let Some(value) = value {
            terminal.env(name, value);
        }
    }
    assert!(terminal.output().expect("execute script").status.success());
    let seen = fs::read(&seen).expect("what the terminal was sent");
    let text = String::from_utf8(seen).expect("text");
    for line in ["\\u{1b}]0;owned\\u{7}\\u{1b}[2J\\x9b2K\\rback\\u{8}\r\n", "\u{1b}[31mred\u{1b}[0m\r\n", "\\u{202e}turn\r\n"] {
        assert!(text.contains(line), "{line:?} in {text:?}");
    }
}
