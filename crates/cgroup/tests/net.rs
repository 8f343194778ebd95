//! Network policies for real, on loopback. One test, because it moves its own process.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that panics has failed; skips are told"
)]

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use cgroup::net::{Hook, Policy};
use cgroup::{Group, Layout, Name};

/// Removed in the end, when the test's process has gone back.
struct Fixture {
    home: Group,
    group: Group,
    inner: Group,
}

impl Fixture {
    fn new() -> Option<Self> {
        let layout = Layout::detect().unwrap();
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: not root");
            return None;
        }
        if layout.v2.as_ref().is_none_or(|v2| v2.read_only) {
            println!("ELSEWHERE: needs a v2 hierarchy");
            return None;
        }
        let text = format!("/floe-test-net-{}", std::process::id());
        let place = |rest: &str| {
            let name = Name::parse(&format!("{text}{rest}")).unwrap();
            let mut group = Group::named(&layout, &name, false);
            group.create().unwrap();
            group
        };
        // Where the process goes while no policy is to hold.
        let (group, inner, home) = (place(""), place("/inner"), place("-home"));
        Some(Self { home, group, inner })
    }

    /// Does something with sockets of the inner group.
    fn inside<T>(&self, act: impl FnOnce() -> T) -> T {
        self.inner.admit(rustix::process::getpid()).unwrap();
        let result = act();
        self.home.admit(rustix::process::getpid()).unwrap();
        result
    }

    fn set(&self, hook: Hook, text: &str) {
        self.group
            .set_policy(hook, &Policy::parse(text).unwrap())
            .unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Back to the root of each hierarchy that the layout shows.
        for directory in self.group.paths().into_values() {
            let root = directory.parent().unwrap().join("cgroup.procs");
            let _ = std::fs::write(root, std::process::id().to_string());
        }
        let _ = self.group.remove();
        let _ = self.home.remove();
    }
}

/// `ok`, `refused` by nobody listening, or `denied` by a policy.
fn word<T>(result: std::io::Result<T>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) if error.kind() == ErrorKind::PermissionDenied => "denied",
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused",
        Err(error) => panic!("{error}"),
    }
}

fn connect(address: &str) -> &'static str {
    let address: SocketAddr = address.parse().unwrap();
    word(TcpStream::connect_timeout(&address, Duration::from_secs(5)))
}

fn send(address: &str) -> &'static str {
    let own = if address.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    word(UdpSocket::bind(own).unwrap().send_to(b"x", address))
}

fn connect_udp(address: &str) -> &'static str {
    let own = if address.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    word(UdpSocket::bind(own).unwrap().connect(address))
}

#[test]
fn policies_hold_for_real_sockets() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = format!("127.0.0.1:{port}");
    let other = format!("127.0.0.2:{port}");
    let mapped = format!("[::ffff:127.0.0.1]:{port}");
    fixture.inside(|| assert_eq!(connect(&open), "ok", "without a policy"));

    fixture.set(
        Hook::Connect,
        &format!("deny; allow tcp 127.0.0.1:{port}; allow udp 127.0.0.0/8:53"),
    );
    fixture.inside(|| {
        assert_eq!(connect(&open), "ok");
        assert_eq!(connect(&mapped), "ok");
        assert_eq!(connect("127.0.0.1:1"), "denied");
        assert_eq!(connect(&other), "denied", "another address");
        assert_eq!(
            connect(&format!("[::ffff:127.0.0.2]:{port}")),
            "denied",
            "a v6 socket is no way around"
        );
        assert_eq!(connect(&format!("[::1]:{port}")), "denied");
        assert_eq!(send("127.3.3.3:53"), "ok");
        assert_eq!(send("127.3.3.3:54"), "denied");
        assert_eq!(send("[::1]:53"), "denied");
        assert_eq!(connect_udp("127.3.3.3:53"), "ok");
        assert_eq!(connect_udp("127.3.3.3:54"), "denied");
    });
    assert_eq!(
        connect("127.0.0.1:1"),
        "refused",
        "outside the group nothing changes"
    );
    assert!(fixture.group.has_policy(Hook::Connect) && !fixture.inner.has_policy(Hook::Connect));

    // A group below can be tighter, not wider.
    fixture
        .inner
        .set_policy(Hook::Connect, &Policy::parse("allow").unwrap())
        .unwrap();
    fixture.inside(|| assert_eq!(connect("127.0.0.1:1"), "denied"));
    fixture
        .inner
        .set_policy(Hook::Connect, &Policy::parse("deny").unwrap())
        .unwrap();
    fixture.inside(|| assert_eq!(connect(&open), "denied"));
    fixture
        .inner
        .set_policy(Hook::Connect, &Policy::parse("allow").unwrap())
        .unwrap();

    fixture.set(
        Hook::Connect,
        &format!(
            "allow; deny tcp 127.0.0.1 from :{}",
            port.wrapping_add(1).max(1024)
        ),
    );
    fixture.inside(|| assert_eq!(connect(&open), "ok", "from another local port"));

    binding(&fixture);
    accepting(&fixture);
    many_rules(&fixture, port);
    for hook in [Hook::Connect, Hook::Bind, Hook::Accept] {
        fixture.set(hook, "allow");
        assert!(!fixture.group.has_policy(hook));
    }
    fixture.inside(|| assert_eq!(connect("127.0.0.1:1"), "refused", "the policies are gone"));
}

fn binding(fixture: &Fixture) {
    fixture.set(Hook::Bind, "allow; deny tcp :1-1023; deny udp 127.0.0.1");
    fixture.inside(|| {
        assert_eq!(word(TcpListener::bind("127.0.0.1:1000")), "denied");
        assert_eq!(word(TcpListener::bind("[::1]:1000")), "denied");
        assert_eq!(word(TcpListener::bind("127.0.0.1:0")), "ok");
        assert_eq!(word(UdpSocket::bind("127.0.0.1:0")), "denied");
        assert_eq!(word(UdpSocket::bind("127.0.0.2:0")), "ok");
    });
}

/// Sockets that listen in the group, and peers outside it.
fn accepting(fixture: &Fixture) {
    fixture.set(Hook::Connect, "allow");
    fixture.set(Hook::Bind, "allow");
    let listener = fixture.inside(|| TcpListener::bind("[::]:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    // A refused packet is lost: the peer hears nothing.
    let reach = |address: &str| {
        let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
        let patience = Duration::from_millis(300);
        TcpStream::connect_timeout(&address, patience).is_ok()
    };
    assert!(reach("127.0.0.1") && reach("[::1]"));
    fixture.set(
        Hook::Accept,
        &format!("deny; allow tcp 127.0.0.1 from :{port}"),
    );
    assert!(reach("127.0.0.1"), "whom the policy names");
    assert!(!reach("[::1]"), "nobody else");
    fixture.set(Hook::Accept, "allow; deny tcp 127.0.0.0/8");
    assert!(!reach("127.0.0.1") && reach("[::1]"));
    fixture.set(
        Hook::Accept,
        &format!("allow; deny any from :{}", port.wrapping_add(1).max(1)),
    );
    assert!(reach("127.0.0.1"), "another port of ours");
    // Connections that are there go on, and those that the group itself makes.
    let mut there = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Those of before are still in the queue.
    while listener.accept().unwrap().1.port() != there.local_addr().unwrap().port() {}
    fixture.set(Hook::Accept, "deny");
    assert_eq!(std::io::Write::write(&mut there, b"x").unwrap(), 1);
    assert!(!reach("127.0.0.1"));
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = outside.local_addr().unwrap().to_string();
    fixture.inside(|| assert_eq!(connect(&address), "ok", "answers come in"));
    fixture.set(Hook::Accept, "allow");
}

/// Ten thousand rules load in a second, and a replacement leaves no moment without rules.
fn many_rules(fixture: &Fixture, port: u16) {
    let mut text = format!("deny; allow tcp 127.0.0.1:{port}");
    for number in 0..10_000_u32 {
        text.push_str(&format!(
            "; allow tcp 10.{}.{}.0/24:443,8000-8999",
            number / 256,
            number % 256
        ));
    }
    let policy = Policy::parse(&text).unwrap();
    let start = Instant::now();
    fixture.group.set_policy(Hook::Connect, &policy).unwrap();
    println!("10,000 rules: {:?}", start.elapsed());
    fixture.inside(|| {
        assert_eq!(connect(&format!("127.0.0.1:{port}")), "ok");
        assert_eq!(connect("127.0.0.1:1"), "denied");
    });
}
