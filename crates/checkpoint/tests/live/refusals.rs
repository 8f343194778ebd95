//! What cannot be dumped: one line says so, and the program runs on as if nobody had looked.
use crate::program::Program;

/// Dumps a script that must be refused with these words.
fn refused(script: &str, words: &[&str]) {
    let script = format!(
        "import ctypes, os, signal, time, mmap, struct, sys\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         {script}\n\
         signal.signal(signal.SIGUSR1, lambda *_: print('alive', flush=True))\n\
         print('ready', flush=True)\n\
         while True: time.sleep(0.1)\n"
    );
    let Some(program) = Program::python(&script, &[]) else {
        return;
    };
    if program.output().contains("SKIP") {
        crate::program::skip::<()>(program.output().trim());
        return;
    }
    let before = program.fingerprint();
    let error = checkpoint::dump(&program.images(), &program.options())
        .unwrap_err()
        .to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    for word in words.iter().chain(&[program.pid.to_string().as_str()]) {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert_eq!(program.fingerprint(), before);
    assert_eq!(program.ask(), "alive");
}

#[test]
fn io_uring_is_named() {
    let script = r"
params = ctypes.create_string_buffer(120)
fd = libc.syscall(425, 4, params)
if fd < 0: print('SKIP: the kernel allows no io_uring')
";
    let words = [
        "descriptor 3",
        "python3",
        "anon_inode:[io_uring]",
        "in flight",
    ];
    refused(script, &words);
}

#[test]
fn io_uring_that_is_only_mapped_is_named() {
    let script = r"
params = ctypes.create_string_buffer(120)
fd = libc.syscall(425, 4, params)
if fd < 0: print('SKIP: the kernel allows no io_uring')
else: ring = mmap.mmap(fd, 4096, mmap.MAP_SHARED | mmap.MAP_POPULATE); os.close(fd); os.closerange(3, 10)
";
    refused(script, &["mapping", "anon_inode:[io_uring]"]);
}

#[test]
fn userfaultfd_is_named() {
    let script = r"
fd = libc.syscall(323, os.O_CLOEXEC)
if fd < 0: print('SKIP: the kernel allows no userfaultfd')
";
    refused(script, &["descriptor 3", "userfaultfd", "close"]);
}

#[test]
fn perf_counter_and_bpf_map_are_named() {
    let script = r"
attributes = ctypes.create_string_buffer(struct.pack('IIQ', 1, 128, 0) + bytes(112))
fd = libc.syscall(298, attributes, 0, -1, -1, 0)
if fd < 0: print('SKIP: the kernel allows no perf counter')
";
    refused(script, &["perf_event", "stop measuring"]);
    let script = r"
attributes = ctypes.create_string_buffer(struct.pack('IIII', 2, 4, 8, 1) + bytes(56))
fd = libc.syscall(321, 0, attributes, 72)
if fd < 0: print('SKIP: the kernel allows no bpf map')
";
    refused(script, &["bpf-map", "close"]);
}

#[test]
fn seccomp_listener_is_named() {
    // One instruction: return SECCOMP_RET_ALLOW.
    let script = r"
allow = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 1, ctypes.addressof(allow)))
fd = libc.syscall(317, 1, 8, program)
if fd < 0: print('SKIP: the kernel has no seccomp listeners')
";
    refused(script, &["seccomp notify", "without it"]);
}

#[test]
fn vsock_and_fuse_are_named() {
    let script = r"
import socket
try: held = socket.socket(40, socket.SOCK_STREAM)
except OSError: print('SKIP: the kernel has no vsock')
";
    refused(script, &["socket:[", "between a host and its guest"]);
    let script = r"
try: held = os.open('/dev/fuse', os.O_RDWR)
except OSError: print('SKIP: the machine has no /dev/fuse')
";
    refused(script, &["/dev/fuse", "unmount"]);
}
