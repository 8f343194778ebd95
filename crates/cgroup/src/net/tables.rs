//! A policy as longest-prefix tables.
//!
//! Three steps, each a search for the longest prefix: protocol and address → a table of ports;
//! that table and the port → a verdict, or a table of local ports; that and the local port → a
//! verdict. What is not found is the default. A table of ports holds for all that a prefix and
//! the shorter ones around it say, so one step never has to come back for the next longest.
//! Ranges become prefixes of sixteen bits; equal tables are kept once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use super::{Attempt, Policy, Prefix, Protocol, Rule, bits};

/// The tables of one policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// What is not found.
    pub(crate) allow: bool,
    /// Protocol and prefix → table of ports.
    pub(crate) addresses: BTreeMap<(Protocol, Prefix), u32>,
    /// Table, port, and how many of its bits count → verdict or table.
    pub(crate) ports: BTreeMap<(u32, u16, u32), Found>,
}

/// What a port leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Found {
    Verdict(bool),
    /// The local port decides, in this table.
    Local(u32),
}

/// Verdicts of disjoint ranges, in order; neighbours differ.
type Ranges<T> = Vec<(RangeInclusive<u16>, T)>;

impl Tables {
    /// The tables that say what the policy says.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let mut builder = Builder {
            tables: Self {
                allow: policy.allow,
                ..Self::default()
            },
            known: HashMap::new(),
        };
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Other] {
            let rules = policy.rules.iter().filter(|rule| rule.is_about(protocol));
            let mut by_prefix: HashMap<Prefix, Vec<&Rule>> = HashMap::new();
            for rule in rules {
                by_prefix.entry(rule.prefix).or_default().push(rule);
            }
            let lengths: BTreeSet<u32> = by_prefix.keys().map(|prefix| prefix.length).collect();
            for prefix in by_prefix.keys() {
                let around = lengths.iter().filter(|length| **length <= prefix.length);
                let fitting: Vec<&Rule> = around
                    .filter_map(|length| by_prefix.get(&prefix.cut(*length)))
                    .flatten()
                    .copied()
                    .collect();
                let table = builder.remote(&fitting, policy.allow);
                builder.tables.addresses.insert((protocol, *prefix), table);
            }
        }
        builder.tables
    }

    /// What the search finds; the kernel's program does the same.
    #[must_use]
    pub fn allows(&self, attempt: &Attempt) -> bool {
        let address = bits(attempt.address);
        let table = (0..=128).rev().find_map(|length| {
            let all = Prefix {
                bits: address,
                length: 128,
            };
            self.addresses.get(&(attempt.protocol, all.cut(length)))
        });
        let Some(table) = table else {
            return self.allow;
        };
        match self.search(*table, attempt.port) {
            Some(Found::Verdict(allow)) => allow,
            None => self.allow,
            Some(Found::Local(table)) => match self.search(table, attempt.local_port) {
                Some(Found::Verdict(allow)) => allow,
                Some(Found::Local(_)) | None => self.allow,
            },
        }
    }

    fn search(&self, table: u32, port: u16) -> Option<Found> {
        (0..=16_u32).rev().find_map(|length| {
            let bits = u32::from(port) & !(0xffff >> length);
            let found = self.ports.get(&(table, bits as u16, length));
            found.copied()
        })
    }
}

struct Builder {
    tables: Tables,
    /// Tables that are there already, by what they say.
    known: HashMap<Ranges<Found>, u32>,
}

impl Builder {
    /// The table of the ports that these rules tell apart.
    fn remote(&mut self, rules: &[&Rule], default: bool) -> u32 {
        let ranges = elementary(rules.iter().map(|rule| &rule.ports));
        let mut all: Ranges<Found> = Vec::new();
        for range in ranges {
            let port = *range.start();
            let fitting: Vec<&Rule> = rules
                .iter()
                .filter(|rule| rule.ports.contains(&port))
                .copied()
                .collect();
            push(&mut all, range, self.local(&fitting, default));
        }
        self.table(all)
    }

    fn local(&mut self, rules: &[&Rule], default: bool) -> Found {
        let mut all: Ranges<Found> = Vec::new();
        for range in elementary(rules.iter().map(|rule| &rule.local_ports)) {
            let port = *range.start();
            let fitting = rules.iter().filter(|rule| rule.local_ports.contains(&port));
            let strongest = fitting.max_by_key(|rule| rule.strength());
            let allow = strongest.map_or(default, |rule| rule.allow);
            push(&mut all, range, Found::Verdict(allow));
        }
        match all.as_slice() {
            [(_, only)] => *only,
            _ => Found::Local(self.table(all)),
        }
    }

    fn table(&mut self, ranges: Ranges<Found>) -> u32 {
        if let Some(known) = self.known.get(&ranges) {
            return *known;
        }
        let table = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        for (range, found) in &ranges {
            for (bits, length) in prefixes(range) {
                self.tables.ports.insert((table, bits, length), *found);
            }
        }
        self.known.insert(ranges, table);
        table
    }
}

fn push(all: &mut Ranges<Found>, range: RangeInclusive<u16>, found: Found) {
    match all.last_mut() {
        Some((last, same)) if *same == found => *last = *last.start()..=*range.end(),
        _ => all.push((range, found)),
    }
}

/// All ports, cut wherever one of the ranges begins or ends.
fn elementary<'a>(
    ranges: impl Iterator<Item = &'a RangeInclusive<u16>>,
) -> Vec<RangeInclusive<u16>> {
    let mut starts = BTreeSet::from([0_u32]);
    for range in ranges {
        starts.insert(u32::from(*range.start()));
        starts.insert(u32::from(*range.end()) + 1);
    }
    starts.remove(&0x1_0000);
    let starts: Vec<u32> = starts.into_iter().collect();
    let ends = starts.iter().skip(1).copied().chain([0x1_0000]);
    let range = |(start, end): (&u32, u32)| *start as u16..=(end - 1) as u16;
    starts.iter().zip(ends).map(range).collect()
}

/// The fewest prefixes of sixteen bits that make up a range.
fn prefixes(range: &RangeInclusive<u16>) -> Vec<(u16, u32)> {
    let (mut at, end) = (u32::from(*range.start()), u32::from(*range.end()) + 1);
    let mut all = Vec::new();
    while at < end {
        // The largest block that begins here and does not go beyond the end.
        let aligned = if at == 0 { 16 } else { at.trailing_zeros() };
        let size = aligned.min((end - at).ilog2());
        all.push((at as u16, 16 - size));
        at += 1 << size;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_prefixes() {
        for (range, expected) in [
            (0..=65535, vec![(0, 0)]),
            (80..=80, vec![(80, 16)]),
            (1..=1023, (0..10).map(|bit| (1 << bit, 16 - bit)).collect()),
            (65535..=65535, vec![(65535, 16)]),
        ] {
            assert_eq!(prefixes(&range), expected, "{range:?}");
        }
    }
}
