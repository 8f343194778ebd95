//! Interval timers and POSIX timers.

use rustix::process::Pid;

use crate::error::Result;
use crate::image::core::{ItimerEntry, PosixTimerEntry, TaskTimersEntry};
use crate::procfs;
use crate::remote::Remote;
use crate::tape::Tape;

/// All timers of a process, with the time that is left on each.
pub(crate) fn dump(pid: Pid, remote: &Remote<'_>) -> Result<TaskTimersEntry> {
    let interval = |which: u64| -> Result<ItimerEntry> {
        let arguments = [which, remote.scratch(), 0, 0, 0, 0];
        let [isec, iusec, vsec, vusec] = remote.ask(
            "ask for an interval timer of",
            libc::SYS_getitimer,
            arguments,
        )?;
        Ok(ItimerEntry {
            isec,
            iusec,
            vsec,
            vusec,
        })
    };
    let mut posix = Vec::new();
    for timer in procfs::timers(pid)? {
        let arguments = [u64::from(timer.id), remote.scratch(), 0, 0, 0, 0];
        let [isec, insec, vsec, vnsec] =
            remote.ask("ask for a timer of", libc::SYS_timer_gettime, arguments)?;
        let id = [u64::from(timer.id), 0, 0, 0, 0, 0];
        let overrun = remote.call("ask for the overrun of", libc::SYS_timer_getoverrun, id)?;
        posix.push(PosixTimerEntry {
            it_id: timer.id,
            clock_id: timer.clock as u32,
            si_signo: timer.signal,
            it_sigev_notify: timer.notify,
            sival_ptr: timer.value,
            overrun: overrun as u32,
            isec,
            insec,
            vsec,
            vnsec,
            notify_thread_id: (timer.notify & 4 != 0).then_some(timer.target as i32),
        });
    }
    Ok(TaskTimersEntry {
        real: interval(0)?,
        virt: interval(1)?,
        prof: interval(2)?,
        posix,
    })
}

const PR_TIMER_CREATE_RESTORE_IDS: u64 = 77;

/// Creates the POSIX timers, not yet running. The threads that they signal must exist.
pub(crate) fn create(timers: &TaskTimersEntry, tape: &mut Tape) {
    if timers.posix.is_empty() {
        return;
    }
    // Since Linux 6.16 timer_create takes the wanted id from the caller.
    let object = "timer ids (needs Linux 6.16)";
    tape.call(
        "ask for fixed",
        object,
        libc::SYS_prctl,
        &[PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0],
    );
    for timer in &timers.posix {
        let mut event = [0; 64];
        event[..8].copy_from_slice(&timer.sival_ptr.to_le_bytes());
        event[8..12].copy_from_slice(&timer.si_signo.to_le_bytes());
        event[12..16].copy_from_slice(&timer.it_sigev_notify.to_le_bytes());
        let thread = timer.notify_thread_id.unwrap_or(0);
        event[16..20].copy_from_slice(&thread.to_le_bytes());
        let event = tape.data(&event);
        let id = tape.data(&timer.it_id.to_le_bytes());
        let arguments = [i64::from(timer.clock_id as i32) as u64, event, id];
        tape.call(
            "create timer",
            timer.it_id,
            libc::SYS_timer_create,
            &arguments,
        );
    }
    tape.call(
        "stop asking for fixed",
        object,
        libc::SYS_prctl,
        &[PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0],
    );
}

/// Starts all timers; the last thing before the process runs.
pub(crate) fn arm(timers: &TaskTimersEntry, tape: &mut Tape) {
    for (which, timer) in [(0, &timers.real), (1, &timers.virt), (2, &timers.prof)] {
        // A timer whose signal waits to be taken has no time left: the kernel starts it again with
        // its interval when the signal is taken, and would not know that of a new timer.
        let (vsec, vusec) = match (timer.vsec, timer.vusec) {
            (0, 0) => (timer.isec, timer.iusec),
            left => left,
        };
        if vsec != 0 || vusec != 0 {
            let value = words(&[timer.isec, timer.iusec, vsec, vusec]);
            let value = tape.data(&value);
            tape.call(
                "start interval timer",
                which,
                libc::SYS_setitimer,
                &[which, value, 0],
            );
        }
    }
    for timer in &timers.posix {
        if timer.vsec != 0 || timer.vnsec != 0 {
            let value = words(&[timer.isec, timer.insec, timer.vsec, timer.vnsec]);
            let value = tape.data(&value);
            let arguments = [u64::from(timer.it_id), 0, value, 0];
            tape.call(
                "start timer",
                timer.it_id,
                libc::SYS_timer_settime,
                &arguments,
            );
        }
    }
}

fn words(values: &[u64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
