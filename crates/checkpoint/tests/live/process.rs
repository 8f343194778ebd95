//! Whole processes, and failures at every step.
use std::path::Path;
use std::time::Duration;

use crate::program::Program;
use checkpoint::{Afterwards, RestoreOptions};
use rustix::process::{Pid, Signal};

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
fn memory_is_found_without_the_newest_interface() {
    const SCRIPT: &str = r"
import signal, time, os, hashlib, mmap
data = os.urandom(3 << 20); total = hashlib.md5(data).hexdigest()
sparse = mmap.mmap(-1, 1 << 34, mmap.MAP_PRIVATE | 0x4000)  # MAP_NORESERVE
sparse[1 << 33] = 7
read = sparse[5 << 30]
signal.signal(signal.SIGUSR1, lambda *_: print(hashlib.md5(data).hexdigest() == total, sparse[1 << 33], flush=True))
print('ready', flush=True)
while True: time.sleep(0.1)
";
    let Some(program) = Program::python(SCRIPT, &[]) else {
        return;
    };
    let mut options = program.options();
    options.afterwards = Afterwards::Run;
    let pages = |options: &checkpoint::DumpOptions| {
        checkpoint::dump(&program.images(), options)
            .unwrap()
            .pages_written
    };
    let scanned = pages(&options);
    options.pagemap_words = true;
    let read = pages(&options);
    // Whoever runs between two dumps may touch some more.
    assert!(read.abs_diff(scanned) < 64, "{read} and {scanned} pages");
    options.afterwards = Afterwards::Kill;
    program.dump_and_restore_with(&options);
    assert_eq!(program.ask(), "True 7");
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
fn pty_keeps_its_number_size_settings_and_what_lies_in_it() {
    const PROGRAM: &str = r"
import os, signal, time, fcntl, termios
master = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY); fcntl.ioctl(master, 0x40045431, b'\0\0\0\0')
number = int.from_bytes(fcntl.ioctl(master, 0x80045430, b'\0\0\0\0'), 'little')
slave = os.open('/dev/pts/%d' % number, os.O_RDWR | os.O_NOCTTY)
fcntl.ioctl(slave, termios.TIOCSWINSZ, b'\x21\0\x37\0\0\0\0\0')
os.write(master, b'typed\nhalf'); os.write(slave, b'shown')
def usr(*_):
    before = os.read(master, 99); os.write(master, b' line\n')
    print(os.read(slave, 99), os.read(slave, 99), before in (b'typed\r\nhalfshown', b'showntyped\r\nhalf'), fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8))[:4], os.ttyname(slave) == '/dev/pts/%d' % number, flush=True)
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
        Some(r"b'typed\n' b'half line\n' True b'!\x007\x00' True")
    );
}
