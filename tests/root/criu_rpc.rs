//! `floe-criu swrk FD`, as runtimes call it: criu's RPC.

use criu_rpc::{Connection, Features, InheritFd, Options, Request, RequestType, Response, script};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tests::bundle::{built_program, payload};
use tests::wait_until;

/// A criu that waits for requests, and the caller's end of the line.
struct Swrk {
    child: Child,
    line: Option<Connection>,
    told: Vec<(String, i32)>,
    fds: usize,
    refuse: Option<&'static str>,
}

impl Swrk {
    fn start() -> Swrk {
        Self::with_input(Stdio::null())
    }

    fn with_input(input: Stdio) -> Swrk {
        let (ours, theirs) = sys::message::pair().expect("a socket pair");
        sys::fd::keep_on_exec(&theirs).expect("keep it open");
        let mut command = Command::new(built_program("floe-criu"));
        command.arg("swrk").arg(theirs.as_raw_fd().to_string()).stdin(input);
        let child = command.spawn().expect("floe-criu");
        drop(theirs);
        Swrk {
            child,
            line: Some(Connection::new(ours)),
            told: Vec::new(),
            fds: 0,
            refuse: None,
        }
    }

    fn line(&self) -> &Connection {
        self.line.as_ref().expect("an open line")
    }

    /// Sends a request and confirms stages until the answer comes.
    fn ask(&mut self, request: &Request) -> Response {
        self.line().send(request).expect("send");
        loop {
            let received = self.line().receive::<Response>().expect("receive");
            let (response, fds) = received.expect("an answer");
            if response.r#type != RequestType::Notify as i32 {
                return response;
            }
            let notify = response.notify.expect("a stage");
            let name = notify.script.expect("a name");
            self.fds += fds.len();
            let fine = self.refuse != Some(name.as_str());
            self.told.push((name, notify.pid.unwrap_or(0)));
            let answer = Request {
                r#type: RequestType::Notify as i32,
                notify_success: Some(fine),
                ..Request::default()
            };
            self.line().send(&answer).expect("confirm");
        }
    }

    fn names(&self) -> Vec<&str> {
        self.told.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The line closes, and it ends.
    fn ends(mut self) {
        self.line = None;
        let status = self.child.wait().expect("wait");
        assert!(status.success(), "{status}");
    }
}

fn request(kind: RequestType) -> Request {
    Request {
        r#type: kind as i32,
        ..Request::default()
    }
}

fn with_options(kind: RequestType, opts: Options) -> Request {
    Request {
        opts: Some(opts),
        ..request(kind)
    }
}

/// A payload that says a word when it is woken, in a session of its own.
struct Payload {
    directory: tempfile::TempDir,
    pid: i32,
}

impl Payload {
    fn start() -> (Payload, Child) {
        let directory = tempfile::tempdir().expect("a directory");
        let output = File::create(directory.path().join("output")).expect("a file");
        let mut command = Command::new("setsid");
        command.arg(payload()).args(["signal-wait", "--", "echo", "end"]);
        command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(output);
        let child = command.spawn().expect("the payload");
        let pid = i32::try_from(child.id()).expect("a pid");
        let started = Payload { directory, pid };
        wait_until("it is ready", || started.output().contains("ready"));
        (started, child)
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }

    fn images(&self) -> (PathBuf, File) {
        let path = self.directory.path().join("images");
        std::fs::create_dir_all(&path).expect("a directory");
        let file = File::open(&path).expect("the directory");
        (path, file)
    }

    fn exists(&self) -> bool {
        Path::new(&format!("/proc/{}/exe", self.pid)).read_link().is_ok()
    }

    fn wake(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("wake it");
    }
}

#[test]
fn several_questions_on_one_line() {
    let mut swrk = Swrk::start();
    let open = |kind| Request { keep_open: Some(true), ..request(kind) };
    let version = swrk.ask(&open(RequestType::Version));
    let version = version.version.expect("a version");
    assert_eq!((version.major_number, version.minor_number), (4, 2));
    let asked = Features { mem_track: Some(true), lazy_pages: Some(true), pidfd_store: None };
    let features = swrk.ask(&Request { features: Some(asked), ..open(RequestType::FeatureCheck) });
    let expected = Features { mem_track: Some(false), lazy_pages: Some(false), pidfd_store: None };
    assert!(features.success);
    assert_eq!(features.features, Some(expected));
    assert!(swrk.ask(&request(RequestType::Check)).success);
    swrk.ends();
}

#[test]
fn what_is_not_there_is_refused_with_a_reason() {
    let lazy = Options { lazy_pages: Some(true), ..Options::default() };
    for (request, reason) in [
        (request(RequestType::PageServer), "PageServer"),
        (request(RequestType::Dump), "no options"),
        (with_options(RequestType::Dump, lazy), "lazy pages"),
        (with_options(RequestType::Restore, Options { images_dir_fd: -1, ..Options::default() }), "images"),
        (Request { r#type: 77, ..Request::default() }, "Empty"),
    ] {
        let mut swrk = Swrk::start();
        let response = swrk.ask(&request);
        let said = response.cr_errmsg.clone().unwrap_or_default();
        assert!(!response.success && said.contains(reason), "{response:?}");
        swrk.ends();
    }
}

#[test]
fn a_process_is_dumped_and_restored_stage_by_stage() {
    let (payload, mut child) = Payload::start();
    let (path, images) = payload.images();
    let options = |log: &str| Options {
        images_dir_fd: images.as_raw_fd(),
        log_file: Some(log.to_owned()),
        notify_scripts: Some(true),
        ..Options::default()
    };
    let mut swrk = Swrk::start();
    let dump = Options { pid: Some(payload.pid), ..options("dump.log") };
    let response = swrk.ask(&with_options(RequestType::Dump, dump));
    assert!(response.success, "{response:?}");
    assert_eq!(swrk.names(), [script::PRE_DUMP, script::NETWORK_LOCK, script::POST_DUMP]);
    swrk.ends();
    child.wait().expect("wait");
    assert!(!payload.exists());
    assert!(path.join("pstree.img").exists() && path.join("dump.log").exists());

    let mut swrk = Swrk::start();
    let restore = Options { rst_sibling: Some(true), ..options("restore.log") };
    let response = swrk.ask(&with_options(RequestType::Restore, restore));
    assert_eq!(response.restore.map(|restored| restored.pid), Some(payload.pid), "{response:?}");
    let pid = payload.pid;
    let expected = [
        (script::PRE_RESTORE, 0),
        (script::SETUP_NAMESPACES, pid),
        (script::POST_RESTORE, pid),
        (script::NETWORK_UNLOCK, pid),
        (script::POST_RESUME, pid),
    ];
    assert_eq!(swrk.told, expected.map(|(name, pid)| (name.to_owned(), pid)));
    swrk.ends();
    payload.wake();
    wait_until("it goes on", || payload.output().contains("end"));
    // It is a sibling of floe-criu: the caller's child.
    let pid = rustix::process::Pid::from_raw(pid);
    let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    assert_eq!(status.expect("our child").map(|(_, status)| status.exit_status()), Some(Some(0)));
}

#[test]
fn a_caller_that_fails_at_a_stage_gets_nothing() {
    let (payload, mut child) = Payload::start();
    let (_, images) = payload.images();
    let options = Options {
        images_dir_fd: images.as_raw_fd(),
        notify_scripts: Some(true),
        rst_sibling: Some(true),
        pid: Some(payload.pid),
        ..Options::default()
    };
    let mut swrk = Swrk::start();
    swrk.refuse = Some(script::NETWORK_LOCK);
    assert!(!swrk.ask(&with_options(RequestType::Dump, options.clone())).success);
    swrk.ends();
    assert!(payload.exists(), "a failed dump leaves it running");
    let mut swrk = Swrk::start();
    assert!(swrk.ask(&with_options(RequestType::Dump, options.clone())).success);
    swrk.ends();
    child.wait().expect("wait");
    for stage in [script::SETUP_NAMESPACES, script::POST_RESTORE] {
        let mut swrk = Swrk::start();
        swrk.refuse = Some(stage);
        let response = swrk.ask(&with_options(RequestType::Restore, options.clone()));
        let said = response.cr_errmsg.clone().unwrap_or_default();
        assert!(!response.success && said.contains(stage), "{response:?}");
        swrk.ends();
        // A sibling of floe-criu is ours to reap.
        let pid = rustix::process::Pid::from_raw(payload.pid);
        let _reaped = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
        assert!(!payload.exists(), "a failed restore leaves nothing");
    }
}

#[test]
fn a_pipe_of_the_caller_is_inherited() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut old, ours) = std::io::pipe().expect("a pipe");
    let mut command = Command::new("setsid");
    command.arg(payload()).args(["signal-wait", "--", "echo", "end"]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(ours);
    let mut child = command.spawn().expect("the payload");
    drop(command);
    let mut said = [0; 6];
    std::io::Read::read_exact(&mut old, &mut said).expect("what it says");
    let pid = i32::try_from(child.id()).expect("a pid");
    let key = std::fs::read_link(format!("/proc/{pid}/fd/1")).expect("a link");
    let key = key.to_string_lossy().into_owned();
    let images = File::open(directory.path()).expect("the directory");
    let options = Options { images_dir_fd: images.as_raw_fd(), pid: Some(pid), ..Options::default() };
    let mut swrk = Swrk::start();
    assert!(swrk.ask(&with_options(RequestType::Dump, options.clone())).success);
    swrk.ends();
    child.wait().expect("wait");

    let (mut new, ours) = std::io::pipe().expect("a pipe");
    let mut swrk = Swrk::with_input(Stdio::from(ours));
    let given = InheritFd { key, fd: 0 };
    let restore = Options { inherit_fd: vec![given], rst_sibling: Some(true), ..options };
    let response = swrk.ask(&with_options(RequestType::Restore, restore));
    assert!(response.success, "{response:?}");
    swrk.ends();
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("wake it");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut new, &mut text).expect("what it says");
    assert!(text.ends_with("end\n"), "{text}");
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).expect("our child");
}
