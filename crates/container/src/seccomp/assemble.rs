//! From ranges and rules to instructions.
//!
//! Code is made from its end: a jump only ever goes forward, so what it jumps over is known.

use super::rules::{Body, Condition, KILL_PROCESS, Rule, Section};
use crate::spec::SeccompOperator;
use sys::seccomp::Instruction;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Opcodes of classic BPF (linux/bpf_common.h): operation, size or comparison, operand.
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// The whole program.
pub(super) fn program(sections: &[Section]) -> Vec<Instruction> {
    let mut code = vec![plain(LOAD, ARCH)];
    for section in sections {
        let mut block = vec![plain(LOAD, NUMBER)];
        block.extend(tree(&section.ranges));
        code.extend(when_equal(section.token, block));
    }
    code.push(plain(RETURN, KILL_PROCESS));
    code
}

/// A binary search for the range of the call's number, which is in the accumulator. It ends in a
/// return on every path.
fn tree(ranges: &[(u32, Body)]) -> Vec<Instruction> {
    if let [(_, only)] = ranges {
        return body(only);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let Some((first, _)) = upper.first() else {
        return Vec::new();
    };
    let mut code = when_less(*first, tree(lower));
    code.extend(tree(upper));
    code
}

fn body(body: &Body) -> Vec<Instruction> {
    let mut code: Vec<Instruction> = body.rules.iter().flat_map(rule).collect();
    code.push(plain(RETURN, body.otherwise));
    code
}

/// Returns the rule's answer, or goes on behind its own end.
fn rule(rule: &Rule) -> Vec<Instruction> {
    let mut code = vec![plain(RETURN, rule.answer)];
    for condition in rule.conditions.iter().rev() {
        code.splice(0..0, placed(&steps(condition), code.len()));
    }
    code
}

/// A part of a condition.
enum Step {
    Plain(Instruction),
    /// A comparison, and where it leads if it holds and if not.
    Compare(u16, u32, To, To),
}

#[derive(Clone, Copy)]
enum To {
    /// The next step.
    On,
    /// Behind the condition: it holds.
    Pass,
    /// Behind the rule: it does not.
    Fail,
}

/// The steps as instructions, `rest` instructions before the rule's end.
fn placed(steps: &[Step], rest: usize) -> Vec<Instruction> {
    let place = |(position, step): (usize, &Step)| {
        let behind = steps.len() - position - 1;
        let skip = |to: To| match to {
            To::On => 0,
            To::Pass => short(behind),
            To::Fail => short(behind + rest),
        };
        match *step {
            Step::Plain(instruction) => instruction,
            Step::Compare(code, k, yes, no) => Instruction {
                code,
                jt: skip(yes),
                jf: skip(no),
                k,
            },
        }
    };
    steps.iter().enumerate().map(place).collect()
}

/// A condition's comparison, of the high half first where there is one.
fn steps(condition: &Condition) -> Vec<Step> {
    use SeccompOperator as Op;
    let Condition {
        operator,
        wide,
        mask,
        ..
    } = *condition;
    let [low, high] = halves(condition.value);
    let [low_mask, high_mask] = halves(mask);
    let at = ARGUMENTS + 8 * u32::from(condition.argument);
    let swapped = u32::from(cfg!(target_endian = "big"));
    let (at_low, at_high) = (at + 4 * swapped, at + 4 * (1 - swapped));
    // What a greater and a smaller high half decide, and what an equal one leaves to the low half.
    let (greater, less, code, yes, no) = match operator {
        Op::Equal | Op::MaskedEqual => (To::Fail, To::Fail, JUMP_EQUAL, To::Pass, To::Fail),
        Op::NotEqual => (To::Pass, To::Pass, JUMP_EQUAL, To::Fail, To::Pass),
        Op::GreaterOrEqual => (
            To::Pass,
            To::Fail,
            JUMP_GREATER_OR_EQUAL,
            To::Pass,
            To::Fail,
        ),
        Op::Greater => (To::Pass, To::Fail, JUMP_GREATER, To::Pass, To::Fail),
        Op::Less => (
            To::Fail,
            To::Pass,
            JUMP_GREATER_OR_EQUAL,
            To::Fail,
            To::Pass,
        ),
        Op::LessOrEqual => (To::Fail, To::Pass, JUMP_GREATER, To::Fail, To::Pass),
    };
    let masked = operator == Op::MaskedEqual;
    let mut steps = Vec::new();
    if wide && !(masked && high_mask == 0) {
        steps.push(Step::Plain(plain(LOAD, at_high)));
        if masked {
            steps.push(Step::Plain(plain(AND, high_mask)));
        }
        if !matches!((greater, less), (To::Pass, To::Pass) | (To::Fail, To::Fail)) {
            steps.push(Step::Compare(JUMP_GREATER, high, greater, To::On));
        }
        steps.push(Step::Compare(JUMP_EQUAL, high, To::On, less));
    }
    steps.push(Step::Plain(plain(LOAD, at_low)));
    if masked {
        steps.push(Step::Plain(plain(AND, low_mask)));
    }
    steps.push(Step::Compare(code, low, yes, no));
    steps
}

/// The low and the high half.
fn halves(value: u64) -> [u32; 2] {
    let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
    [half(value), half(value >> 32)]
}

/// The block, for an accumulator equal to `k`; any other goes on behind it.
fn when_equal(k: u32, block: Vec<Instruction>) -> Vec<Instruction> {
    guarded(JUMP_EQUAL, true, k, block)
}

/// The block, for an accumulator less than `k`; any other goes on behind it.
fn when_less(k: u32, block: Vec<Instruction>) -> Vec<Instruction> {
    guarded(JUMP_GREATER_OR_EQUAL, false, k, block)
}

/// The block, if the comparison's outcome is `wanted`. Conditional jumps reach 255 instructions,
/// so a longer block takes a plain jump over it.
fn guarded(code: u16, wanted: bool, k: u32, block: Vec<Instruction>) -> Vec<Instruction> {
    let either = |other: u8, wanted_skip: u8| match wanted {
        true => Instruction {
            code,
            jt: wanted_skip,
            jf: other,
            k,
        },
        false => Instruction {
            code,
            jt: other,
            jf: wanted_skip,
            k,
        },
    };
    let mut guard = match u8::try_from(block.len()) {
        Ok(len) => vec![either(len, 0)],
        Err(_) => {
            let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
            vec![either(0, 1), plain(JUMP, len)]
        }
    };
    guard.extend(block);
    guard
}

fn plain(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// A rule has at most six conditions of at most five steps: its jumps are short.
fn short(distance: usize) -> u8 {
    u8::try_from(distance).unwrap_or(u8::MAX)
}
