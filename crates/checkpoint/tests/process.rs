//! Plain processes, dumped and restored on this machine. Each test owns its process and directory.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and skip aloud"
)]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use checkpoint::image::Directory;
use checkpoint::{Afterwards, DumpOptions, RestoreOptions};
use rustix::process::{Pid, Signal, WaitOptions};

/// Ends the process when the test ends.
struct Program {
    pid: i32,
    directory: tempfile::TempDir,
    child: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid).unwrap();
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        let _ = self.child.try_wait();
    }
}

impl Program {
    fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("it needs root");
        }
        if !Path::new(program).exists() {
            return skip(&format!("{program} is not installed"));
        }
        let directory = tempfile::tempdir().unwrap();
        let output = std::fs::File::create(directory.path().join("output")).unwrap();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        // A session of its own, as daemons have.
        let child = command.process_group(0).spawn().unwrap();
        let program = Self {
            pid: child.id() as i32,
            directory,
            child,
        };
        let command_line =
            || std::fs::read_to_string(format!("/proc/{}/cmdline", program.pid)).unwrap();
        while command_line().contains("\0clean\0") {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        Some(program)
    }

    fn images(&self) -> Directory {
        Directory::open(self.directory.path().to_str().unwrap()).unwrap()
    }

    fn options(&self) -> DumpOptions {
        DumpOptions {
            tree: self.pid,
            shell_job: true,
            tcp_established: true,
            ..DumpOptions::default()
        }
    }

    fn reap(&self) {
        // Where the test is parent and engine at once, the engine has reaped it already.
        let _ = rustix::process::waitpid(Pid::from_raw(self.pid), WaitOptions::empty());
    }

    fn dump_and_restore(&self) {
        checkpoint::dump(&self.images(), &self.options()).unwrap();
        self.reap();
        let options = RestoreOptions {
            shell_job: true,
            ..RestoreOptions::default()
        };
        let restored = checkpoint::restore(&self.images(), &options).unwrap();
        assert_eq!(restored.root, self.pid);
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("output")).unwrap()
    }

    fn wait_for(&self, what: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !what(&self.output()) {
            assert!(
                Instant::now() < deadline,
                "waited in vain; the output is:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What must be the same after a dump that failed, and after a restore.
    fn fingerprint(&self) -> String {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap();
        let status = read("status");
        let kept = [
            "Name",
            "Umask",
            "Uid",
            "Gid",
            "Groups",
            "Threads",
            "TracerPid",
            "Sig",
            "Cap",
            "NoNewPrivs",
        ];
        let lines = status
            .lines()
            .filter(|line| kept.iter().any(|key| line.starts_with(key)));
        let lines = lines
            .filter(|line| !line.starts_with("SigQ"))
            .collect::<Vec<_>>()
            .join("\n");
        format!("{lines}\n{}\n{}", read("maps"), read("limits"))
    }
}

fn skip<T>(reason: &str) -> Option<T> {
    assert!(
        std::env::var_os("FLOE_STRICT").is_none(),
        "prerequisite missing: {reason}"
    );
    println!("SKIP: {reason}");
    None
}

const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; read -t 0.05 x </dev/zero; done";

#[test]
fn sleeping_process_comes_back_with_the_same_face() {
    let Some(program) = Program::start("/bin/sleep", &["1000"]) else {
        return;
    };
    let before = program.fingerprint();
    program.dump_and_restore();
    assert_eq!(program.fingerprint(), before);
    program.dump_and_restore();
    assert_eq!(program.fingerprint(), before);
}

#[test]
fn counter_goes_on_where_it_was() {
    let Some(program) = Program::start("/bin/bash", &["-c", COUNTER]) else {
        return;
    };
    program.wait_for(|output| output.lines().count() > 3);
    program.dump_and_restore();
    let so_far = program.output().lines().count();
    program.wait_for(|output| output.lines().count() > so_far + 3);
    let output = program.output();
    for (at, line) in output.lines().enumerate() {
        assert_eq!(line, (at + 1).to_string(), "{output}");
    }
}

#[test]
fn threads_memory_timers_and_handlers_come_back() {
    const SCRIPT: &str = r"
import threading, time, os, signal, hashlib
n = 0
def work():
    global n
    while True:
        time.sleep(0.01); n += 1
for i in range(5): threading.Thread(target=work, daemon=True).start()
signal.signal(signal.SIGUSR1, lambda *a: print('usr1', flush=True))
ticks = []
signal.signal(signal.SIGALRM, lambda *a: ticks.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
data = os.urandom(4 << 20); sum = hashlib.md5(data).hexdigest()
while True:
    time.sleep(0.1); assert hashlib.md5(data).hexdigest() == sum
    print('alive', n > 0, len(ticks) > 0, flush=True); n = 0; ticks.clear()
";
    let Some(program) = Program::start("/usr/bin/python3", &["-c", SCRIPT]) else {
        return;
    };
    program.wait_for(|output| output.lines().count() > 2);
    program.dump_and_restore();
    let pid = Pid::from_raw(program.pid).unwrap();
    rustix::process::kill_process(pid, Signal::USR1).unwrap();
    program.wait_for(|output| output.contains("usr1"));
    let so_far = program.output().lines().count();
    program.wait_for(|output| output.lines().count() > so_far + 3);
    let output = program.output();
    let last: Vec<&str> = output.lines().rev().take(2).collect();
    assert_eq!(last, ["alive True True"; 2], "{output}");
}

#[test]
fn dump_that_fails_at_any_step_changes_nothing() {
    let Some(program) = Program::start("/bin/sleep", &["1000"]) else {
        return;
    };
    let before = program.fingerprint();
    let mut step = 1;
    loop {
        let mut options = program.options();
        options.fail_at = Some(step);
        options.afterwards = Afterwards::Run;
        match checkpoint::dump(&program.images(), &options) {
            Ok(_) => break,
            Err(error) => assert!(error.to_string().contains("asked for"), "{error}"),
        }
        assert_eq!(
            program.fingerprint(),
            before,
            "after a failure at step {step}"
        );
        step += 1;
    }
    assert!(step > 5, "{step}");
    assert_eq!(
        program.fingerprint(),
        before,
        "after a dump that leaves it running"
    );
}

#[test]
fn restore_that_fails_at_any_step_leaves_nothing() {
    let Some(program) = Program::start("/bin/sleep", &["1000"]) else {
        return;
    };
    checkpoint::dump(&program.images(), &program.options()).unwrap();
    program.reap();
    let mut step = 1;
    loop {
        let options = RestoreOptions {
            shell_job: true,
            fail_at: Some(step),
            ..RestoreOptions::default()
        };
        match checkpoint::restore(&program.images(), &options) {
            Ok(_) => break,
            Err(error) => assert!(error.to_string().contains("asked for"), "{error}"),
        }
        assert!(
            !Path::new(&format!("/proc/{}", program.pid)).exists(),
            "after step {step}"
        );
        step += 1;
    }
    assert!(step > 5, "{step}");
}

#[test]
fn damaged_images_are_one_error_and_leave_nothing() {
    let Some(program) = Program::start("/bin/sleep", &["1000"]) else {
        return;
    };
    checkpoint::dump(&program.images(), &program.options()).unwrap();
    program.reap();
    let options = RestoreOptions {
        shell_job: true,
        ..RestoreOptions::default()
    };
    for name in [
        "inventory.img",
        "pstree.img",
        "files.img",
        &format!("mm-{}.img", program.pid),
    ] {
        let path = program.directory.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let error = checkpoint::restore(&program.images(), &options)
            .unwrap_err()
            .to_string();
        assert!(error.contains(name), "{error}");
        assert!(
            !Path::new(&format!("/proc/{}", program.pid)).exists(),
            "{name}"
        );
        std::fs::write(&path, whole).unwrap();
    }
    checkpoint::restore(&program.images(), &options).unwrap();
}

#[test]
fn pipes_events_ghosts_and_children_come_back() {
    const SCRIPT: &str = r"
import os, select, time, signal, mmap, fcntl, sys
d = sys.argv[1]
r, w = os.pipe(); os.write(w, b'hello')
inner = select.epoll(); inner.register(r, select.EPOLLIN)
event = os.eventfd(5); inner.register(event, select.EPOLLIN)
outer = select.epoll(); outer.register(inner.fileno(), select.EPOLLIN)
memory = os.memfd_create('foo', 2); os.write(memory, b'x' * 5000); mapped = mmap.mmap(memory, 4096)
ghost = open(d + '/ghost', 'w+'); ghost.write('boo'); ghost.flush(); os.unlink(d + '/ghost')
process = os.pidfd_open(os.getpid())
os.mkfifo(d + '/fifo'); fifo = os.open(d + '/fifo', os.O_RDWR | os.O_NONBLOCK); os.write(fifo, b'fifo')
shared = mmap.mmap(-1, 8192); shared[0:3] = b'abc'
child = os.fork()
if child == 0:
    while True: time.sleep(0.02); shared[4096] = (shared[4096] + 1) % 256
dead = os.fork()
if dead == 0: os._exit(7)
def usr(*a):
    before = shared[4096]; time.sleep(0.3); ghost.seek(0)
    print([event for _, event in outer.poll(0)], os.read(r, 9), os.eventfd_read(event), mapped[:2], ghost.read(),
        os.read(fifo, 9), shared[:3], shared[4096] != before, os.fstat(memory).st_size, os.waitpid(dead, 0)[1], flush=True)
signal.signal(signal.SIGUSR1, usr)
print('ready', flush=True)
while True: time.sleep(0.1)
";
    let scratch = tempfile::tempdir().unwrap();
    let arguments = ["-c", SCRIPT, scratch.path().to_str().unwrap()];
    let Some(program) = Program::start("/usr/bin/python3", &arguments) else {
        return;
    };
    program.wait_for(|output| output.contains("ready"));
    std::thread::sleep(Duration::from_millis(100));
    program.dump_and_restore();
    rustix::process::kill_process(Pid::from_raw(program.pid).unwrap(), Signal::USR1).unwrap();
    program.wait_for(|output| output.lines().count() > 1);
    let expected = "[1] b'hello' 5 b'xx' boo b'fifo' b'abc' True 5000 1792";
    assert_eq!(program.output().lines().nth(1), Some(expected));
    assert_eq!(
        std::fs::read_dir(scratch.path()).unwrap().count(),
        1,
        "only the fifo has a name"
    );
}

#[test]
fn sockets_with_their_queues_come_back() {
    const SCRIPT: &str = r"
import socket, signal, time, sys, os, array
d = sys.argv[1]; path = d + '/named'
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); a.send(b'queued')
r, w = os.pipe(); os.write(w, b'piped')
a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [r]))]); os.close(r)
listener = socket.socket(socket.AF_UNIX); listener.bind(path); listener.listen(4)
client = socket.socket(socket.AF_UNIX); client.connect(path); server, _ = listener.accept()
waiting = socket.socket(socket.AF_UNIX); waiting.connect(path)
tcp = socket.create_server(('127.0.0.1', 0)); near = socket.create_connection(tcp.getsockname()); far, _ = tcp.accept()
near.send(b'over tcp'); time.sleep(0.1)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0)); udp.connect(udp.getsockname())
def usr(*_):
    data, control, _, _ = b.recvmsg(6, 64); data2, control, _, _ = b.recvmsg(6, 64)
    piped = os.read(array.array('i', control[0][2])[0], 9)
    accepted, _ = listener.accept(); waiting.send(b'late'); client.send(b'early')
    far.send(b'answer'); udp.send(b'dgram')
    print(data, data2, piped, accepted.recv(9), server.recv(9), far.recv(9), near.recv(9), udp.recv(9),
        server.getsockname() == path, near.getpeername() == tcp.getsockname(), flush=True)
signal.signal(signal.SIGUSR1, usr)
print('ready', flush=True)
while True: time.sleep(0.1)
";
    let scratch = tempfile::tempdir().unwrap();
    let arguments = ["-c", SCRIPT, scratch.path().to_str().unwrap()];
    let Some(program) = Program::start("/usr/bin/python3", &arguments) else {
        return;
    };
    program.wait_for(|output| output.contains("ready"));
    program.dump_and_restore();
    rustix::process::kill_process(Pid::from_raw(program.pid).unwrap(), Signal::USR1).unwrap();
    program.wait_for(|output| output.lines().count() > 1);
    let expected =
        "b'queued' b'x' b'piped' b'late' b'early' b'over tcp' b'answer' b'dgram' True True";
    assert_eq!(program.output().lines().nth(1), Some(expected));
}

#[test]
fn pty_keeps_its_number_size_and_line_discipline() {
    const PROGRAM: &str = r"
import os, signal, time, fcntl, termios
master = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY); fcntl.ioctl(master, 0x40045431, b'\0\0\0\0')
number = int.from_bytes(fcntl.ioctl(master, 0x80045430, b'\0\0\0\0'), 'little')
slave = os.open('/dev/pts/%d' % number, os.O_RDWR | os.O_NOCTTY)
fcntl.ioctl(slave, termios.TIOCSWINSZ, b'\x21\0\x37\0\0\0\0\0')
def usr(*_):
    os.write(master, b'line\n')
    print(os.read(slave, 9), fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8))[:4], os.ttyname(slave) == '/dev/pts/%d' % number, flush=True)
signal.signal(signal.SIGUSR1, usr)
print('ready', flush=True)
while True: time.sleep(0.1)
";
    let Some(program) = Program::start("/usr/bin/python3", &["-c", PROGRAM]) else {
        return;
    };
    program.wait_for(|output| output.contains("ready"));
    program.dump_and_restore();
    rustix::process::kill_process(Pid::from_raw(program.pid).unwrap(), Signal::USR1).unwrap();
    program.wait_for(|output| output.lines().count() > 1);
    assert_eq!(
        program.output().lines().nth(1),
        Some(r"b'line\n' b'!\x007\x00' True")
    );
}
