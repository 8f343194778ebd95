//! What each number of each architecture answers, from a configuration's rules.

use std::mem;

use super::arch::{Arch, X32_BIT, arch};
use super::syscalls;
use crate::spec::{
    Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompOperator, SeccompSyscall,
};

/// The answer `SECCOMP_RET_KILL_PROCESS`.
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
/// linux/errno.h: the same on every architecture but MIPS, whose programs expect 89.
const ENOSYS: u32 = 38;
const ENOSYS_MIPS: u32 = 89;
const EPERM: u64 = 1;
/// From here on numbers are an architecture's own extras, not in the order of invention (ARM).
const PRIVATE: u32 = 0x000f_0000;

/// The calls of one audit architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) token: u32,
    /// Ranges of call numbers by their first, ascending from 0; no two neighbours are equal.
    pub(super) ranges: Vec<(u32, Body)>,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    /// The first whose conditions all hold decides.
    pub(super) rules: Vec<Rule>,
    /// The answer if none does.
    pub(super) otherwise: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    /// A `SECCOMP_RET_…` with its data.
    pub(super) answer: u32,
}

/// A comparison of an argument, or of its low half alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) wide: bool,
    pub(super) operator: SeccompOperator,
    pub(super) value: u64,
    /// Only for `MaskedEqual`, whose `value` has no bit outside it.
    pub(super) mask: u64,
}

/// One mention of a call in the rules, on one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mention {
    number: u32,
    /// The rule's position in the document.
    rule: usize,
    /// The call is a multiplexer, and this the call within it.
    inner: Option<u32>,
}

type Ranges = Vec<(u32, Body)>;

/// The sections of a filter, the native architecture's first.
pub(super) fn sections(seccomp: &Seccomp, native: SeccompArch) -> Vec<Section> {
    let mut arches: Vec<Arch> = Vec::new();
    for known in [native]
        .iter()
        .chain(&seccomp.architectures)
        .filter_map(|name| arch(*name))
    {
        if !arches.contains(&known) {
            arches.push(known);
        }
    }
    let mentions = mentions(seccomp, &arches);
    let mut parts: Vec<(Arch, Ranges)> = arches
        .iter()
        .zip(&mentions)
        .map(|(arch, mentions)| (*arch, ranges(seccomp, *arch, mentions)))
        .collect();
    let mut sections: Vec<Section> = Vec::new();
    for token in arches.iter().map(|arch| arch.token) {
        if sections.iter().all(|section| section.token != token) {
            sections.push(Section {
                token,
                ranges: joined(token, &mut parts),
            });
        }
    }
    sections
}

/// The ranges of all architectures with this token, as one, out of the parts.
fn joined(token: u32, parts: &mut [(Arch, Ranges)]) -> Ranges {
    let mut part = |bit| {
        let found = parts
            .iter_mut()
            .find(|(arch, _)| arch.token == token && arch.bit == bit);
        found.map_or_else(
            || vec![(0, always(KILL_PROCESS))],
            |(_, ranges)| mem::take(ranges),
        )
    };
    let mut ranges = part(0);
    if arch(SeccompArch::X32).is_some_and(|x32| x32.token == token) {
        // -1, the number a tracer sets to skip a call, has the bit too but is no call of x32.
        let skipped = ranges.last().map(|(_, body)| body.clone());
        ranges.retain(|(first, _)| *first < X32_BIT);
        let x32 = part(X32_BIT).into_iter();
        ranges.extend(x32.filter_map(|(first, body)| Some((first.checked_add(X32_BIT)?, body))));
        ranges.extend(skipped.map(|body| (u32::MAX, body)));
    }
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    ranges
}

/// The rules' mentions of calls, in order, for each architecture. Every start of a container pays
/// for this: sorted lists that are walked together, rather than maps.
fn mentions(seccomp: &Seccomp, arches: &[Arch]) -> Vec<Vec<Mention>> {
    let mut named: Vec<(&str, usize, Option<u32>)> = Vec::new();
    for (position, rule) in seccomp.syscalls.iter().enumerate() {
        for name in &rule.names {
            named.push((name, position, None));
            // Socket and IPC calls are also made through one call that stands for all. A rule with
            // conditions cannot hold there: the arguments lie in memory, out of a filter's sight.
            if rule.args.is_empty()
                && let Some((through, inner)) = syscalls::multiplexed(name)
            {
                named.push((through, position, Some(inner)));
            }
        }
    }
    named.sort_unstable();
    let columns: Vec<&str> = arches.iter().map(|arch| arch.column).collect();
    let mut mentions = vec![Vec::new(); arches.len()];
    let mut rest = named.as_slice();
    let walk = |name: &str| {
        let before = rest.iter().take_while(|(other, ..)| *other < name).count();
        let same = rest[before..]
            .iter()
            .take_while(|(other, ..)| *other == name)
            .count();
        let (found, behind) = rest[before..].split_at(same);
        rest = behind;
        (same > 0).then_some(found)
    };
    syscalls::each(&columns, walk, |found, column, number| {
        for (_, rule, inner) in found {
            if inner.is_none() || arches[column].multiplexed {
                mentions[column].push(Mention {
                    number,
                    rule: *rule,
                    inner: *inner,
                });
            }
        }
    });
    mentions
        .iter_mut()
        .for_each(|mentions| mentions.sort_unstable());
    mentions
}

/// What every number of an architecture answers.
fn ranges(seccomp: &Seccomp, arch: Arch, mentions: &[Mention]) -> Ranges {
    let default = answer(seccomp.default_action, seccomp.default_errno_ret);
    let enosys = if arch.column.starts_with("mips") {
        ENOSYS_MIPS
    } else {
        ENOSYS
    };
    let newest = mentions
        .iter()
        .map(|mention| mention.number)
        .rfind(|number| *number < PRIVATE);
    let refuses = !matches!(
        seccomp.default_action,
        SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace
    );
    let unnamed = |number: u32| match newest {
        Some(newest) if refuses && number > newest => always(RET_ERRNO | enosys),
        Some(_) if refuses && number == 0 && arch.zero_is_unknown => always(RET_ERRNO | enosys),
        Some(_) | None => always(default),
    };
    let mut ranges = vec![(0, unnamed(0)), (1, unnamed(1))];
    for rules in mentions.chunk_by(|one, other| one.number == other.number) {
        let number = rules[0].number;
        while ranges.pop_if(|(first, _)| *first >= number).is_some() {}
        let body = body(seccomp, arch, rules, default);
        if ranges.last().is_none_or(|(_, before)| *before != body) {
            ranges.push((number, body));
        }
        ranges.push((number + 1, unnamed(number + 1)));
    }
    ranges
}

fn always(answer: u32) -> Body {
    Body {
        rules: Vec::new(),
        otherwise: answer,
    }
}

fn body(seccomp: &Seccomp, arch: Arch, mentions: &[Mention], default: u32) -> Body {
    let mut body = always(default);
    for mention in mentions {
        let rule = &seccomp.syscalls[mention.rule];
        let answer = answer(rule.action, rule.errno_ret);
        if let Some(inner) = mention.inner {
            body.rules.push(Rule {
                conditions: vec![within(inner)],
                answer,
            });
        } else if rule.args.is_empty() {
            body.otherwise = answer;
            break;
        } else {
            body.rules.extend(alternatives(rule, arch.wide, answer));
        }
    }
    body
}

/// A rule as the kernel's filter has it: several, if it has two conditions on one argument.
fn alternatives(rule: &SeccompSyscall, wide: bool, answer: u32) -> Vec<Rule> {
    let conditions: Vec<Condition> = rule.args.iter().map(|arg| condition(arg, wide)).collect();
    let twice = (1..conditions.len()).any(|i| {
        conditions[..i]
            .iter()
            .any(|c| c.argument == conditions[i].argument)
    });
    if twice {
        conditions
            .into_iter()
            .map(|c| Rule {
                conditions: vec![c],
                answer,
            })
            .collect()
    } else {
        vec![Rule { conditions, answer }]
    }
}

fn condition(arg: &SeccompArg, wide: bool) -> Condition {
    let cut = |value: u64| {
        if wide {
            value
        } else {
            value & u64::from(u32::MAX)
        }
    };
    let masked = arg.op == SeccompOperator::MaskedEqual;
    let mask = if masked { cut(arg.value) } else { u64::MAX };
    let value = if masked {
        arg.value_two & mask
    } else {
        cut(arg.value)
    };
    // The document was checked: an index is 0 to 5.
    let argument = u8::try_from(arg.index).unwrap_or(u8::MAX);
    Condition {
        argument,
        wide,
        operator: arg.op,
        value,
        mask,
    }
}

/// The condition that a multiplexer is asked for this call. The upper half of ipc's argument is
/// a version.
fn within(inner: u32) -> Condition {
    let (operator, mask) = (SeccompOperator::MaskedEqual, 0xffff);
    Condition {
        argument: 0,
        wide: false,
        operator,
        value: inner.into(),
        mask,
    }
}

/// The filter's answer for an action and its data.
fn answer(action: SeccompAction, data: Option<u64>) -> u32 {
    let data = u32::try_from(data.unwrap_or(EPERM) & 0xffff).unwrap_or(0);
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => 0,
        SeccompAction::KillProcess => KILL_PROCESS,
        SeccompAction::Trap => 0x0003_0000,
        SeccompAction::Errno => RET_ERRNO | data,
        SeccompAction::Notify => 0x7fc0_0000,
        SeccompAction::Trace => 0x7ff0_0000 | data,
        SeccompAction::Log => 0x7ffc_0000,
        SeccompAction::Allow => 0x7fff_0000,
    }
}
