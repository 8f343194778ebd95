//! The kernel's reading of classic BPF, for tests: what it would answer, and what it would refuse.

use sys::seccomp::Instruction;

use super::assemble::{AND, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, RETURN};

/// A call as a filter is shown it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

/// The program's answer to a call, and how many instructions that took.
pub(super) fn run(program: &[Instruction], call: Call) -> (u32, usize) {
    let (mut accumulator, mut at) = (0, 0);
    for taken in 1.. {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut compare = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            LOAD => accumulator = word(call, k),
            AND => accumulator &= k,
            JUMP => at += usize::try_from(k).unwrap(),
            JUMP_EQUAL => compare(accumulator == k),
            JUMP_GREATER => compare(accumulator > k),
            JUMP_GREATER_OR_EQUAL => compare(accumulator >= k),
            RETURN => return (k, taken),
            _ => panic!("the kernel refuses opcode {code:#x}"),
        }
    }
    unreachable!("a program cannot loop")
}

/// A word of `struct seccomp_data`.
fn word(call: Call, offset: u32) -> u32 {
    let halves = call.args.iter().flat_map(|arg| {
        let [a, b, c, d, e, f, g, h] = arg.to_ne_bytes();
        [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
        ]
    });
    let words: Vec<u32> = [call.number, call.arch, 0, 0]
        .into_iter()
        .chain(halves)
        .collect();
    assert_eq!(offset % 4, 0, "an unaligned load is refused");
    words[usize::try_from(offset / 4).unwrap()]
}

/// What the kernel checks before it takes a program: jumps that stay inside, a return at the end.
pub(super) fn verify(program: &[Instruction]) {
    assert!(
        (1..=super::MAX_INSTRUCTIONS).contains(&program.len()),
        "{}",
        program.len()
    );
    for (position, instruction) in program.iter().enumerate() {
        let left = program.len() - position - 1;
        let reach = match instruction.code {
            JUMP => usize::try_from(instruction.k).unwrap(),
            _ => usize::from(instruction.jt.max(instruction.jf)),
        };
        assert!(reach < left || instruction.code == RETURN || reach == 0 && left > 0);
    }
    assert_eq!(program.last().unwrap().code, RETURN);
}
