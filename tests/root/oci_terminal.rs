//! Terminals: console sockets, sizes, the controlling terminal, `/dev/console`.

use serde_json::json;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use tests::{Bundle, Container, wait_until};

/// A socket that takes a terminal, as an engine's shim has one.
struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    fn new(container: &Container, name: &str) -> Console {
        let path = container.bundle().directory().join(name);
        let listener = UnixListener::bind(&path).expect("a socket");
        Console { path, listener }
    }

    /// The master, and the name that came with it.
    fn take(&self) -> (std::fs::File, String) {
        let (stream, _) = self.listener.accept().expect("the runtime");
        let mut name = [0; 64];
        let (length, fds) = sys::message::receive(&stream, &mut name).expect("a message");
        let master: OwnedFd = fds.into_iter().next().expect("one descriptor");
        let name = String::from_utf8_lossy(&name[..length]).into_owned();
        (std::fs::File::from(master), name)
    }
}

/// What the terminal shows until its last user is gone.
fn read_all(mut master: std::fs::File) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match master.read(&mut buffer) {
            // EIO: nobody has the other end open.
            Ok(0) | Err(_) => return String::from_utf8_lossy(&text).replace("\r\n", "\n"),
            Ok(length) => text.extend_from_slice(&buffer[..length]),
        }
    }
}

fn with_terminal(bundle: Bundle) -> Bundle {
    bundle
        .set("/process/terminal", true)
        .set("/process/consoleSize", json!({"height": 33, "width": 111}))
}

#[test]
fn create_sends_the_terminal_through_the_console_socket() {
    let container = Container::new(with_terminal(Bundle::new().args([
        "tty", "--", "tty-is-controlling", "--", "echo", "controlling", "--", "stat",
        "/dev/console", "--", "readlink", "/proc/self/fd/0",
    ])));
    let console = Console::new(&container, "console.sock");
    let bundle = container.bundle().path();
    let mut command = container.command(["create", "--bundle"]);
    command.arg(bundle).arg("--console-socket").arg(&console.path).arg(container.id());
    container.outcome(&mut command).succeeds();
    let (master, name) = console.take();
    // runc sends the name of the multiplexer, floe that of the terminal.
    assert!(name.starts_with("/dev/"), "{name}");
    container.start().succeeds();
    let shown = read_all(master);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[..4], ["0 tty 33x111", "1 tty 33x111", "2 tty 33x111", "controlling"], "{shown}");
    assert!(lines[4].starts_with("char ") && lines[4].contains(" 136:"), "{shown}");
    assert_eq!(lines[5], "/dev/pts/0");
}

#[test]
fn input_reaches_the_program() {
    let container = Container::new(with_terminal(Bundle::new().args(["copy-stdin"])));
    let console = Console::new(&container, "console.sock");
    let bundle = container.bundle().path();
    let mut command = container.command(["run", "--detach", "--bundle"]);
    command.arg(bundle).arg("--console-socket").arg(&console.path).arg(container.id());
    container.outcome(&mut command).succeeds();
    let (mut master, _) = console.take();
    master.write_all(b"hello\n\x04").expect("write");
    let shown = read_all(master);
    assert_eq!(shown, "hello\nhello\n", "echoed, then copied");
    container.wait_for_status("stopped");
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let container = Container::new(Bundle::new().args(["sleep", "1000"]));
    container.create().succeeds();
    container.start().succeeds();
    let console = Console::new(&container, "exec.sock");
    let process = container.bundle().directory().join("process.json");
    let mut document = container.bundle().config()["process"].clone();
    document["terminal"] = json!(true);
    document["consoleSize"] = json!({"height": 5, "width": 7});
    document["args"] = json!(["/payload", "tty", "--", "tty-is-controlling", "--", "echo", "done"]);
    std::fs::write(&process, document.to_string()).expect("process.json");
    let mut command = container.command(["exec", "--detach", "--console-socket"]);
    command.arg(&console.path).arg("--process").arg(&process).arg(container.id());
    container.outcome(&mut command).succeeds();
    let (master, _) = console.take();
    assert_eq!(read_all(master), "0 tty 5x7\n1 tty 5x7\n2 tty 5x7\ndone\n");
}

/// In the foreground the runtime lends its caller's streams to the container's terminal.
#[test]
fn run_in_the_foreground_carries_the_terminal() {
    tests::differs!("runc wants a terminal of its own in the foreground");
    let container = Container::new(with_terminal(Bundle::new().args(["tty", "--", "exit", "9"])));
    let outcome = container.run().exits(9);
    let shown = outcome.stdout().replace("\r\n", "\n");
    assert!(shown.starts_with("0 tty ") && shown.lines().count() == 3, "{shown}");
}

#[test]
fn exec_in_the_foreground_carries_the_terminal() {
    tests::differs!("runc wants a terminal of its own in the foreground");
    let container = Container::new(Bundle::new().args(["sleep", "1000"]));
    container.create().succeeds();
    container.start().succeeds();
    let outcome = container.call(["exec", "-t", container.id(), "/payload", "tty", "--", "exit", "8"]);
    let outcome = outcome.exits(8);
    assert!(outcome.stdout().starts_with("0 tty "), "{}", outcome.stdout());
}

#[test]
fn a_terminal_and_its_socket_must_come_together() {
    let container = Container::new(with_terminal(Bundle::new()));
    container.create().exits(1).says("console");
    let container = Container::new(Bundle::new());
    let console = Console::new(&container, "console.sock");
    let mut command = container.command(["create", "--bundle"]);
    command.arg(container.bundle().path()).arg("--console-socket").arg(&console.path).arg(container.id());
    container.outcome(&mut command).exits(1).says("console");
    let container = Container::new(with_terminal(Bundle::new()));
    let mut command = container.command(["create", "--bundle"]);
    command.arg(container.bundle().path()).args(["--console-socket", "/no/socket"]).arg(container.id());
    container.outcome(&mut command).exits(1).says("/no/socket");
}

/// A user that is not root may open its own streams again.
#[test]
fn the_terminal_belongs_to_the_user() {
    tests::differs!("runc wants a terminal of its own in the foreground");
    let bundle = with_terminal(Bundle::new().args(["stat", "/dev/pts/0", "--", "write", "/dev/stdout", "again\n"]));
    let bundle = bundle.set("/process/user", json!({"uid": 12, "gid": 34}));
    let outcome = Container::new(bundle).run().succeeds();
    assert!(outcome.stdout().contains(" 12 "), "{}", outcome.stdout());
    assert!(outcome.stdout().contains("again"), "{}", outcome.stdout());
}

/// Without a terminal the streams are the caller's, whatever they are.
#[test]
fn streams_pass_through() {
    let container = Container::new(Bundle::new().args(["copy-stdin", "--", "echo-stderr", "to stderr"]));
    let input = container.bundle().directory().join("input");
    std::fs::write(&input, "from a file\n").expect("a file");
    let mut command = container.command(["run", "--bundle"]);
    command.arg(container.bundle().path()).arg(container.id());
    command.stdin(std::fs::File::open(input).expect("the file"));
    container.outcome(&mut command).succeeds().prints("from a file\n").says("to stderr");
}

/// SIGWINCH and the size: a terminal that was resized is so inside.
#[test]
fn a_resized_terminal_has_its_size_inside() {
    let container = Container::new(with_terminal(Bundle::new().args(["wait-for", "/go", "--", "tty"])));
    let console = Console::new(&container, "console.sock");
    let mut command = container.command(["run", "--detach", "--bundle"]);
    command.arg(container.bundle().path()).arg("--console-socket").arg(&console.path).arg(container.id());
    container.outcome(&mut command).succeeds();
    let (master, _) = console.take();
    sys::terminal::set_size(&master, 44, 55).expect("resize");
    std::fs::write(container.bundle().rootfs().join("go"), "").expect("go");
    assert!(read_all(master).starts_with("0 tty 44x55\n"));
    wait_until("it ended", || container.status() == "stopped");
}

/// A program that does not read what is typed keeps nobody from ending it.
#[test]
fn unread_input_does_not_hold_signals_up() {
    tests::differs!("runc wants a terminal of its own in the foreground");
    let bundle = with_terminal(Bundle::new().args(["echo", "ready", "--", "sleep", "1000"]));
    let container = Container::new(bundle.without_namespace("pid"));
    let input = container.bundle().directory().join("input");
    std::fs::write(&input, "typed ahead\n".repeat(100_000)).expect("a file");
    let output = container.bundle().directory().join("output");
    let mut command = container.command(["run", "--bundle"]);
    command.arg(container.bundle().path()).arg(container.id());
    command.stdin(std::fs::File::open(input).expect("the file"));
    command.stdout(std::fs::File::create(&output).expect("a file"));
    let mut runtime = command.spawn().expect("the runtime");
    let typed = || std::fs::read_to_string(&output).unwrap_or_default();
    wait_until("the terminal's buffer is full", || {
        // What is typed is echoed, until there is no room for more.
        let before = typed().len();
        std::thread::sleep(std::time::Duration::from_millis(200));
        before > 1000 && typed().len() == before && typed().contains("ready")
    });
    let pid = rustix::process::Pid::from_child(&runtime);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    wait_until("the runtime ends", || runtime.try_wait().expect("wait").is_some());
    assert_eq!(runtime.wait().expect("wait").code(), Some(143));
}
