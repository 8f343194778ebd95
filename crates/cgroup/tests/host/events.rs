//! What a group tells of: out of memory, stalls.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cgroup::resources::{Limit, Memory};
use cgroup::watch::{MemoryLevel, Oom, Stalled, Trigger};
use cgroup::{Controller, Resources};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use super::Fixture;

#[test]
fn out_of_memory_is_noticed_and_counted() {
    let Some(mut fixture) = Fixture::new("oom") else {
        return;
    };
    fixture.group.create().unwrap();
    if fixture.group.directory(Controller::Memory).is_none() {
        println!("SKIP: no memory controller");
        return;
    }
    let limit = Some(Limit::Max(8 << 20));
    let memory = Memory {
        limit,
        swap: limit,
        ..Memory::default()
    };
    fixture
        .group
        .apply(&Resources {
            memory,
            ..Resources::default()
        })
        .unwrap();
    let mut watch = fixture.group.watch_oom().unwrap();
    assert_eq!(
        watch.take().unwrap(),
        Oom::Times(0).or_ended_where_empty(&fixture)
    );
    let mut shell = Command::new("sh")
        .args([
            "-c",
            "read go; exec dd if=/dev/zero of=/dev/null bs=64M count=1",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    fixture.group.attach(Pid::from_child(&shell)).unwrap();
    shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(!shell.wait().unwrap().success());
    let mut times = 0;
    let until = Instant::now() + Duration::from_secs(20);
    while times == 0 && Instant::now() < until {
        let wait = rustix::event::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&watch, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&wait)).unwrap();
        if let Oom::Times(more) = watch.take().unwrap() {
            times += more;
        }
    }
    assert!(times > 0);
    assert!(fixture.group.stats().unwrap().memory.unwrap().oom_kills > 0);
    fixture.group.remove().unwrap();
    assert_eq!(watch.take().unwrap(), Oom::Ended);
}

trait OrEnded {
    fn or_ended_where_empty(self, fixture: &Fixture) -> Self;
}

impl OrEnded for Oom {
    /// v2 tells at once that a group has no processes.
    fn or_ended_where_empty(self, fixture: &Fixture) -> Self {
        if fixture.group.paths().contains_key("memory") {
            self
        } else {
            Self::Ended
        }
    }
}

#[test]
fn pressure_can_be_watched() {
    let Some(mut fixture) = Fixture::new("pressure") else {
        return;
    };
    fixture.group.create().unwrap();
    let trigger = Trigger {
        resource: Stalled::Cpu,
        full: false,
        stall: Duration::from_millis(150),
        window: Duration::from_secs(2),
    };
    if fixture.group.paths().contains_key("") {
        fixture.group.watch_stall(&trigger).unwrap();
    }
    match fixture.group.watch_memory_level(MemoryLevel::Medium) {
        Ok(_) => assert!(fixture.group.paths().contains_key("memory")),
        Err(error) => {
            let text = error.to_string();
            let known = ["watch stalls", "no usable memory controller"];
            assert!(known.iter().any(|cause| text.contains(cause)), "{text}");
        }
    }
}
