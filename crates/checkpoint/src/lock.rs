//! File locks: POSIX, flock, open file description locks and leases, as fdinfo names them.

use crate::dump::Dump;
use crate::files::Descriptor;
use crate::image::file::FileLockEntry;
use crate::restore::Task;
use crate::tape::Tape;

const FL_POSIX: u32 = 1;
const FL_FLOCK: u32 = 2;
const FL_LEASE: u32 = 32;
const FL_OFDLCK: u32 = 1024;
const F_SETLEASE: u64 = 1024;
const F_OFD_SETLK: u64 = 37;

/// Remembers the locks that this descriptor's process holds.
pub(crate) fn dump(descriptor: &Descriptor, dump: &mut Dump<'_>) {
    for line in descriptor
        .info
        .lines()
        .filter_map(|line| line.strip_prefix("lock:"))
    {
        let Some(mut lock) = parse(line) else {
            continue;
        };
        lock.fd = descriptor.number as i32;
        let process = descriptor.process.as_raw_nonzero().get();
        if lock.flag == FL_POSIX && lock.pid != process {
            continue;
        }
        lock.pid = process;
        let id = descriptor.id;
        // An open file description's lock shows on each of its descriptors.
        let known = |(other, held): &(u32, FileLockEntry)| {
            (*other, held.flag, held.r#type, held.start, held.len)
                == (id, lock.flag, lock.r#type, lock.start, lock.len)
                && (lock.flag != FL_POSIX || held.pid == lock.pid)
        };
        if !dump.locks.iter().any(known) {
            dump.locks.push((id, lock));
        }
    }
}

/// `1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF`
fn parse(line: &str) -> Option<FileLockEntry> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[_, kind, mode, access, pid, _, start, end] = words.as_slice() else {
        return None;
    };
    let flag = match kind {
        "POSIX" => FL_POSIX,
        "FLOCK" => FL_FLOCK,
        "OFDLCK" => FL_OFDLCK,
        "LEASE" => FL_LEASE,
        _ => return None,
    };
    let kind = match access {
        "READ" => libc::F_RDLCK,
        "WRITE" => libc::F_WRLCK,
        _ => libc::F_UNLCK,
    };
    let breaking = flag == FL_LEASE && mode == "BREAKING";
    let start: i64 = start.parse().ok()?;
    let len = if end == "EOF" {
        0
    } else {
        end.parse::<i64>().ok()? - start + 1
    };
    let kind = if breaking { kind | 1 << 4 } else { kind };
    Some(FileLockEntry {
        flag,
        r#type: kind as u32,
        pid: pid.parse().ok()?,
        fd: 0,
        start,
        len,
    })
}

/// The calls that take the locks of a process again, from inside it.
pub(crate) fn restore(task: &Task, locks: &[FileLockEntry], tape: &mut Tape) {
    for lock in locks.iter().filter(|lock| lock.pid == task.pid) {
        let fd = lock.fd as u64;
        match lock.flag {
            FL_FLOCK => {
                let operation = match lock.r#type as i32 {
                    libc::F_RDLCK => libc::LOCK_SH,
                    _ => libc::LOCK_EX,
                };
                let operation = (operation | libc::LOCK_NB) as u64;
                tape.call(
                    "lock descriptor",
                    lock.fd,
                    libc::SYS_flock,
                    &[fd, operation],
                );
            }
            FL_LEASE => {
                let kind = u64::from(lock.r#type & 3);
                tape.call(
                    "lease descriptor",
                    lock.fd,
                    libc::SYS_fcntl,
                    &[fd, F_SETLEASE, kind],
                );
            }
            flag => {
                let mut bytes = Vec::new();
                bytes.extend_from_slice(&u64::from(lock.r#type).to_le_bytes()[..2]);
                bytes.resize(8, 0);
                bytes.extend_from_slice(&lock.start.to_le_bytes());
                bytes.extend_from_slice(&lock.len.to_le_bytes());
                bytes.resize(32, 0);
                let bytes = tape.data(&bytes);
                let command = if flag == FL_OFDLCK {
                    F_OFD_SETLK
                } else {
                    libc::F_SETLK as u64
                };
                tape.call(
                    "lock descriptor",
                    lock.fd,
                    libc::SYS_fcntl,
                    &[fd, command, bytes],
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_each_kind() {
        for (line, flag, kind, start, len) in [
            (
                "1: POSIX  ADVISORY  WRITE 5 fe:00:1 0 EOF",
                FL_POSIX,
                libc::F_WRLCK,
                0,
                0,
            ),
            (
                "2: FLOCK  ADVISORY  READ 5 fe:00:1 0 EOF",
                FL_FLOCK,
                libc::F_RDLCK,
                0,
                0,
            ),
            (
                "3: OFDLCK ADVISORY  READ -1 fe:00:1 10 19",
                FL_OFDLCK,
                libc::F_RDLCK,
                10,
                10,
            ),
        ] {
            let lock = parse(line).unwrap();
            assert_eq!(
                (lock.flag, lock.r#type, lock.start, lock.len),
                (flag, kind as u32, start, len)
            );
        }
        assert_eq!(parse("1: POSIX"), None);
    }
}
