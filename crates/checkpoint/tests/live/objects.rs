//! One kernel object each, used again after the restore.

use checkpoint::{Afterwards, NetworkLock};

use crate::program::{Program, skip};

const PRELUDE: &str = r"
import ctypes, mmap, os, select, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
def vma(length, flags, protection=3):
    return libc.mmap(None, ctypes.c_size_t(length), protection, flags, -1, ctypes.c_long(0))
def ask(answer):
    signal.signal(signal.SIGUSR1, lambda *_: print(*answer(), flush=True))
    print('ready', flush=True)
    while True: time.sleep(0.1)
";

/// Dumps, restores, and compares what the script answers then. It says `SKIP: …` if it cannot run.
fn comes_back(script: &str, arguments: &[&str], expected: &str) {
    let Some(program) = Program::python(&format!("{PRELUDE}{script}"), arguments) else {
        return;
    };
    if program.output().contains("SKIP") {
        skip::<()>(program.output().trim());
        return;
    }
    program.dump_and_restore();
    assert_eq!(program.ask(), expected);
    // What came back can be dumped and restored again.
    program.dump_and_restore();
}

#[test]
fn guard_pages_guard_again() {
    let script = r"
start = vma(4 * 4096, 0x22)
ctypes.memset(start, 7, 3 * 4096)
if libc.madvise(ctypes.c_void_p(start + 4096), 4096, 102): print('SKIP: the kernel has no guard pages')
def touch(at):
    child = os.fork()
    if child == 0: os._exit(ctypes.string_at(start + at, 1)[0])
    return os.waitpid(child, 0)[1]
ask(lambda: (touch(0), touch(4096), touch(8192)))
";
    comes_back(script, &[], "1792 11 1792");
}

#[test]
fn huge_pages_stay_huge() {
    let script = r"
size = 2 << 20
private, shared = vma(size, 0x40022), vma(size, 0x40021)
fd = libc.memfd_create(b'huge', 4)
if -1 in (private, shared, fd) or private == 2**64 - 1 or shared == 2**64 - 1:
    print('SKIP: no huge pages are free (vm.nr_hugepages)')
else:
    os.ftruncate(fd, size); memory = mmap.mmap(fd, size); memory[5] = 3
    ctypes.memset(private + 4096, 1, 1); ctypes.memset(shared + 9000, 2, 1)
    huge = lambda: open('/proc/self/smaps').read().count('KernelPageSize:     2048 kB')
ask(lambda: (ctypes.string_at(private + 4096, 1), ctypes.string_at(shared + 9000, 1), memory[5], huge()))
";
    comes_back(script, &[], r"b'\x01' b'\x02' 3 3");
}

#[test]
fn advice_locks_and_growing_stacks_come_back() {
    let script = r"
start = vma(16 * 4096, 0x22)
for number, advice in enumerate([10, 16, 15, 18]):  # DONTFORK, DONTDUMP, NOHUGEPAGE, WIPEONFORK
    libc.madvise(ctypes.c_void_p(start + number * 2 * 4096), 4096, advice)
libc.mlock(ctypes.c_void_p(start + 8 * 4096), 4096)
stack = vma(8 * 4096, 0x122)
def flags():
    found, at = [], 0
    for line in open('/proc/self/smaps'):
        if '-' in line.split(' ')[0]: at = int(line.split('-')[0], 16)
        elif line.startswith('VmFlags') and (start <= at < start + 16 * 4096 or at == stack):
            found.append([flag for flag in line.split() if flag in ('dc', 'dd', 'nh', 'wf', 'lo', 'gd')])
    return sorted(filter(None, found))
before = flags()
ask(lambda: (len(before), before == flags()))
";
    comes_back(script, &[], "6 True");
}

#[test]
fn watches_on_files_with_and_without_a_name_see_only_what_comes_later() {
    let script = r"
d = sys.argv[1]
libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
watch = libc.inotify_init1(os.O_NONBLOCK)
held = open(d + '/gone', 'w'); open(d + '/there', 'w').close()
numbers = [libc.inotify_add_watch(watch, (d + name).encode(), 0xfff) for name in ('', '/gone', '/there')]
os.unlink(d + '/gone'); time.sleep(0.1); os.read(watch, 65536)
fan = libc.fanotify_init(2, os.O_RDONLY)
libc.fanotify_mark(fan, 1, ctypes.c_uint64(0x20), -100, (d + '/there').encode())  # FAN_OPEN
def events():
    try: data = os.read(watch, 65536)
    except BlockingIOError: return []
    found = []
    while data:
        number, mask, _, length = struct.unpack('iIII', data[:16]); data = data[16 + length:]
        found.append((numbers.index(number), hex(mask)))
    return found
def opened():
    try: return len(os.read(fan, 4096)) // 24
    except BlockingIOError: return 0
def answer():
    quiet = events(); silent = opened()
    held.write('x'); held.flush()
    open(d + '/there').close()
    return quiet, silent, sorted(set(events())), opened()
ask(answer)
";
    let scratch = tempfile::tempdir().unwrap();
    let expected =
        "[] 0 [(0, '0x10'), (0, '0x2'), (0, '0x20'), (1, '0x2'), (2, '0x10'), (2, '0x20')] 1";
    comes_back(script, &[scratch.path().to_str().unwrap()], expected);
}

#[test]
fn descriptor_of_a_namespace_leads_there_again() {
    let script = r"
fd = os.open('/proc/self/ns/net', os.O_RDONLY)
ask(lambda: (os.fstat(fd).st_ino == os.stat('/proc/self/ns/net').st_ino, libc.setns(fd, 0x40000000)))
";
    comes_back(script, &[], "True 0");
}

#[test]
fn shared_memory_that_is_mapped_privately_as_well() {
    let script = r"
start = vma(2 * 4096, 0x21)
ctypes.memset(start, 1, 1)
fd = os.open('/proc/self/map_files/%x-%x' % (start, start + 2 * 4096), os.O_RDWR)
private = mmap.mmap(fd, 2 * 4096, mmap.MAP_PRIVATE); private[4096] = 5
def answer():
    ctypes.memset(start + 1, 9, 1)
    return private[0], private[1], private[4096], ctypes.string_at(start + 4096, 1), os.pread(fd, 2, 0)
ask(answer)
";
    comes_back(script, &[], r"1 9 5 b'\x00' b'\x01\t'");
}

const CONNECTION: &str = r"
tcp = socket.create_server(('127.0.0.1', 0)); port = tcp.getsockname()[1]
near = socket.create_connection(('127.0.0.1', port)); far, _ = tcp.accept()
near.settimeout(20); far.settimeout(20)
def answer():
    near.send(b'there'); there = far.recv(9); far.send(b'back')
    return there, near.recv(9)
ask(answer)
";

fn rules() -> String {
    let mut all = String::new();
    for (program, arguments) in [
        ("nft", &["list", "ruleset"][..]),
        ("iptables", &["-w", "-S"]),
    ] {
        let output = std::process::Command::new(program).args(arguments).output();
        all += &String::from_utf8_lossy(&output.unwrap().stdout);
    }
    all
}

/// The local port of an established connection of a process.
fn connected_port(process: i32) -> u16 {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let own = sockets.contains(&format!("socket:[{}]", words.get(9)?));
        let (_, port) = words[1].split_once(':')?;
        (own && words[3] == "01").then(|| u16::from_str_radix(port, 16).unwrap())
    });
    port.unwrap()
}

fn connections_are_locked_until_the_restore(method: NetworkLock, sign: &str) {
    for program in ["nft", "iptables"] {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&paths).any(|path| path.join(program).exists()) {
            skip::<()>(&format!("{program} is not installed"));
            return;
        }
    }
    let Some(program) = Program::python(&format!("{PRELUDE}{CONNECTION}"), &[]) else {
        return;
    };
    let sign = sign.replace("PORT", &connected_port(program.pid).to_string());
    let locked = || rules().contains(&sign);
    let mut options = program.options();
    options.network_lock = method;
    options.afterwards = Afterwards::Run;
    checkpoint::dump(&program.images(), &options).unwrap();
    assert!(!locked(), "the program runs on");
    assert_eq!(program.ask(), "b'there' b'back'");
    let mut step = 5;
    loop {
        options.fail_at = Some(step);
        if checkpoint::dump(&program.images(), &options).is_ok() {
            break;
        }
        assert!(!locked(), "the dump failed at step {step}");
        step += 1;
    }
    assert_eq!(program.ask(), "b'there' b'back'");
    options.fail_at = None;
    options.afterwards = Afterwards::Kill;
    checkpoint::dump(&program.images(), &options).unwrap();
    program.reap();
    assert!(locked(), "between dump and restore: {}", rules());
    let mut broken = program.restore_options();
    broken.fail_at = Some(4);
    checkpoint::restore(&program.images(), &broken).unwrap_err();
    assert!(!locked(), "the restore failed");
    checkpoint::restore(&program.images(), &program.restore_options()).unwrap();
    assert_eq!(program.ask(), "b'there' b'back'");
    program.dump_and_restore_with(&options);
    assert!(!locked(), "restored");
    assert_eq!(program.ask(), "b'there' b'back'");
}

#[test]
fn nftables_keep_packets_away() {
    connections_are_locked_until_the_restore(NetworkLock::Nftables, "127.0.0.1 . PORT ");
}

#[test]
fn iptables_keep_packets_away() {
    connections_are_locked_until_the_restore(NetworkLock::Iptables, "--sport PORT ");
}

#[test]
fn a_peer_that_sends_in_between_gets_its_answer_later() {
    const PEER: &str = r"
import os, sys, time
listener = socket.create_server(('127.0.0.1', 0)); port = listener.getsockname()[1]
if os.fork() == 0:
    listener.close(); signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    peer = socket.create_connection(('127.0.0.1', port)); peer.settimeout(20)
    while True:
        try: peer.send(b'x'); assert peer.recv(1) == b'y'
        except Exception as error: open(sys.argv[1] + '/failed', 'w').write(repr(error)); os._exit(1)
        time.sleep(0.002)
connection, _ = listener.accept(); listener.close(); connection.settimeout(20); count = 0
def answer(): return count, os.path.exists(sys.argv[1] + '/failed')
signal.signal(signal.SIGUSR1, lambda *_: print(*answer(), flush=True))
print('ready', flush=True)
while True:
    if connection.recv(1) == b'': time.sleep(1)
    connection.send(b'y'); count += 1
";
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().to_str().unwrap();
    // The peer is a process of its own: the server is its child.
    let script = PEER.replace("os.fork() == 0", "os.fork() != 0");
    let Some(program) = Program::python(&format!("{PRELUDE}{script}"), &[path]) else {
        return;
    };
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", program.pid));
    let server: i32 = children.unwrap().trim().parse().unwrap();
    let mut options = program.options();
    options.tree = server;
    checkpoint::dump(&program.images(), &options).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let restored = checkpoint::restore(&program.images(), &program.restore_options()).unwrap();
    assert_eq!(restored.root, server);
    std::thread::sleep(std::time::Duration::from_millis(700));
    let pid = rustix::process::Pid::from_raw(server).unwrap();
    let ask = || {
        let before = program.output().lines().count();
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
        program.wait_for(|output| output.lines().count() > before);
        program.output().lines().last().unwrap().to_owned()
    };
    let first = ask();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let second = ask();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    assert!(
        first.ends_with("False") && second.ends_with("False"),
        "{first}, {second}"
    );
    assert_ne!(first, second, "the conversation goes on");
}

#[test]
fn what_waits_to_be_accepted_is_refused_or_dropped() {
    let script = r"
path = sys.argv[1] + '/socket'
listener = socket.socket(socket.AF_UNIX); listener.bind(path); listener.listen(4)
client = socket.socket(socket.AF_UNIX); client.connect(path); client.send(b'unread')
ask(lambda: (listener.fileno(),))
";
    let scratch = tempfile::tempdir().unwrap();
    let arguments = [scratch.path().to_str().unwrap()];
    let Some(program) = Program::python(&format!("{PRELUDE}{script}"), &arguments) else {
        return;
    };
    let mut options = program.options();
    let error = checkpoint::dump(&program.images(), &options).unwrap_err();
    assert!(
        error.to_string().contains("holds data; let it accept"),
        "{error}"
    );
    assert_eq!(program.ask(), "3");
    options.skip_in_flight = true;
    program.dump_and_restore_with(&options);
    assert_eq!(program.ask(), "3");
}
