//! A small assembler for BPF programs: the few instructions that floe's programs use, with
//! labels instead of counted jumps. Encoding: `Documentation/bpf/standardization`.

/// A 64-bit register. `R0` is the result, `R1` the context at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Register {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R4 = 4,
    R5 = 5,
}

/// A place in the program to jump to, set once with [`Assembler::label`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Test {
    /// Bits in common.
    Intersects = 0x40,
    Differs = 0x50,
}

/// A program in the making. Jumps lead forward only, so every program ends.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    code: Vec<u64>,
    /// Jumps whose distance is not known yet, with the label each leads to.
    open: Vec<(usize, usize)>,
    labels: usize,
}

const LOAD_U32: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

impl Assembler {
    pub(crate) fn load_u32(&mut self, into: Register, base: Register, offset: i16) {
        self.push(LOAD_U32, into, base, offset, 0);
    }

    pub(crate) fn copy(&mut self, into: Register, from: Register) {
        self.push(MOVE_REGISTER, into, from, 0, 0);
    }

    pub(crate) fn set(&mut self, into: Register, value: i32) {
        self.push(MOVE, into, Register::R0, 0, value);
    }

    /// The value is extended by its sign to 64 bits.
    pub(crate) fn and(&mut self, into: Register, value: i32) {
        self.push(AND, into, Register::R0, 0, value);
    }

    pub(crate) fn shift_right(&mut self, into: Register, bits: i32) {
        self.push(SHIFT_RIGHT, into, Register::R0, 0, bits);
    }

    pub(crate) fn new_label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels)
    }

    pub(crate) fn jump(&mut self, to: Label) {
        self.open.push((self.code.len(), to.0));
        self.push(JUMP, Register::R0, Register::R0, 0, 0);
    }

    pub(crate) fn jump_if(&mut self, left: Register, test: Test, right: i32, to: Label) {
        self.open.push((self.code.len(), to.0));
        // 0x05 is the class of 64-bit jumps; the operand is the instruction's own value.
        self.push(0x05 | test as u8, left, Register::R0, 0, right);
    }

    /// Ends the program with this result.
    pub(crate) fn exit_with(&mut self, result: i32) {
        self.set(Register::R0, result);
        self.push(EXIT, Register::R0, Register::R0, 0, 0);
    }

    /// Here is where jumps to the label lead. Tells whether the distance fits every one of them.
    pub(crate) fn label(&mut self, label: Label) -> bool {
        let here = self.code.len();
        let mut fits = true;
        let code = &mut self.code;
        self.open.retain(|(at, to)| {
            if *to != label.0 {
                return true;
            }
            // Counted from the instruction after the jump.
            match (i16::try_from(here - at - 1), code.get_mut(*at)) {
                (Ok(distance), Some(word)) => *word |= u64::from(distance as u16) << 16,
                _ => fits = false,
            }
            false
        });
        fits
    }

    pub(crate) fn finish(self) -> Vec<u64> {
        self.code
    }

    fn push(&mut self, opcode: u8, into: Register, from: Register, offset: i16, value: i32) {
        let registers = (from as u8) << 4 | into as u8;
        self.code.push(
            u64::from(opcode)
                | u64::from(registers) << 8
                | u64::from(offset as u16) << 16
                | u64::from(value as u32) << 32,
        );
    }
}
