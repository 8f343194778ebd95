//! The life of a container under `floe`: its monitor, its log, its restarts, its end.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use tests::{Floe, wait_until};

fn field(floe: &Floe, name: &str, key: &str) -> i32 {
    let value = floe.inspect(name)["state"][key].as_i64().expect("a number");
    i32::try_from(value).unwrap()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_detached_container_is_listed_stopped_started_and_removed() {
    let floe = Floe::new();
    let id = floe.line("run -d --name web -l tier=front -- sleep 1000").succeeds().stdout();
    let id = id.trim();
    assert_eq!(id.len(), 64);
    assert_eq!(floe.status("web"), "running");
    assert_eq!(floe.status(&id[..6]), "running", "found by the beginning of its id");
    let listed = floe.line("ps --format json").succeeds().json();
    assert_eq!(listed[0]["name"], "web");
    assert_eq!(listed[0]["labels"]["tier"], "front");
    for (filter, count) in [("name=we", 1), ("name=x", 0), ("label=tier=front", 1), ("status=exited", 0)] {
        let listed = floe.call(["ps", "--format", "json", "--filter", filter]).succeeds().json();
        assert_eq!(listed.as_array().unwrap().len(), count, "{filter}");
    }
    floe.line("rm web").exits(1).says("floe stop web");
    floe.line("run --name web -- true").exits(125).says("is taken");
    floe.line("stop -t 0 web").succeeds().prints("web\n");
    assert_eq!(field(&floe, "web", "exitCode"), 137);
    floe.line("stop web").succeeds();
    floe.line("start web").succeeds();
    floe.line("start web").succeeds();
    assert_eq!(floe.status("web"), "running");
    floe.line("rename web shop").succeeds();
    floe.line("inspect web").exits(1).says("no container");
    floe.line("rm -f shop").succeeds();
    floe.line("ps -a -q").succeeds().prints("");
}

#[test]
fn a_created_container_waits_for_its_start() {
    let floe = Floe::new();
    floe.call(["create", "--name", "c", "--", "sh", "-c", "echo ran; exit 3"]).succeeds();
    assert_eq!(floe.status("c"), "created");
    floe.line("start -a c").exits(3).prints("ran\n");
    floe.line("start c nobody").exits(1).prints("c\n").says("no container `nobody`");
}

#[test]
fn pausing_stops_the_clock_of_the_program() {
    let floe = Floe::new();
    let script = "while :; do echo tick; sleep 0.02; done";
    floe.call(["run", "-d", "--name", "p", "--", "sh", "-c", script]).succeeds();
    let lines = || floe.line("logs p").succeeds().stdout().lines().count();
    wait_until("it ticks", || lines() > 2);
    floe.line("pause p").succeeds();
    assert_eq!(floe.status("p"), "paused");
    floe.line("pause p").exits(1).says("paused");
    let before = lines();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lines(), before);
    floe.line("unpause p").succeeds();
    wait_until("it ticks again", || lines() > before);
    floe.line("pause p").succeeds();
    floe.line("stop -t 0 p").succeeds();
    assert_eq!(floe.status("p"), "exited");
}

#[test]
fn a_signal_reaches_the_program() {
    let floe = Floe::new();
    let script = "trap 'echo got; exit 4' USR1; echo ready; while :; do sleep 0.05; done";
    floe.call(["run", "-d", "--name", "k", "--", "sh", "-c", script]).succeeds();
    wait_until("it is ready", || floe.line("logs k").succeeds().stdout() == "ready\n");
    let waiter = floe.command(["wait", "k"]).stdout(Stdio::piped()).spawn().unwrap();
    floe.line("kill -s USR1 k").succeeds();
    assert_eq!(text_of(waiter), "4\n");
    floe.line("wait k").succeeds().prints("4\n");
    floe.line("logs k").succeeds().prints("ready\ngot\n");
    floe.line("kill k").exits(1).says("not running");
    floe.line("kill -s NOSUCH k").exits(125).says("NOSUCH");
}

fn text_of(child: Child) -> String {
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn logs_are_selected_followed_and_bounded() {
    let floe = Floe::new();
    // With rests: two streams have no order between them.
    let script = "seq 1 5; sleep 0.2; echo bad >&2; sleep 0.2; printf 'part\\033[2J'";
    floe.call(["run", "--name", "l", "--", "sh", "-c", script]).succeeds();
    floe.line("logs l").succeeds().prints("1\n2\n3\n4\n5\npart\u{1b}[2J").says("bad");
    floe.line("logs --tail 2 l").succeeds().prints("part\u{1b}[2J").says("bad");
    floe.line("logs --since 1h --until 30m l").succeeds().prints("");
    floe.line("logs --tail 0 l").succeeds().prints("");
    let stamped = floe.line("logs -t --since 1h l").succeeds().stdout();
    assert!(stamped.starts_with("20") && stamped.contains("Z 1\n"), "{stamped}");

    let script = "for i in $(seq 1 20); do echo $i; sleep 0.02; done";
    floe.call(["run", "-d", "--name", "f", "--", "sh", "-c", script]).succeeds();
    let numbers: String = (1..=20).map(|n| format!("{n}\n")).collect();
    floe.line("logs -f f").succeeds().prints(&numbers);

    let args = ["run", "--name", "big", "--log-size", "64k", "--", "sh", "-c", "seq 1 100000"];
    let all = floe.call(args).succeeds().stdout();
    assert_eq!(all.lines().count(), 100_000, "what is attached gets everything");
    let kept = floe.line("logs big").succeeds().stdout();
    assert!(kept.ends_with("99999\n100000\n") && kept.len() < 131_072, "{}", kept.len());
    let directory = floe.inspect("big")["paths"]["directory"].as_str().unwrap().to_owned();
    let size = |name: &str| std::fs::metadata(format!("{directory}/{name}")).unwrap().len();
    assert!(size("log") <= 65_536 && size("log.1") <= 65_536);
}

#[test]
fn a_failing_program_is_started_again_as_often_as_asked() {
    let floe = Floe::new();
    let args = ["run", "-d", "--name", "r", "--restart", "on-failure:2", "--", "sh", "-c", "echo run; exit 1"];
    floe.call(args).succeeds();
    floe.line("wait r").succeeds().prints("1\n");
    floe.line("logs r").succeeds().prints("run\nrun\nrun\n");
    assert_eq!(field(&floe, "r", "restarts"), 2);
}

#[test]
fn stop_and_update_end_restarts() {
    let floe = Floe::new();
    floe.line("run -d --name always --restart always -- sleep 0.05").succeeds();
    wait_until("it has been started again", || field(&floe, "always", "restarts") > 0);
    floe.line("stop -t 0 always").succeeds();
    assert_eq!(floe.status("always"), "exited");
    floe.line("run -d --name until --restart always -- sleep 0.2").succeeds();
    floe.line("update --restart no until").succeeds();
    floe.line("wait until").succeeds().prints("0\n");
    floe.line("run --rm --restart always -- true").exits(125).says("contradict");
}

#[test]
fn a_removed_container_leaves_nothing_whoever_removes_it() {
    let floe = Floe::new();
    floe.line("run -d --rm --name gone -- sleep 0.1").succeeds();
    wait_until("it is removed", || floe.line("ps -a -q").succeeds().stdout().is_empty());
    floe.line("run --rm --name gone -- true").succeeds();
    floe.line("run --rm --name gone -- true").succeeds();
    let names = std::fs::read_dir(floe.path("state/names")).unwrap().count();
    assert_eq!(names, 0);
}

#[test]
fn a_killed_monitor_is_noticed_and_cleaned_up_after() {
    let floe = Floe::new();
    floe.line("run -d --name m -- sleep 1000").succeeds();
    let (monitor, first) = (field(&floe, "m", "monitor"), field(&floe, "m", "pid"));
    kill(monitor);
    wait_until("it is noticed", || floe.status("m") == "exited");
    let state = floe.inspect("m")["state"].clone();
    assert_eq!(state["exitCode"], 255);
    assert!(state["error"].as_str().unwrap().contains("killed"), "{state}");
    let stat = std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "the program is gone: {stat}");
    floe.line("start m").succeeds();
    assert_eq!(floe.status("m"), "running");
}

#[test]
fn a_killed_client_leaves_the_container_running() {
    let floe = Floe::new();
    let script = "echo ready; while :; do echo more; sleep 0.01; done";
    let mut client = floe.command(["run", "--name", "c", "--", "sh", "-c", script]);
    let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
    let mut byte = [0];
    client.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(floe.status("c"), "running");
    let lines = || floe.line("logs c").succeeds().stdout().lines().count();
    let before = lines();
    wait_until("it goes on", || lines() > before);
}

#[test]
fn an_interrupt_ends_the_container() {
    let floe = Floe::new();
    let script = "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let mut client = floe.command(["run", "--rm", "--", "sh", "-c", script]);
    let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    client.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    kill_process(Pid::from_child(&client), Signal::INT).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(5));
    // A first process without a handler: the third interrupt kills.
    let mut client = floe.command(["run", "--rm", "--", "sh", "-c", "echo ready; exec sleep 1000"]);
    let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
    client.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    for _ in 0..3 {
        kill_process(Pid::from_child(&client), Signal::INT).unwrap();
        // One that is still pending swallows the next.
        std::thread::sleep(Duration::from_millis(100) * tests::slowness());
    }
    assert_eq!(client.wait().unwrap().code(), Some(137));
}

#[test]
fn exec_runs_beside_the_program() {
    let floe = Floe::new();
    floe.call(["run", "-d", "--name", "e", "-e", "A=run", "--", "sleep", "1000"]).succeeds();
    let script = "echo $A $B; pwd; id -u; echo err >&2; exit 6";
    let args = ["exec", "-e", "B=exec", "-w", "/usr", "-u", "nobody", "e", "sh", "-c", script];
    floe.call(args).exits(6).prints("run exec\n/usr\n65534\n").says("err");
    floe.feed(["exec", "-i", "e", "cat"], b"fed\n").succeeds().prints("fed\n");
    let big = vec![b'x'; 1_000_000];
    let echoed = floe.feed(["exec", "-i", "e", "cat"], &big).succeeds().stdout();
    assert_eq!(echoed.len(), big.len());
    floe.line("exec e no-such-program").exits(127).says("executable file not found");
    floe.line("exec e /etc/passwd").exits(126).says("permission denied");
    floe.call(["exec", "e", "sh", "-c", "kill -9 $$"]).exits(137);
    floe.call(["exec", "-d", "e", "touch", "/tmp/made"]).succeeds().prints("");
    wait_until("it has run", || floe.line("exec e test -e /tmp/made").code() == 0);
    floe.line("pause e").succeeds();
    floe.line("unpause e").succeeds();
    floe.line("stop -t 0 e").succeeds();
    floe.line("exec e true").exits(125).says("not running");
}

#[test]
fn a_sealed_container_is_not_entered() {
    let floe = Floe::new();
    floe.line("run -d --name s --no-enter -- sleep 1000").succeeds();
    let pid = field(&floe, "s", "pid").to_string();
    for line in [
        "exec s true".to_owned(),
        "cp s:/etc/hostname /tmp/x".to_owned(),
        "ns enter s -- true".to_owned(),
        format!("ns enter --pid {pid} -- true"),
        "ns keep --container s sealed".to_owned(),
        "run --rm --pid container:s -- true".to_owned(),
    ] {
        floe.line(&line).exits(125).says("sealed");
    }
    floe.line("stop -t 0 s").succeeds();
}

/// A command on a terminal of its own, and the terminal's other end.
fn on_terminal(floe: &Floe, args: &[&str]) -> (Child, std::fs::File) {
    let master: OwnedFd = sys::terminal::open_master().unwrap();
    let slave = sys::terminal::slave_of(&master).unwrap();
    sys::terminal::set_size(&master, 33, 77).unwrap();
    let mut command = floe.command(args.iter().copied());
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
    (command.spawn().unwrap(), master.into())
}

/// Reads until the text is there.
fn read_until(master: &mut std::fs::File, text: &str) -> String {
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    let end = Instant::now() + Duration::from_secs(10);
    while !seen.contains(text) {
        let left = end.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec::try_from(left).unwrap();
        let mut fds = [PollFd::new(master, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&left)).unwrap();
        assert!(ready > 0, "waited in vain for {text:?}: {seen:?}");
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => panic!("the terminal ended before {text:?}: {seen:?}"),
            Ok(length) => seen.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    seen
}

#[test]
fn a_terminal_is_attached_detached_and_attached_again() {
    let floe = Floe::new();
    let script = "stty size; tty; while read line; do echo \"got $line\"; done; exit 8";
    let (mut client, mut master) = on_terminal(&floe, &["run", "-it", "--name", "t", "--", "sh", "-c", script]);
    let text = read_until(&mut master, "/dev/pts/");
    assert!(text.contains("33 77"), "{text:?}");
    master.write_all(b"one\r").unwrap();
    read_until(&mut master, "got one");
    master.write_all(&[16, 17]).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(0));
    assert_eq!(floe.status("t"), "running");
    let (mut client, mut master) = on_terminal(&floe, &["attach", "t"]);
    // What is typed before it is attached waits for it.
    master.write_all(b"two\r").unwrap();
    read_until(&mut master, "got two");
    master.write_all(&[4]).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(8));
    assert!(floe.line("logs t").succeeds().stdout().contains("got two"));
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let floe = Floe::new();
    floe.line("run -d --name x -- sleep 1000").succeeds();
    let (mut client, mut master) = on_terminal(&floe, &["exec", "-it", "x", "sh", "-c", "stty size; read a; exit $a"]);
    read_until(&mut master, "33 77");
    master.write_all(b"9\r").unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(9));
}

#[test]
fn many_are_started_at_once() {
    let floe = Floe::new();
    let children: Vec<Child> = (0..24)
        .map(|number| {
            let script = format!("echo {number}");
            let mut command = floe.command(["run", "--rm", "--", "sh", "-c", &script]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        assert_eq!(text_of(child), format!("{number}\n"));
    }
}

#[test]
fn one_name_is_taken_once_however_many_want_it() {
    let floe = Floe::new();
    let children: Vec<Child> = (0..8)
        .map(|_| {
            let mut command = floe.command(["create", "--name", "same", "--", "true"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let made = children.into_iter().filter_map(|mut c| c.wait().unwrap().success().then_some(())).count();
    assert_eq!(made, 1);
    assert_eq!(floe.line("ps -a -q").succeeds().stdout().lines().count(), 1);
}

#[test]
fn what_a_killed_floe_left_is_swept() {
    let floe = Floe::new();
    floe.line("create --name kept -- true").succeeds();
    let half = floe.path("state/containers").join("ab".repeat(32));
    std::fs::create_dir_all(half.join("layer/root/etc")).unwrap();
    floe.line("ps -a -q").succeeds();
    assert!(half.exists(), "it may be in the making");
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(&half).unwrap().set_modified(old).unwrap();
    floe.line("ps -a -q").succeeds();
    assert!(!half.exists());
    // A name whose container is gone is free.
    std::os::unix::fs::symlink("cd".repeat(32), floe.path("state/names/lost")).unwrap();
    floe.line("run --rm --name lost -- true").succeeds();
    assert_eq!(floe.status("kept"), "created");
}

#[test]
fn events_tell_what_happened() {
    let floe = Floe::new();
    floe.line("run --name ev -- false").exits(1);
    floe.line("rm ev").succeeds();
    let text = floe.line("events --no-stream --format json").succeeds().stdout();
    let actions: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|event| event["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions, ["create", "start", "exit", "remove"]);
    let text = floe.line("events --no-stream --filter event=exit").succeeds().stdout();
    assert!(text.contains("code=1"), "{text}");
}

#[test]
fn a_hostile_name_or_argument_does_not_reach_the_terminal() {
    let floe = Floe::new();
    floe.call(["create", "--name", "h", "-l", "l=\u{1b}]0;x\u{7}", "--", "echo", "\u{1b}[2J"]).succeeds();
    for line in ["ps -a", "inspect --format table h"] {
        let text = floe.line(line).succeeds().stdout();
        assert!(!text.contains('\u{1b}') && text.contains("\\u{1b}"), "{text:?}");
    }
}

#[test]
fn a_waiting_monitor_is_small() {
    let floe = Floe::new();
    floe.line("run -d --name a -- sleep 1000").succeeds();
    floe.line("run -d --name b -- sleep 1000").succeeds();
    let monitor = field(&floe, "a", "monitor");
    let sum = |key: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{monitor}/smaps_rollup")).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix(key));
        lines.map(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap()).sum()
    };
    let (pss, private) = (sum("Pss:"), sum("Private_Clean:") + sum("Private_Dirty:"));
    // A program built without optimization is larger, but not by much.
    assert!(pss <= 1024 && private <= 512, "PSS {pss} KiB, of it private {private} KiB");
}
