//! Silence on the wire while a connection has no socket.
//!
//! Problem: between a dump and its restore the kernel answers every segment of a dumped connection
//! with a reset; and what arrives after a queue was read is acknowledged and lost. Solution: the
//! connections' packets are dropped from before their state is read until all sockets are there
//! again; TCP sends them once more. Rules name the four parts of a connection, and let pass what
//! bears the mark of the restore's own segments.
//!
//! The lock of a dump that ended its tree stays until the restore: rules outlive the engine.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;

use crate::error::{Context, Error, Result};
use crate::files::inet_socket::ip_address;
use crate::host;
use crate::image::socket::InetSkEntry;

/// The mark of segments that pass a lock.
pub(crate) const MARK: u32 = 0xc114;

/// How connections are kept silent between a dump and its restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkLock {
    /// With `nft` if it is installed, else with `iptables`.
    #[default]
    Auto,
    /// A table of its own, by `nft`.
    Nftables,
    /// Rules in the chains INPUT and OUTPUT, by `iptables` and `ip6tables`.
    Iptables,
    /// Not at all: somebody else keeps packets away.
    Skip,
}

impl NetworkLock {
    /// The number in the inventory.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Iptables => 0,
            Self::Auto | Self::Nftables => 1,
            Self::Skip => 2,
        }
    }

    pub(crate) fn of_number(number: Option<u32>) -> Self {
        match number {
            Some(0) => Self::Iptables,
            Some(1) => Self::Nftables,
            _ => Self::Skip,
        }
    }
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    local: (IpAddr, u16),
    peer: (IpAddr, u16),
}

impl Ends {
    pub(crate) fn of(entry: &InetSkEntry) -> Option<Self> {
        Some(Self {
            local: (ip_address(&entry.src_addr)?, entry.src_port as u16),
            peer: (ip_address(&entry.dst_addr)?, entry.dst_port as u16),
        })
    }

    fn is_v4(&self) -> bool {
        self.local.0.is_ipv4()
    }
}

/// A lock that is in place.
#[derive(Debug)]
pub(crate) struct Held {
    method: NetworkLock,
    connections: Vec<Ends>,
}

impl Held {
    /// Locks these connections.
    pub(crate) fn lock(method: NetworkLock, connections: Vec<Ends>) -> Result<Self> {
        let mut held = Self {
            method,
            connections,
        };
        if held.connections.is_empty() {
            held.method = NetworkLock::Skip;
        }
        if held.method == NetworkLock::Auto {
            held.method = if installed("nft") {
                NetworkLock::Nftables
            } else {
                NetworkLock::Iptables
            };
        }
        let result = match held.method {
            NetworkLock::Nftables => {
                // One that a restore never came for.
                held.delete_table();
                run("nft", &["-f", "-"], &table(&held.connections))
            }
            NetworkLock::Iptables => held.iptables("-I"),
            NetworkLock::Auto | NetworkLock::Skip => Ok(()),
        };
        match result {
            Ok(()) => Ok(held),
            Err(error) => {
                held.release();
                Err(error)
            }
        }
    }

    /// The lock that a dump left behind.
    pub(crate) fn of_dump(method: NetworkLock, connections: Vec<Ends>) -> Self {
        Self {
            method,
            connections,
        }
    }

    pub(crate) fn method(&self) -> NetworkLock {
        self.method
    }

    /// Unlocks; on another machine there is nothing to unlock.
    pub(crate) fn release(&mut self) {
        match std::mem::replace(&mut self.method, NetworkLock::Skip) {
            NetworkLock::Nftables => self.delete_table(),
            NetworkLock::Iptables => {
                let _ = self.iptables("-D");
            }
            NetworkLock::Auto | NetworkLock::Skip => {}
        }
    }

    fn delete_table(&self) {
        let name = table_name(&self.connections);
        let _ = run("nft", &["delete", "table", "inet", &name], "");
    }

    fn iptables(&self, action: &str) -> Result<()> {
        let mut result = Ok(());
        for ends in &self.connections {
            let program = if ends.is_v4() {
                "iptables"
            } else {
                "ip6tables"
            };
            for (chain, from, to) in [
                ("INPUT", ends.peer, ends.local),
                ("OUTPUT", ends.local, ends.peer),
            ] {
                let rule = rule(action, chain, from, to);
                let arguments: Vec<&str> = rule.iter().map(String::as_str).collect();
                let done = run(program, &arguments, "");
                if done.is_err() {
                    result = done;
                }
            }
        }
        result
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// Leaves the lock to the restore.
pub(crate) fn keep(mut held: Held) {
    held.method = NetworkLock::Skip;
}

/// A name that a restore finds again: no two trees have the same connections at one time.
fn table_name(connections: &[Ends]) -> String {
    let mut ends: Vec<String> = connections.iter().map(|ends| format!("{ends:?}")).collect();
    ends.sort();
    // FNV-1a.
    let hash = ends
        .concat()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("floe-lock-{hash:016x}")
}

/// The whole table as `nft -f` reads it.
fn table(connections: &[Ends]) -> String {
    let mut text = format!("table inet {} {{\n", table_name(connections));
    for (name, kind, v4) in [("ipv4", "ipv4_addr", true), ("ipv6", "ipv6_addr", false)] {
        let own = connections.iter().filter(|ends| ends.is_v4() == v4);
        let elements: Vec<String> = own
            .flat_map(|ends| [(ends.local, ends.peer), (ends.peer, ends.local)])
            .map(|(from, to)| format!("{} . {} . {} . {}", from.0, from.1, to.0, to.1))
            .collect();
        let _ = writeln!(
            text,
            " set {name} {{ type {kind} . inet_service . {kind} . inet_service;"
        );
        if !elements.is_empty() {
            let _ = writeln!(text, "  elements = {{ {} }}", elements.join(", "));
        }
        text.push_str(" }\n");
    }
    for hook in ["input", "output"] {
        let _ = write!(
            text,
            " chain {hook} {{ type filter hook {hook} priority -400; policy accept;\n  \
             meta mark {MARK:#x} accept\n  \
             ip saddr . tcp sport . ip daddr . tcp dport @ipv4 drop\n  \
             ip6 saddr . tcp sport . ip6 daddr . tcp dport @ipv6 drop\n }}\n"
        );
    }
    text.push_str("}\n");
    text
}

fn rule(action: &str, chain: &str, from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<String> {
    let words = format!(
        "-w {action} {chain} -p tcp -s {} --sport {} -d {} --dport {} -m mark ! --mark {MARK:#x} -j DROP",
        from.0, from.1, to.0, to.1
    );
    words.split(' ').map(str::to_owned).collect()
}

fn installed(program: &str) -> bool {
    let quiet = || Stdio::null();
    let mut command = host::command(program);
    command
        .arg("--version")
        .stdin(quiet())
        .stdout(quiet())
        .stderr(quiet());
    command.status().is_ok()
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let what = "lock the network with";
    let mut child = host::command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            let cause = format!(
                "{error}; install it, choose another way (--network-lock), or keep packets away \
                 yourself (--network-lock skip)"
            );
            Error::because(what, program, cause)
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended without reading: its status tells.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().during(what, program)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().next().unwrap_or("it says nothing").to_owned();
    Err(Error::because(what, program, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(src: &[u32], dst: &[u32]) -> InetSkEntry {
        InetSkEntry {
            src_addr: src.to_vec(),
            dst_addr: dst.to_vec(),
            src_port: 80,
            dst_port: 4000,
            ..InetSkEntry::default()
        }
    }

    #[test]
    fn both_directions_of_a_connection_are_dropped() {
        let local = u32::from_ne_bytes([127, 0, 0, 1]);
        let peer = u32::from_ne_bytes([10, 0, 0, 2]);
        let ends = Ends::of(&entry(&[local], &[peer])).unwrap();
        let text = table(&[ends]);
        let name = table_name(&[ends]);
        assert!(
            text.starts_with(&format!("table inet {name} {{\n")),
            "{text}"
        );
        let other = Ends {
            local: ends.peer,
            peer: ends.local,
        };
        assert_eq!(table_name(&[ends, other]), table_name(&[other, ends]));
        assert_ne!(table_name(&[other]), name);
        let elements = "127.0.0.1 . 80 . 10.0.0.2 . 4000, 10.0.0.2 . 4000 . 127.0.0.1 . 80";
        assert!(text.contains(elements), "{text}");
        let rule = rule("-D", "INPUT", ends.peer, ends.local).join(" ");
        let expected = "-w -D INPUT -p tcp -s 10.0.0.2 --sport 4000 -d 127.0.0.1 --dport 80 \
                        -m mark ! --mark 0xc114 -j DROP";
        assert_eq!(rule, expected);
    }

    #[test]
    fn mapped_addresses_are_ipv4_on_the_wire() {
        let mapped = [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([127, 0, 0, 1])];
        assert!(Ends::of(&entry(&mapped, &mapped)).unwrap().is_v4());
        let six = [1, 2, 3, 4];
        assert!(!Ends::of(&entry(&six, &six)).unwrap().is_v4());
        assert_eq!(Ends::of(&entry(&[], &[])), None);
    }

    #[test]
    fn numbers_of_the_inventory_survive_the_round_trip() {
        for method in [
            NetworkLock::Nftables,
            NetworkLock::Iptables,
            NetworkLock::Skip,
        ] {
            assert_eq!(NetworkLock::of_number(Some(method.number())), method);
        }
        assert_eq!(NetworkLock::of_number(None), NetworkLock::Skip);
    }
}
