//! The process: what can be told before it is started.

use super::super::{
    Capabilities, ConsoleSize, CpuAffinity, Error, IoPriority, Process, Rlimit, Scheduler,
    SchedulerPolicy, User,
};
use super::Check;
use super::list::ranges;

pub(super) fn check(check: &mut Check, process: &Process) -> Result<(), Error> {
    if process.args.is_empty() {
        return check.refuse("args", "required");
    }
    if !process.cwd.is_absolute() {
        return check.refuse("cwd", "must be an absolute path");
    }
    for (index, variable) in process.env.iter().enumerate() {
        if variable.find('=').is_none_or(|position| position == 0) {
            return check.refuse(format!("env[{index}]"), "must be NAME=value");
        }
    }
    user(check, &process.user)?;
    if let (true, Some(size)) = (process.terminal, process.console_size) {
        console_size(check, size)?;
    }
    if let Some(score) = process.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        return check.refuse("oomScoreAdj", format!("{score} is not in -1000..1000"));
    }
    rlimits(check, &process.rlimits)?;
    if let Some(scheduler) = &process.scheduler {
        self::scheduler(check, scheduler)?;
    }
    if let Some(IoPriority { priority, .. }) = process.io_priority
        && !(0..=7).contains(&priority)
    {
        return check.refuse("ioPriority.priority", format!("{priority} is not in 0..7"));
    }
    if let Some(affinity) = &process.exec_cpu_affinity {
        self::affinity(check, affinity)?;
    }
    if let Some(capabilities) = &process.capabilities {
        self::capabilities(check, capabilities);
    }
    Ok(())
}

fn user(check: &Check, user: &User) -> Result<(), Error> {
    if user.umask.is_some_and(|umask| umask > 0o777) {
        return check.refuse("user.umask", "only permission bits");
    }
    // 4294967295 means "unchanged" to setuid(2): such a process would stay root.
    let ids = [("uid".to_owned(), user.uid), ("gid".to_owned(), user.gid)];
    let more = user.additional_gids.iter().enumerate();
    let more = more.map(|(index, gid)| (format!("additionalGids[{index}]"), *gid));
    for (field, id) in ids.into_iter().chain(more) {
        if id == u32::MAX {
            return check.refuse(format!("user.{field}"), format!("{id} is no id"));
        }
    }
    Ok(())
}

fn console_size(check: &Check, size: ConsoleSize) -> Result<(), Error> {
    for (field, value) in [("height", size.height), ("width", size.width)] {
        if value > u64::from(u16::MAX) {
            return check.refuse(
                format!("consoleSize.{field}"),
                format!("more than {}", u16::MAX),
            );
        }
    }
    Ok(())
}

/// The names of getrlimit(2).
const RLIMITS: [&str; 16] = [
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
];

fn rlimits(check: &Check, rlimits: &[Rlimit]) -> Result<(), Error> {
    for (index, limit) in rlimits.iter().enumerate() {
        let kind = limit.kind.as_str();
        if !RLIMITS.contains(&kind) {
            let cause = format!("`{kind}` is no resource limit");
            return check.refuse(format!("rlimits[{index}].type"), cause);
        }
        if rlimits[..index].iter().any(|earlier| earlier.kind == kind) {
            return check.refuse(
                format!("rlimits[{index}].type"),
                format!("`{kind}` given twice"),
            );
        }
        if limit.soft > limit.hard {
            return check.refuse(format!("rlimits[{index}].soft"), "above the hard limit");
        }
    }
    Ok(())
}

fn scheduler(check: &Check, scheduler: &Scheduler) -> Result<(), Error> {
    let s = scheduler;
    let (priority, times, nice) = match s.policy {
        SchedulerPolicy::SchedFifo | SchedulerPolicy::SchedRr => (true, false, false),
        SchedulerPolicy::SchedDeadline => (false, true, false),
        SchedulerPolicy::SchedOther | SchedulerPolicy::SchedBatch => (false, false, true),
        SchedulerPolicy::SchedIdle => (false, false, false),
        SchedulerPolicy::SchedIso => {
            return check.refuse("scheduler.policy", "no kernel has SCHED_ISO");
        }
    };
    if nice && !(-20..=19).contains(&s.nice) {
        return check.refuse("scheduler.nice", format!("{} is not in -20..19", s.nice));
    }
    if priority && !(1..=99).contains(&s.priority) {
        return check.refuse(
            "scheduler.priority",
            format!("{} is not in 1..99", s.priority),
        );
    }
    if !priority && s.priority != 0 {
        return check.refuse("scheduler.priority", "only for SCHED_FIFO and SCHED_RR");
    }
    let period = if s.period == 0 { s.deadline } else { s.period };
    if times && !(0 < s.runtime && s.runtime <= s.deadline && s.deadline <= period) {
        return check.refuse("scheduler", "must be 0 < runtime <= deadline <= period");
    }
    if !times && (s.runtime, s.deadline, s.period) != (0, 0, 0) {
        return check.refuse(
            "scheduler",
            "runtime, deadline, period are for SCHED_DEADLINE",
        );
    }
    Ok(())
}

fn affinity(check: &Check, affinity: &CpuAffinity) -> Result<(), Error> {
    for (field, list) in [("initial", &affinity.initial), ("final", &affinity.last)] {
        let Some(list) = list else { continue };
        if ranges(list).is_none_or(|ranges| ranges.is_empty()) {
            let cause = format!("`{list}` is no list of CPUs");
            return check.refuse(format!("execCPUAffinity.{field}"), cause);
        }
    }
    Ok(())
}

fn capabilities(check: &mut Check, capabilities: &Capabilities) {
    for (set, names) in [
        ("bounding", &capabilities.bounding),
        ("effective", &capabilities.effective),
        ("inheritable", &capabilities.inheritable),
        ("permitted", &capabilities.permitted),
        ("ambient", &capabilities.ambient),
    ] {
        for (index, name) in names.iter().enumerate() {
            if crate::capabilities::number(name).is_none() {
                let cause = format!("unknown capability `{name}` ignored");
                check.warn(format!("capabilities.{set}[{index}]"), cause);
            }
        }
    }
}
