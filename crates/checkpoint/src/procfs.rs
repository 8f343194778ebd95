//! What `/proc` says about a process, parsed. All parsers are pure; the readers take a pid.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Pid;

use crate::error::{Context, Error, Result};

/// Set in a process whose working directory is a procfs of its own, attached nowhere.
static PRIVATE: AtomicBool = AtomicBool::new(false);

/// What stands for `/proc`. The engine inside a container does not trust what is mounted there.
pub(crate) fn root() -> &'static str {
    if PRIVATE.load(Ordering::Relaxed) {
        "."
    } else {
        "/proc"
    }
}

/// From now on the working directory is the root of a procfs.
pub(crate) fn is_working_directory() {
    PRIVATE.store(true, Ordering::Relaxed);
}

/// Reads `/proc/PID/NAME` as text (bytes that are not UTF-8 are replaced).
pub(crate) fn read(pid: Pid, name: &str) -> Result<String> {
    let path = format!("{}/{}/{name}", root(), pid.as_raw_nonzero());
    let bytes = std::fs::read(&path).during("read", &path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The numbers in the directory `/proc/PID/NAME`, in order.
pub(crate) fn numbers_in(pid: Pid, name: &str) -> Result<Vec<i32>> {
    let path = format!("{}/{}/{name}", root(), pid.as_raw_nonzero());
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(&path).during("list", &path)? {
        let name = entry.during("list", &path)?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// `/proc/PID/stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) comm: String,
    pub(crate) state: char,
    pub(crate) ppid: i32,
    pub(crate) pgid: i32,
    pub(crate) sid: i32,
    /// The controlling terminal: major << 8 | minor.
    pub(crate) tty: i32,
    pub(crate) tty_group: i32,
    pub(crate) flags: u32,
    pub(crate) nice: i32,
    pub(crate) start_code: u64,
    pub(crate) end_code: u64,
    pub(crate) start_stack: u64,
    pub(crate) rt_priority: u32,
    pub(crate) start_data: u64,
    pub(crate) end_data: u64,
    pub(crate) start_brk: u64,
    pub(crate) arg_start: u64,
    pub(crate) arg_end: u64,
    pub(crate) env_start: u64,
    pub(crate) env_end: u64,
    pub(crate) exit_code: u32,
}

impl Stat {
    pub(crate) fn of(pid: Pid) -> Result<Self> {
        let text = read(pid, "stat")?;
        Self::parse(&text)
            .ok_or_else(|| Error::because("read", format!("/proc/{pid}/stat"), "unknown form"))
    }

    pub(crate) fn of_thread(pid: Pid, tid: Pid) -> Result<Self> {
        let text = read(pid, &format!("task/{tid}/stat"))?;
        Self::parse(&text).ok_or_else(|| {
            Error::because(
                "read",
                format!("/proc/{pid}/task/{tid}/stat"),
                "unknown form",
            )
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let comm = head.split_once('(')?.1.to_owned();
        // Field 3 (proc_pid_stat(5)) is fields[0].
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let long = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let int = |number: usize| fields.get(number - 3)?.parse::<i32>().ok();
        Some(Self {
            comm,
            state: fields.first()?.chars().next()?,
            ppid: int(4)?,
            pgid: int(5)?,
            sid: int(6)?,
            tty: int(7)?,
            tty_group: int(8)?,
            flags: long(9)? as u32,
            nice: int(19)?,
            start_code: long(26)?,
            end_code: long(27)?,
            start_stack: long(28)?,
            rt_priority: long(40)? as u32,
            start_data: long(45)?,
            end_data: long(46)?,
            start_brk: long(47)?,
            arg_start: long(48)?,
            arg_end: long(49)?,
            env_start: long(50)?,
            env_end: long(51)?,
            exit_code: long(52)? as u32,
        })
    }
}

/// The lines of `/proc/PID/status` or of a fdinfo file: `Key:\tvalue`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(HashMap<String, String>);

impl Lines {
    /// `/proc/PID/task/TID/status`.
    pub(crate) fn status(pid: Pid, tid: Pid) -> Result<Self> {
        Ok(Self::parse(&read(pid, &format!("task/{tid}/status"))?))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let pair = |line: &str| {
            let (key, value) = line.split_once(':')?;
            Some((key.to_owned(), value.trim().to_owned()))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub(crate) fn hex(&self, key: &str) -> u64 {
        u64::from_str_radix(self.text(key), 16).unwrap_or(0)
    }

    pub(crate) fn octal(&self, key: &str) -> u32 {
        u32::from_str_radix(self.text(key), 8).unwrap_or(0)
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or(0)
    }

    pub(crate) fn numbers(&self, key: &str) -> Vec<u32> {
        self.text(key)
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    }
}

/// One mapping of `/proc/PID/smaps`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// `PROT_*`.
    pub(crate) protection: u32,
    pub(crate) shared: bool,
    pub(crate) offset: u64,
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    /// As `/proc` prints it: empty for anonymous memory.
    pub(crate) name: String,
    /// The two-letter words of `VmFlags`.
    pub(crate) flags: Vec<String>,
    /// Kilobytes in memory or swap, without pages of hugetlb.
    pub(crate) populated: u64,
    /// Bytes of a page that faults bring in (`KernelPageSize`); 0: not asked for.
    pub(crate) page_size: u64,
}

impl Mapping {
    pub(crate) fn length(&self) -> u64 {
        self.end - self.start
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|word| word == flag)
    }

    pub(crate) fn is_vdso(&self) -> bool {
        self.name == "[vdso]"
    }

    /// The kernel's data pages before the vdso (`[vvar]`, `[vvar_vclock]`).
    pub(crate) fn is_vvar(&self) -> bool {
        self.name.starts_with("[vvar")
    }
}

/// All mappings of a process with their flags.
pub(crate) fn mappings(pid: Pid) -> Result<Vec<Mapping>> {
    parse_mappings(&read(pid, "smaps")?)
        .ok_or_else(|| Error::because("read", format!("/proc/{pid}/smaps"), "unknown form"))
}

/// All mappings of a process, without flags: much cheaper.
pub(crate) fn plain_mappings(pid: Pid) -> Result<Vec<Mapping>> {
    parse_mappings(&read(pid, "maps")?)
        .ok_or_else(|| Error::because("read", format!("/proc/{pid}/maps"), "unknown form"))
}

fn parse_mappings(text: &str) -> Option<Vec<Mapping>> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            all.push(parse_mapping(line, start, end)?);
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            all.last_mut()?.flags = flags.split_whitespace().map(str::to_owned).collect();
        } else if let Some((key, value)) = line.split_once(':') {
            let kilobytes = |value: &str| value.trim().trim_end_matches(" kB").parse::<u64>().ok();
            match key {
                "Rss" | "Swap" => all.last_mut()?.populated += kilobytes(value)?,
                "KernelPageSize" => all.last_mut()?.page_size = kilobytes(value)? << 10,
                _ => {}
            }
        }
    }
    Some(all)
}

fn parse_mapping(line: &str, start: &str, end: &str) -> Option<Mapping> {
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let mut words = line.splitn(6, ' ');
    words.next()?;
    let permissions = words.next()?.as_bytes();
    let offset = hex(words.next()?)?;
    let (major, minor) = words.next()?.split_once(':')?;
    let inode = words.next()?.parse().ok()?;
    let bits = [
        (0, b'r', libc::PROT_READ),
        (1, b'w', libc::PROT_WRITE),
        (2, b'x', libc::PROT_EXEC),
    ];
    let protection = bits
        .iter()
        .filter(|(at, letter, _)| permissions.get(*at) == Some(letter))
        .fold(0, |sum, (_, _, bit)| sum | *bit as u32);
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        protection,
        shared: permissions.get(3) == Some(&b's'),
        offset,
        device: (hex(major)? as u32, hex(minor)? as u32),
        inode,
        name: words.next().unwrap_or_default().trim_start().to_owned(),
        ..Mapping::default()
    })
}

/// `/proc/PID/limits`: soft and hard, in the order of the `RLIMIT_*` numbers.
pub(crate) fn limits(pid: Pid) -> Result<Vec<(u64, u64)>> {
    Ok(parse_limits(&read(pid, "limits")?))
}

fn parse_limits(text: &str) -> Vec<(u64, u64)> {
    let value = |word: &str| word.parse().unwrap_or(u64::MAX);
    let pair = |line: &str| {
        let mut words = line.get(26..)?.split_whitespace();
        Some((value(words.next()?), value(words.next()?)))
    };
    text.lines().skip(1).filter_map(pair).collect()
}

/// A POSIX timer as `/proc/PID/timers` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timer {
    pub(crate) id: u32,
    pub(crate) signal: u32,
    pub(crate) value: u64,
    /// `SIGEV_*`, with `SIGEV_THREAD_ID` as a bit.
    pub(crate) notify: u32,
    /// The thread (or process) that gets the signal.
    pub(crate) target: u32,
    pub(crate) clock: i32,
}

/// All POSIX timers of a process.
pub(crate) fn timers(pid: Pid) -> Result<Vec<Timer>> {
    parse_timers(&read(pid, "timers")?)
        .ok_or_else(|| Error::because("read", format!("/proc/{pid}/timers"), "unknown form"))
}

fn parse_timers(text: &str) -> Option<Vec<Timer>> {
    let mut all: Vec<Timer> = Vec::new();
    for line in text.lines() {
        let (key, value) = line.split_once(':')?;
        let value = value.trim();
        match key {
            "ID" => all.push(Timer {
                id: value.parse().ok()?,
                ..Timer::default()
            }),
            "signal" => {
                let (signal, pointer) = value.split_once('/')?;
                let timer = all.last_mut()?;
                timer.signal = signal.parse().ok()?;
                timer.value = u64::from_str_radix(pointer.trim_start_matches("0x"), 16).ok()?;
            }
            "notify" => {
                let (how, who) = value.split_once('/')?;
                let timer = all.last_mut()?;
                timer.notify = match how {
                    "signal" => 0,
                    "none" => 1,
                    _ => 2,
                };
                let (kind, number) = who.split_once('.')?;
                timer.target = number.parse().ok()?;
                if kind == "tid" {
                    timer.notify |= 4;
                }
            }
            "ClockID" => all.last_mut()?.clock = value.parse().ok()?,
            _ => {}
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_hostile_comm() {
        let tail = (5..=52)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        let stat = Stat::parse(&format!("7 (a) R (b) S 4 {tail}")).unwrap();
        assert_eq!(
            (stat.comm.as_str(), stat.state, stat.ppid),
            ("a) R (b", 'S', 4)
        );
        assert_eq!(
            (stat.pgid, stat.sid, stat.nice, stat.exit_code),
            (5, 6, 19, 52)
        );
    }

    #[test]
    fn mappings_keep_names_with_spaces() {
        let text = "00400000-00452000 r-xp 00001000 08:02 173521      /a b (deleted)\n\
                    Size:  8 kB\nKernelPageSize:        4 kB\nRss:    4 kB\nSwap:   8 kB\nVmFlags: rd ex mr \n\
                    7ffc00000000-7ffc00021000 rw-s 00000000 00:00 0 \n";
        let all = parse_mappings(text).unwrap();
        assert_eq!(
            (all[0].start, all[0].end, all[0].protection),
            (0x40_0000, 0x45_2000, 5)
        );
        assert_eq!(
            (all[0].name.as_str(), all[0].device),
            ("/a b (deleted)", (8, 2))
        );
        assert!(all[0].has("ex") && !all[0].shared);
        assert_eq!((all[0].page_size, all[0].populated), (4096, 12));
        assert_eq!(
            (all[1].name.as_str(), all[1].shared, all[1].protection),
            ("", true, 3)
        );
    }

    #[test]
    fn limits_in_order() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            20000                20001                files     \n";
        assert_eq!(parse_limits(text), [(u64::MAX, u64::MAX), (20000, 20001)]);
    }

    #[test]
    fn timers_of_each_kind() {
        let text = "ID: 3\nsignal: 60/00007fff86e452a8\nnotify: signal/pid.2634\nClockID: 0\n\
                    ID: 4\nsignal: 10/0\nnotify: signal/tid.27\nClockID: 1\n";
        let timers = parse_timers(text).unwrap();
        assert_eq!(
            (timers[0].id, timers[0].signal, timers[0].notify),
            (3, 60, 0)
        );
        assert_eq!(timers[0].value, 0x7fff_86e4_52a8);
        assert_eq!(
            (timers[1].notify, timers[1].target, timers[1].clock),
            (4, 27, 1)
        );
    }
}
