//! Which peers and ports the sockets of a group may use.
//!
//! A [`Policy`] is a default and rules `allow|deny PROTO [PREFIX][:PORTS] [from :PORTS]`. The rule
//! with the longest prefix decides; among those the one with the fewest ports, then the one with
//! the fewest local ports, then the last. [`Policy::allows`] says so in plain Rust. [`Tables`] say
//! the same as longest-prefix tables, which the kernel searches in a time that does not depend on
//! the number of rules; `program` is the code that searches them.

mod program;
mod tables;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};

pub(crate) use program::{Maps, assemble};
pub use tables::Tables;

/// What a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Connecting a socket, and sending a datagram without: the address is the peer's.
    Connect,
    /// Binding a socket: the address is its own.
    Bind,
    /// A peer that connects to a socket that listens; `from` are the ports of that socket.
    Accept,
}

impl Hook {
    /// The hook of a key of the vocabulary.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        match key {
            "net.connect" => Some(Self::Connect),
            "net.bind" => Some(Self::Bind),
            "net.accept" => Some(Self::Accept),
            _ => None,
        }
    }
}

/// A default and exceptions from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub allow: bool,
    pub rules: Vec<Rule>,
}

/// One exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    /// `None` = all.
    pub protocol: Option<Protocol>,
    pub prefix: Prefix,
    pub ports: RangeInclusive<u16>,
    pub local_ports: RangeInclusive<u16>,
}

/// What a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    /// Neither: only rules for all protocols are about it.
    Other,
}

/// The first bits of an IPv6 address; IPv4 addresses are those of `::ffff:0:0/96`, as the kernel
/// maps them, so that a v6 socket is no way around a rule for v4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    bits: u128,
    length: u32,
}

/// One attempt, as the kernel asks about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// 0 where none is chosen yet.
    pub local_port: u16,
}

/// A bound for what one group may have.
const MOST_RULES: usize = 100_000;

const ALL_PORTS: RangeInclusive<u16> = 0..=u16::MAX;
const MAPPED: u128 = 0xffff_0000_0000;

impl Policy {
    /// Understands a policy: parts between `;`, of which one may be a default (`allow`, if there
    /// is none).
    ///
    /// # Errors
    /// A part that is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        let mut policy = Self {
            allow: true,
            rules: Vec::new(),
        };
        for (index, part) in text.split(';').map(str::trim).enumerate() {
            let fails = |cause: &str| Err(Error::text("net rule", part, cause));
            match part {
                "" => {}
                "allow" | "deny" if index > 0 => return fails("the default comes first"),
                "allow" => policy.allow = true,
                "deny" => policy.allow = false,
                part => match rules(part) {
                    Some(rules) => policy.rules.extend(rules),
                    None => {
                        return fails(
                            "not allow|deny tcp|udp|any [ADDRESS[/LENGTH]][:PORTS] [from :PORTS]",
                        );
                    }
                },
            }
        }
        if policy.rules.len() > MOST_RULES {
            let count = policy.rules.len().to_string();
            return Err(Error::text("net rules", count, "more than 100,000"));
        }
        Ok(policy)
    }

    /// Whether it allows everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allow && self.rules.is_empty()
    }

    /// Whether an attempt passes.
    #[must_use]
    pub fn allows(&self, attempt: &Attempt) -> bool {
        let address = bits(attempt.address);
        let fitting = self.rules.iter().filter(|rule| {
            rule.is_about(attempt.protocol)
                && rule.prefix.contains(address)
                && rule.ports.contains(&attempt.port)
                && rule.local_ports.contains(&attempt.local_port)
        });
        // The last of equals.
        let strongest = fitting.max_by_key(|rule| rule.strength());
        strongest.map_or(self.allow, |rule| rule.allow)
    }
}

impl Rule {
    fn is_about(&self, protocol: Protocol) -> bool {
        self.protocol.is_none_or(|own| own == protocol)
    }

    /// What decides between rules that fit the same attempt.
    fn strength(&self) -> (u32, u16, u16) {
        let narrow = |ports: &RangeInclusive<u16>| u16::MAX - (ports.end() - ports.start());
        (
            self.prefix.length,
            narrow(&self.ports),
            narrow(&self.local_ports),
        )
    }
}

impl Prefix {
    /// Every address.
    pub const ALL: Self = Self { bits: 0, length: 0 };

    fn new(address: IpAddr, length: Option<u32>) -> Option<Self> {
        let (least, most) = if address.is_ipv4() {
            (96, 32)
        } else {
            (0, 128)
        };
        let length = least + length.unwrap_or(most);
        (length <= 128).then(|| Self {
            bits: bits(address) & mask(length),
            length,
        })
    }

    fn contains(self, address: u128) -> bool {
        address & mask(self.length) == self.bits
    }

    /// The prefix of the same bits that is shorter.
    fn cut(self, length: u32) -> Self {
        Self {
            bits: self.bits & mask(length),
            length,
        }
    }
}

fn mask(length: u32) -> u128 {
    match length {
        0 => 0,
        length => u128::MAX << (128 - length.min(128)),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => MAPPED | u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// `allow tcp 10.0.0.0/8:443,8000-8999 from :1024-65535`: a rule for each pair of ranges.
fn rules(text: &str) -> Option<Vec<Rule>> {
    let mut words = text.split_ascii_whitespace();
    let allow = match words.next()? {
        "allow" => true,
        "deny" => false,
        _ => return None,
    };
    let protocol = match words.next()? {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "any" => None,
        _ => return None,
    };
    let mut word = words.next();
    let (mut prefix, mut ports) = (Prefix::ALL, vec![ALL_PORTS]);
    if let Some(place) = word.filter(|word| *word != "from") {
        (prefix, ports) = parse_place(place)?;
        word = words.next();
    }
    let mut local = vec![ALL_PORTS];
    if word == Some("from") {
        local = parse_ports(words.next()?.strip_prefix(':')?)?;
        word = words.next();
    }
    if word.is_some() {
        return None;
    }
    let pairs = ports.iter().flat_map(|ports| {
        local
            .iter()
            .map(move |local| (ports.clone(), local.clone()))
    });
    let rule = |(ports, local_ports)| Rule {
        allow,
        protocol,
        prefix,
        ports,
        local_ports,
    };
    Some(pairs.map(rule).collect())
}

/// `10.0.0.0/8:443`, `[fd00::/8]:80`, `fd00::/8`, `:53`.
fn parse_place(text: &str) -> Option<(Prefix, Vec<RangeInclusive<u16>>)> {
    let (address, ports) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let ports = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':')?),
        };
        (address, ports)
    } else if text.matches(':').count() > 1 {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((address, ports)) => (address, Some(ports)),
            None => (text, None),
        }
    };
    let ports = ports.map_or(Some(vec![ALL_PORTS]), parse_ports)?;
    if address.is_empty() {
        return Some((Prefix::ALL, ports));
    }
    let (address, length) = match address.split_once('/') {
        Some((address, length)) => (address, Some(length.parse().ok()?)),
        None => (address, None),
    };
    Some((Prefix::new(address.parse().ok()?, length)?, ports))
}

/// `443,8000-8999`
fn parse_ports(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(first..=last)
    };
    text.split(',').map(range).collect()
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(verdict(self.allow))?;
        self.rules.iter().try_for_each(|rule| write!(f, "; {rule}"))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Some(Protocol::Tcp) => "tcp",
            Some(Protocol::Udp) => "udp",
            Some(Protocol::Other) | None => "any",
        };
        write!(f, "{} {protocol}", verdict(self.allow))?;
        if self.prefix != Prefix::ALL || self.ports != ALL_PORTS {
            f.write_str(" ")?;
        }
        if self.prefix != Prefix::ALL {
            write!(f, "{}", self.prefix)?;
        }
        if self.ports != ALL_PORTS {
            write!(f, ":{}", Ports(&self.ports))?;
        }
        if self.local_ports != ALL_PORTS {
            write!(f, " from :{}", Ports(&self.local_ports))?;
        }
        Ok(())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::Ipv6Addr::from(self.bits);
        match address.to_ipv4_mapped() {
            Some(address) if self.length >= 96 => write!(f, "{address}/{}", self.length - 96),
            _ => write!(f, "[{address}/{}]", self.length),
        }
    }
}

struct Ports<'a>(&'a RangeInclusive<u16>);

impl fmt::Display for Ports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

fn verdict(allow: bool) -> &'static str {
    if allow { "allow" } else { "deny" }
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
