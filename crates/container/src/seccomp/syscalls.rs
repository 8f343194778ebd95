//! System call numbers by name and architecture.

/// A line per call, a column per architecture; see the file's own head.
const TABLE: &str = include_str!("syscalls.txt");

/// Goes through the table in the order of names. For each name of which `wanted` makes something,
/// calls `visit` with that, the index of a column, and the call's number there.
///
/// Every start of a container comes through here: each line is looked at once, and no further
/// than the last column.
pub(super) fn each<T: Copy>(
    columns: &[&str],
    mut wanted: impl FnMut(&'static str) -> Option<T>,
    mut visit: impl FnMut(T, usize, u32),
) {
    let mut lines = TABLE.lines().skip_while(|line| line.starts_with('#'));
    let heads = lines.next().unwrap_or_default().split(' ').skip(1);
    let indices: Vec<Vec<usize>> = heads
        .map(|head| {
            (0..columns.len())
                .filter(|index| columns[*index] == head)
                .collect()
        })
        .collect();
    let last = indices
        .iter()
        .rposition(|indices| !indices.is_empty())
        .map_or(0, |last| last + 1);
    for line in lines {
        let Some((name, numbers)) = line.split_once(' ') else {
            continue;
        };
        let Some(item) = wanted(name) else { continue };
        for (indices, number) in indices[..last].iter().zip(numbers.split(' ')) {
            if indices.is_empty() {
                continue;
            }
            // A dash, for a call that the architecture lacks, is no number.
            if let Ok(number) = number.parse() {
                indices.iter().for_each(|index| visit(item, *index, number));
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
        // The search for a profile's names walks both lists at once.
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
            ("x86_64", "seccomp", 317),
            ("x86_64", "futex_wake", 454),
            ("x86_64", "mseal", 462),
            ("x86", "mseal", 462),
            ("s390", "mseal", 462),
        ] {
            let mut found = Vec::new();
            each(
                &[column],
                |n| (n == name).then_some(()),
                |(), _, number| found.push(number),
            );
            assert_eq!(found, [wanted], "{column} {name}");
        }
    }
}
