//! timerfd_create(2).

use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};

use super::{Descriptor, new_entry, owner};
use crate::error::{Context, Error, Result};
use crate::image::event::TimerfdEntry;
use crate::image::file::{FdTypes, FileEntry};
use crate::procfs::Lines;

const ABSOLUTE: u32 = 1;

/// What fdinfo says; the value is the time that is left.
pub(crate) fn dump(descriptor: &Descriptor) -> FileEntry {
    let lines = Lines::parse(&descriptor.info);
    let pair = |key: &str| {
        let text = lines
            .text(key)
            .trim_start_matches('(')
            .trim_end_matches(')');
        let mut words = text.split(',').map(|word| word.trim().parse().unwrap_or(0));
        (words.next().unwrap_or(0), words.next().unwrap_or(0))
    };
    let (vsec, vnsec) = pair("it_value");
    let (isec, insec) = pair("it_interval");
    let mut entry = new_entry(FdTypes::Timerfd, descriptor.id);
    entry.tfd = Some(TimerfdEntry {
        id: descriptor.id,
        flags: descriptor.flags,
        fown: owner::dump(&descriptor.file),
        clockid: lines.number("clockid") as u32,
        ticks: lines.number("ticks"),
        settime_flags: lines.octal("settime flags"),
        vsec,
        vnsec,
        isec,
        insec,
    });
    entry
}

pub(crate) fn restore(entry: &TimerfdEntry) -> Result<OwnedFd> {
    let (clock, reading) = match entry.clockid {
        0 => (TimerfdClockId::Realtime, ClockId::Realtime),
        1 => (TimerfdClockId::Monotonic, ClockId::Monotonic),
        7 => (TimerfdClockId::Boottime, ClockId::Boottime),
        8 => (TimerfdClockId::RealtimeAlarm, ClockId::Realtime),
        9 => (TimerfdClockId::BoottimeAlarm, ClockId::Boottime),
        other => {
            return Err(Error::because(
                "create timerfd",
                entry.id,
                format!("no clock {other}"),
            ));
        }
    };
    let mut flags = TimerfdFlags::CLOEXEC;
    if entry.flags & libc::O_NONBLOCK as u32 != 0 {
        flags |= TimerfdFlags::NONBLOCK;
    }
    let fd = rustix::time::timerfd_create(clock, flags).during("create timerfd", entry.id)?;
    let time = |seconds: u64, nanoseconds: u64| Timespec {
        tv_sec: seconds as i64,
        tv_nsec: nanoseconds as i64,
    };
    let mut value = time(entry.vsec, entry.vnsec);
    let mut timer_flags = TimerfdTimerFlags::empty();
    if entry.settime_flags & ABSOLUTE != 0 && (entry.vsec, entry.vnsec) != (0, 0) {
        let now = rustix::time::clock_gettime(reading);
        let nanoseconds = value.tv_nsec + now.tv_nsec;
        value.tv_sec += now.tv_sec + nanoseconds / 1_000_000_000;
        value.tv_nsec = nanoseconds % 1_000_000_000;
        timer_flags |= TimerfdTimerFlags::ABSTIME;
    }
    let timer = Itimerspec {
        it_interval: time(entry.isec, entry.insec),
        it_value: value,
    };
    rustix::time::timerfd_settime(&fd, timer_flags, &timer).during("set timerfd", entry.id)?;
    if entry.ticks != 0 {
        sys::event_files::set_timerfd_ticks(&fd, entry.ticks)
            .during("set ticks of timerfd", entry.id)?;
    }
    Ok(fd)
}
