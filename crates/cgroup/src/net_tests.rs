use super::program::{Maps, assemble, longest};
use super::*;

fn attempt(text: &str) -> Attempt {
    // `tcp 10.0.0.1 443 from 0`
    let words: Vec<&str> = text.split(' ').collect();
    Attempt {
        protocol: match words[0] {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => Protocol::Other,
        },
        address: words[1].parse().unwrap(),
        port: words[2].parse().unwrap(),
        local_port: words.get(4).map_or(0, |port| port.parse().unwrap()),
    }
}

/// A machine for the instructions that the assembler has: registers hold numbers; addresses are
/// numbers in regions of their own, so that the program reaches nothing else.
struct Machine<'a> {
    registers: [u64; 11],
    stack: [u8; 64],
    context: [u8; 192],
    socket: [u8; 80],
    packet: Vec<u8>,
    value: [u8; 4],
    maps: &'a Maps,
}

const STACK_END: u64 = 0x1_0000;
const CONTEXT: u64 = 0x2_0000;
const SOCKET: u64 = 0x3_0000;
const VALUE: u64 = 0x4_0000;

impl Machine<'_> {
    fn bytes(&mut self, address: u64, length: usize) -> &mut [u8] {
        let (region, start): (&mut [u8], u64) = match address {
            CONTEXT.. if address < SOCKET => (&mut self.context, CONTEXT),
            SOCKET.. if address < VALUE => (&mut self.socket, SOCKET),
            VALUE.. => (&mut self.value, VALUE),
            _ => (&mut self.stack, STACK_END - 64),
        };
        let at = usize::try_from(address - start).unwrap();
        &mut region[at..at + length]
    }

    fn load(&mut self, address: u64, length: usize) -> u64 {
        let mut number = [0; 8];
        number[..length].copy_from_slice(self.bytes(address, length));
        u64::from_le_bytes(number)
    }

    fn call(&mut self, helper: i32) {
        match helper {
            1 => self.look_up(),
            26 => {
                let (from, to) = (self.registers[2] as usize, self.registers[3]);
                let length = self.registers[4] as usize;
                let bytes = self.packet.get(from..from + length).map(<[u8]>::to_vec);
                self.registers[0] = u64::from(bytes.is_none());
                if let Some(bytes) = bytes {
                    self.bytes(to, length).copy_from_slice(&bytes);
                }
            }
            95 => self.registers[0] = self.registers[1],
            other => panic!("no helper {other}"),
        }
        // A call loses these, as the verifier sees it.
        self.registers[1..6].fill(0xdead);
    }

    fn look_up(&mut self) {
        let (map, key) = (self.registers[1], self.registers[2]);
        let maps = self.maps;
        let found = if map == 3 {
            longest(&maps.addresses, self.bytes(key, 24))
        } else {
            longest(&maps.ports, self.bytes(key, 10))
        };
        self.registers[0] = 0;
        if let Some(value) = found {
            (self.value, self.registers[0]) = (*value, VALUE);
        }
    }

    fn run(&mut self, code: &[u64]) -> u64 {
        let mut at = 0;
        for _ in 0..1000 {
            let word = code[at];
            let (opcode, into, from) = (word as u8, word >> 8 & 15, word >> 12 & 15);
            let (into, from) = (into as usize, from as usize);
            let (offset, value) = ((word >> 16) as u16 as i16, (word >> 32) as u32 as i32);
            at += 1;
            let place = |base: u64| base.wrapping_add_signed(i64::from(offset));
            let extended = i64::from(value) as u64;
            match opcode {
                0x61 => self.registers[into] = self.load(place(self.registers[from]), 4),
                0x79 => self.registers[into] = self.load(place(self.registers[from]), 8),
                0x71 => self.registers[into] = self.load(place(self.registers[from]), 1),
                0x63 | 0x6b => {
                    let length = if opcode == 0x63 { 4 } else { 2 };
                    let number = self.registers[from].to_le_bytes();
                    assert_eq!(offset % length as i16, 0, "aligned");
                    self.bytes(place(self.registers[into]), length)
                        .copy_from_slice(&number[..length]);
                }
                0x18 => {
                    let high = code[at] >> 32;
                    self.registers[into] = u64::from(value as u32) | high << 32;
                    at += 1;
                }
                0x07 => self.registers[into] = self.registers[into].wrapping_add(extended),
                0x57 => self.registers[into] &= extended,
                0x67 => self.registers[into] <<= extended,
                0xb7 => self.registers[into] = extended,
                0xbf => self.registers[into] = self.registers[from],
                0xdc => self.registers[into] = u64::from((self.registers[into] as u16).to_be()),
                0x85 => self.call(value),
                0x15 if self.registers[into] == extended => at += offset as usize,
                0x45 if self.registers[into] & extended != 0 => at += offset as usize,
                0x55 if self.registers[into] != extended => at += offset as usize,
                0x05 => at += offset as usize,
                0x15 | 0x45 | 0x55 => {}
                0x95 => return self.registers[0],
                other => panic!("no instruction {other:#x}"),
            }
        }
        panic!("no end")
    }
}

/// What the program of connections says of an attempt.
fn executed(policy: &Policy, maps: &Maps, attempt: &Attempt) -> bool {
    let mut machine = Machine::new(maps, attempt);
    match attempt.address {
        IpAddr::V4(address) => machine.put(4, &address.octets()),
        IpAddr::V6(address) => machine.put(8, &address.octets()),
    }
    machine.put(24, &attempt.port.to_be_bytes());
    machine.put(36, &number(attempt.protocol).to_le_bytes());
    machine.put(64, &SOCKET.to_le_bytes());
    let v6 = attempt.address.is_ipv6();
    machine.run(&assemble(Hook::Connect, v6, policy.allow, [3, 4])) == 1
}

/// What the program of packets says of the same attempt, made from the other side.
fn accepted(policy: &Policy, maps: &Maps, attempt: &Attempt, options: usize) -> bool {
    let mut machine = Machine::new(maps, attempt);
    let mut packet = match attempt.address {
        IpAddr::V4(address) => {
            let mut header = vec![0x45 + options as u8, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0];
            header.extend(address.octets());
            header.resize(20 + 4 * options, 0);
            header
        }
        IpAddr::V6(address) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 20, if options == 0 { 6 } else { 60 }, 64];
            header.extend(address.octets());
            header.resize(40 + 8 * options, 0);
            header
        }
    };
    packet.extend(attempt.port.to_be_bytes());
    packet.resize(packet.len() + 18, 0);
    machine.packet = packet;
    let kind: u16 = if attempt.address.is_ipv4() {
        0x0800
    } else {
        0x86dd
    };
    machine.put(16, &kind.to_be_bytes());
    machine.put(168, &SOCKET.to_le_bytes());
    machine.run(&assemble(Hook::Accept, false, policy.allow, [3, 4])) == 1
}

fn number(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Other => 132,
    }
}

impl<'a> Machine<'a> {
    /// With a socket that listens at the attempt's local port.
    fn new(maps: &'a Maps, attempt: &Attempt) -> Self {
        let mut machine = Self {
            registers: [0; 11],
            stack: [0xaa; 64],
            context: [0; 192],
            socket: [0; 80],
            packet: Vec::new(),
            value: [0; 4],
            maps,
        };
        machine.registers[1] = CONTEXT;
        machine.registers[10] = STACK_END;
        machine.socket[12..16].copy_from_slice(&number(attempt.protocol).to_le_bytes());
        machine.socket[44..48].copy_from_slice(&u32::from(attempt.local_port).to_le_bytes());
        machine.socket[72] = 10;
        machine
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.context[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// The three ways of saying it agree.
fn agreed(policy: &Policy, attempt: &Attempt) -> bool {
    let tables = Tables::of(policy);
    let maps = Maps::of(&tables);
    let says = policy.allows(attempt);
    assert_eq!(tables.allows(attempt), says, "tables: {policy} {attempt:?}");
    let executed_says = executed(policy, &maps, attempt);
    assert_eq!(executed_says, says, "program: {policy} {attempt:?}");
    let accepted_says = accepted(policy, &maps, attempt, 0);
    assert_eq!(accepted_says, says, "packets: {policy} {attempt:?}");
    if attempt.address.is_ipv4() {
        assert_eq!(
            accepted(policy, &maps, attempt, 3),
            says,
            "with options: {policy} {attempt:?}"
        );
    }
    says
}

#[test]
fn policies_are_read_and_written() {
    for (text, written) in [
        ("", "allow"),
        ("deny", "deny"),
        (
            "deny; allow tcp 10.0.0.0/8:443,8000-8999; allow udp 10.0.0.53:53",
            "deny; allow tcp 10.0.0.0/8:443; allow tcp 10.0.0.0/8:8000-8999; allow udp 10.0.0.53/32:53",
        ),
        ("deny tcp :1-1023", "allow; deny tcp :1-1023"),
        (
            "deny; allow tcp 192.168.0.0/16 from :80",
            "deny; allow tcp 192.168.0.0/16 from :80",
        ),
        ("allow any [fd00::/8]:53", "allow; allow any [fd00::/8]:53"),
        ("deny any fd00::1", "allow; deny any [fd00::1/128]"),
        ("deny any 10.1.2.3/8", "allow; deny any 10.0.0.0/8"),
        ("deny any", "allow; deny any"),
    ] {
        let policy = Policy::parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(policy.to_string(), written, "{text}");
        assert_eq!(
            Policy::parse(written).unwrap(),
            policy,
            "{text} is read back"
        );
    }
    for text in [
        "maybe",
        "allow icmp",
        "allow tcp; deny",
        "deny tcp 10.0.0.0/33",
        "deny tcp 10.0.0.1:0-70000",
        "deny tcp :9-1",
        "deny tcp :",
        "deny tcp 1.2.3.4 from",
        "deny tcp 1.2.3.4 from 80",
        "deny tcp [::1",
        "deny tcp ::1/129",
        "deny tcp 1.2.3.4 to :80",
        "deny tcp host:80",
    ] {
        assert!(Policy::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_longest_prefix_decides() {
    let policy = "deny; allow tcp 10.0.0.0/8:443; deny tcp 10.9.0.0/16; allow tcp 10.9.9.9:80-90; \
                  allow udp :53; allow any [fd00::/8]; allow tcp 192.168.0.0/16 from :80; \
                  deny tcp 10.0.0.7:443; allow tcp 10.0.0.7:443";
    let policy = Policy::parse(policy).unwrap();
    for (text, expected) in [
        ("tcp 10.1.1.1 443", true),
        ("tcp 10.1.1.1 444", false),
        ("udp 10.1.1.1 443", false),
        ("tcp 10.9.1.1 443", false),
        ("tcp 10.9.9.9 443", false),
        ("tcp 10.9.9.9 80", true),
        ("tcp 10.9.9.9 91", false),
        ("udp 8.8.8.8 53", true),
        ("udp 2001:db8::1 53", true),
        ("tcp fd12::1 9", true),
        ("sctp fd12::1 9", true),
        ("sctp 10.1.1.1 443", false),
        // A v4 address in a v6 socket is no way around.
        ("tcp ::ffff:10.1.1.1 443", true),
        ("tcp ::ffff:10.9.1.1 443", false),
        ("tcp 192.168.1.1 5000 from 80", true),
        ("tcp 192.168.1.1 5000 from 81", false),
        ("tcp 192.168.1.1 5000", false),
        // Of equals the last.
        ("tcp 10.0.0.7 443", true),
        ("tcp 10.0.0.7 65535", false),
        ("udp 0.0.0.0 53", true),
    ] {
        assert_eq!(agreed(&policy, &attempt(text)), expected, "{text}");
    }
}

/// Numbers that repeat from run to run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

#[test]
fn evaluator_tables_and_program_agree() {
    let addresses = [
        "10.0.0.1",
        "10.0.1.1",
        "10.1.0.1",
        "11.0.0.1",
        "fd00::1",
        "fd00:1::1",
        "::ffff:10.0.0.1",
        "0.0.0.0",
    ];
    let lengths = ["", "/0", "/8", "/15", "/16", "/24", "/31"];
    let ports = [0, 1, 79, 80, 81, 443, 1023, 1024, 65535];
    let mut numbers = Numbers(7);
    for round in 0..300 {
        let mut text = numbers.pick(&["allow", "deny"]).to_owned();
        for _ in 0..numbers.below(8) {
            let range = |numbers: &mut Numbers| {
                let (a, b) = (numbers.pick(&ports), numbers.pick(&ports));
                format!("{}-{}", a.min(b), a.max(b))
            };
            let mut place = String::new();
            if numbers.below(4) > 0 {
                let address = numbers.pick(&addresses);
                place = format!("{address}{}", numbers.pick(&lengths));
                if address.contains("::") {
                    place = format!("[{place}]");
                }
            }
            if numbers.below(3) > 0 {
                place = format!("{place}:{}", range(&mut numbers));
            }
            if numbers.below(3) == 0 {
                place = format!("{place} from :{}", range(&mut numbers));
            }
            let (verdict, protocol) = (
                numbers.pick(&["allow", "deny"]),
                numbers.pick(&["tcp", "udp", "any"]),
            );
            text = format!("{text}; {verdict} {protocol} {place}");
        }
        let policy = Policy::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        for _ in 0..20 {
            let attempt = Attempt {
                protocol: numbers.pick(&[Protocol::Tcp, Protocol::Udp, Protocol::Other]),
                address: numbers.pick(&addresses).parse().unwrap(),
                port: numbers.pick(&ports),
                local_port: numbers.pick(&ports),
            };
            let _ = agreed(&policy, &attempt);
        }
        assert!(round < 300);
    }
}

#[test]
fn ten_thousand_rules_are_few_tables() {
    let mut text = String::from("deny");
    for number in 0..10_000_u32 {
        let port = if number.is_multiple_of(2) {
            "443"
        } else {
            "8000-8999"
        };
        text.push_str(&format!(
            "; allow tcp 10.{}.{}.0/24:{port}",
            number / 256,
            number % 256
        ));
    }
    let policy = Policy::parse(&text).unwrap();
    let start = std::time::Instant::now();
    let tables = Tables::of(&policy);
    assert_eq!(tables.addresses.len(), 10_000);
    assert!(tables.ports.len() < 100, "{}", tables.ports.len());
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    assert!(tables.allows(&attempt("tcp 10.3.2.9 443")));
    assert!(!tables.allows(&attempt("tcp 10.3.3.9 443")));
}

#[test]
fn packets_for_nobody_who_listens_pass() {
    let policy = Policy::parse("deny").unwrap();
    let maps = Maps::of(&Tables::of(&policy));
    let attempt = attempt("tcp fd00::1 80 from 80");
    let code = assemble(Hook::Accept, false, policy.allow, [3, 4]);
    let run = |change: &dyn Fn(&mut Machine<'_>)| {
        let mut machine = Machine::new(&maps, &attempt);
        machine.put(16, &0x86dd_u16.to_be_bytes());
        machine.put(168, &SOCKET.to_le_bytes());
        machine.packet = vec![0; 60];
        machine.packet[6] = 6;
        change(&mut machine);
        machine.run(&code)
    };
    assert_eq!(run(&|_| ()), 0);
    assert_eq!(
        run(&|machine| machine.socket[72] = 1),
        1,
        "a connection that is there"
    );
    assert_eq!(run(&|machine| machine.put(168, &[0; 8])), 1, "no socket");
    assert_eq!(
        run(&|machine| machine.put(16, &[0x08, 0x06])),
        1,
        "neither v4 nor v6"
    );
    // Attack: headers between, so that the port is elsewhere; and a packet that is too short.
    let open = Policy::parse("allow").unwrap();
    let maps = Maps::of(&Tables::of(&open));
    assert!(!accepted(&open, &maps, &attempt, 1));
    let mut machine = Machine::new(&maps, &attempt);
    machine.put(16, &0x86dd_u16.to_be_bytes());
    machine.put(168, &SOCKET.to_le_bytes());
    machine.packet = vec![0; 20];
    assert_eq!(machine.run(&assemble(Hook::Accept, false, true, [3, 4])), 0);
}
