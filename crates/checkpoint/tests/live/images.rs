//! Images that are damaged, and what images tell.

use std::path::Path;

use checkpoint::ProcessState;

use crate::program::Program;

const SCRIPT: &str = r"
import os, signal, socket, sys, time, mmap, threading
d = sys.argv[1]
ghost = open(d + '/ghost', 'w+'); ghost.write('boo'); ghost.flush(); os.unlink(d + '/ghost')
r, w = os.pipe(); os.write(w, b'piped')
a, b = socket.socketpair(); a.send(b'queued')
tcp = socket.create_server(('127.0.0.1', 0)); near = socket.create_connection(tcp.getsockname()); far, _ = tcp.accept()
shared = mmap.mmap(-1, 8192); shared[:3] = b'abc'
threading.Thread(target=time.sleep, args=[1000], daemon=True).start()
if os.fork() == 0:
    while True: time.sleep(1)
if os.fork() == 0: os._exit(3)
signal.signal(signal.SIGUSR1, lambda *_: print(os.read(r, 9), b.recv(9), shared[:3], flush=True))
print('ready', tcp.getsockname()[1], flush=True); print('ready', flush=True)
while True: time.sleep(0.1)
";

const CHECKSUMS: &str = "floe-checksums.img";

#[test]
fn damage_anywhere_is_one_error_and_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(program) = Program::python(SCRIPT, &[scratch.path().to_str().unwrap()]) else {
        return;
    };
    checkpoint::dump(&program.images(), &program.options()).unwrap();
    program.reap();
    let mut names: Vec<String> = std::fs::read_dir(program.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // Nobody reads the statistics, and `output` is the program's.
    names.retain(|name| name.ends_with(".img"));
    // Without it the restore works, which can be done once.
    names.sort_by_key(|name| name == CHECKSUMS);
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let path = program.directory.path().join(&name);
        let whole = std::fs::read(&path).unwrap();
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        };
        let last = whole.len() - 1;
        let damaged = [
            flipped(0),
            flipped(last / 2),
            flipped(last),
            whole[..last].to_vec(),
            Vec::new(),
        ];
        for bytes in damaged {
            std::fs::write(&path, bytes).unwrap();
            let restored = checkpoint::restore(&program.images(), &program.restore_options());
            let error = restored.expect_err(&name).to_string();
            assert!(error.contains(&name), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
            let left = Path::new(&format!("/proc/{}", program.pid)).exists();
            assert!(!left, "after damage to {name}");
        }
        std::fs::remove_file(&path).unwrap();
        let restored = checkpoint::restore(&program.images(), &program.restore_options());
        let found = restored.is_ok();
        std::fs::write(&path, whole).unwrap();
        // CRIU's images have no checksums: they may be missing, and nothing else.
        assert_eq!(found, name == CHECKSUMS, "without {name}");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    assert_eq!(program.ask(), "b'piped' b'queued' b'abc'");
}

#[test]
fn summary_tells_processes_memory_files_and_sockets() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(program) = Program::python(SCRIPT, &[scratch.path().to_str().unwrap()]) else {
        return;
    };
    let port = program.output().lines().next().unwrap()[6..].to_owned();
    // No restore comes that would take a lock off.
    let mut options = program.options();
    options.network_lock = checkpoint::NetworkLock::Skip;
    let statistics = checkpoint::dump(&program.images(), &options).unwrap();
    program.reap();
    let summary = checkpoint::summarize(&program.images()).unwrap();
    let pages = statistics.pages_written + statistics.shared_pages_written;
    assert_eq!(summary.memory(), pages * 4096);
    assert!(summary.shared_memory >= 4096, "{summary:?}");
    let root = &summary.processes[0];
    assert_eq!((root.pid, root.parent), (program.pid, 0));
    assert_eq!((root.name.as_str(), root.threads.len()), ("python3", 2));
    let states: Vec<ProcessState> = summary.processes.iter().map(|p| p.state).collect();
    assert!(states.contains(&ProcessState::Dead), "{states:?}");
    assert_eq!(summary.processes[1].parent, program.pid);
    let named = |name: &str| {
        let sockets = summary.sockets.iter().map(ToString::to_string);
        let all: Vec<String> = sockets
            .chain(summary.files.iter().map(ToString::to_string))
            .collect();
        assert!(
            all.iter().any(|line| line.contains(name)),
            "{name} is not in {all:#?}"
        );
    };
    named(&format!("tcp 127.0.0.1:{port} listening"));
    named(&format!(" to 127.0.0.1:{port}"));
    named(&format!("file {}/ghost", scratch.path().display()));
    named("pipe ");
    named("unix #");
}
