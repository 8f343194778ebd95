//! System call filters, their order and who shares them.

use crate::program::Program;

const PRELUDE: &str = r"
import ctypes, errno, os, signal, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def load(number, error, flags=0):
    # Answer call `number` with `error`, allow the rest.
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x50000 | error), (6, 0, 0, 0x7fff0000)]
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(rows), ctypes.addressof(code)))
    return libc.syscall(317, 1, flags, program)
def getppid():
    ctypes.set_errno(0); libc.syscall(110); return ctypes.get_errno()
";

#[test]
fn filters_keep_their_order_and_their_threads() {
    let script = format!(
        "{PRELUDE}
libc.prctl(38, 1, 0, 0, 0)
answer = []; asked = threading.Event(); loaded = threading.Event()
def work():
    load(110, 3); loaded.set()
    asked.wait(); answer.append(getppid())
thread = threading.Thread(target=work)
load(110, 1); load(110, 2)
thread.start(); loaded.wait()
def usr(*_):
    asked.set(); thread.join(); print(getppid(), answer, flush=True)
signal.signal(signal.SIGUSR1, usr)
print('ready', flush=True)
while True: time.sleep(0.1)
"
    );
    let Some(program) = Program::python(&script, &[]) else {
        return;
    };
    let before = program.fingerprint();
    program.dump_and_restore();
    assert_eq!(program.fingerprint(), before);
    assert_eq!(program.ask(), "2 [3]");
}

#[test]
fn threads_that_shared_their_filters_still_do() {
    let script = format!(
        "{PRELUDE}
libc.prctl(38, 1, 0, 0, 0)
threading.Thread(target=time.sleep, args=[1000], daemon=True).start()
load(110, 1, 1)
def usr(*_):
    print(load(110, 4, 1), getppid(), flush=True); os._exit(0)
signal.signal(signal.SIGUSR1, usr)
print('ready', flush=True)
while True: time.sleep(0.1)
"
    );
    let Some(program) = Program::python(&script, &[]) else {
        return;
    };
    program.dump_and_restore();
    // With equal filters instead of the same ones the kernel answers with the other thread's id.
    assert_eq!(program.ask(), "0 4");
}

#[test]
fn strict_mode_ends_whoever_does_more_than_write() {
    let script = format!(
        "{PRELUDE}
r, w = os.pipe(); pid = os.fork()
if pid == 0:
    buffer = ctypes.create_string_buffer(1)
    libc.syscall(317, 0, 0, 0)
    libc.read(r, buffer, 1)
    libc.syscall(110)
def usr(*_):
    os.write(w, b'x'); print(os.waitpid(pid, 0)[1], flush=True)
signal.signal(signal.SIGUSR1, usr)
time.sleep(0.1)
print('ready', flush=True)
while True: time.sleep(0.1)
"
    );
    let Some(program) = Program::python(&script, &[]) else {
        return;
    };
    program.dump_and_restore();
    assert_eq!(program.ask(), "9");
}
