//! System call numbers by name and architecture.

/// A line per call, a column per architecture; see the file's own head.
const TABLE: &str = include_str!("syscalls.txt");

/// Calls `visit(name, column index, number)` for each named call that an architecture has, in the
/// table's order. `columns` are the architectures' columns.
pub(super) fn each<'a>(
    columns: &[&str],
    mut named: impl FnMut(&str) -> bool,
    mut visit: impl FnMut(&'a str, usize, u32),
) {
    let mut lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let heads: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split(' ')
        .skip(1)
        .collect();
    for line in lines {
        let Some((name, numbers)) = line.split_once(' ') else {
            continue;
        };
        if !named(name) {
            continue;
        }
        for (head, number) in heads.iter().zip(numbers.split(' ')) {
            let wanted = columns
                .iter()
                .enumerate()
                .filter(|(_, column)| *column == head);
            // A dash, for a call that the architecture lacks, is no number.
            if let Ok(number) = number.parse() {
                wanted.for_each(|(index, _)| visit(name, index, number));
            }
        }
    }
}

/// The call within `socketcall` or `ipc` that is this one: the multiplexer's name, and the number
/// in its first argument (linux/net.h, linux/ipc.h).
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u32)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u32); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let socket = SOCKET.iter().zip(1..).find(|(known, _)| **known == name);
    let socket = socket.map(|(_, number)| ("socketcall", number));
    let ipc = || {
        IPC.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| ("ipc", *number))
    };
    socket.or_else(ipc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_every_column_and_the_names_are_sorted() {
        let lines: Vec<&str> = TABLE
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        let width = lines[0].split(' ').count();
        assert!(lines.iter().all(|line| line.split(' ').count() == width));
        assert!(lines[1..].is_sorted_by(|a, b| a.split(' ').next() < b.split(' ').next()));
    }

    #[test]
    fn well_known_numbers_are_right() {
        for (column, name, wanted) in [
            ("x86_64", "execve", 59),
            ("x86", "execve", 11),
            ("x32", "execve", 520),
            ("aarch64", "execve", 221),
            ("arm", "execve", 11),
            ("arm", "set_tls", 983_045),
            ("riscv64", "execve", 221),
            ("ppc64", "execve", 11),
            ("s390x", "execve", 11),
            ("mips64", "execve", 5057),
            ("x86_64", "mseal", 462),
            ("x86", "mseal", 462),
            ("s390", "mseal", 462),
        ] {
            let mut found = Vec::new();
            each(&[column], |n| n == name, |_, _, number| found.push(number));
            assert_eq!(found, [wanted], "{column} {name}");
        }
    }

    /// The table's native column against the C library's constants.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_native_column_agrees_with_the_c_library() {
        let mut seen = 0;
        each(
            &["x86_64"],
            |_| true,
            |name, _, number| {
                let known = [
                    ("read", 0),
                    ("clone", 56),
                    ("openat", 257),
                    ("seccomp", 317),
                    ("clone3", 435),
                    ("futex_wake", 454),
                ];
                if let Some((_, wanted)) = known.iter().find(|(known, _)| *known == name) {
                    assert_eq!(number, *wanted, "{name}");
                    seen += 1;
                }
            },
        );
        assert_eq!(seen, 6);
    }
}
