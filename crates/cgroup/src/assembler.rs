//! A small assembler for BPF programs: the instructions that floe's programs use, no more.
//! Encoding: `Documentation/bpf/standardization/instruction-set.rst`.

/// A 64-bit register. `R0` is the result, `R1` the context at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Register {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R4 = 4,
    /// These keep their values over calls.
    R6 = 6,
    R7 = 7,
    R8 = 8,
    /// The end of the stack.
    R10 = 10,
}

/// What a register's new value is made of: the old one and an operand. The numbers are the
/// upper bits of the instruction's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Operation {
    Add = 0x00,
    Multiply = 0x20,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    /// Fills with zeros.
    ShiftRight = 0x70,
    Xor = 0xa0,
    /// The operand alone.
    Set = 0xb0,
}

/// When a jump is taken; the numbers are the upper bits of the instruction's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Condition {
    Always = 0x00,
    Equal = 0x10,
    NotEqual = 0x50,
    /// The register has a bit of the value's.
    HasBits = 0x40,
}

/// A jump whose target is not known yet.
#[derive(Debug)]
#[must_use]
pub(crate) struct Label(usize);

/// A program in the making.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    code: Vec<u64>,
}

const LOAD_U32: u8 = 0x61;
const LOAD_U64: u8 = 0x79;
const LOAD_U8: u8 = 0x71;
const STORE_U32: u8 = 0x63;
const STORE_U16: u8 = 0x6b;
const JUMP_WITH_VALUE: u8 = 0x05;
const CALL: u8 = 0x85;
const TO_BIG_ENDIAN: u8 = 0xdc;
/// In the place of the source register: the constant is a map's descriptor.
const PSEUDO_MAP_FD: u64 = 1 << 12;
const LOAD_CONSTANT: u8 = 0x18;
const WITH_VALUE: u8 = 0x07;
const WITH_REGISTER: u8 = 0x0f;
const EXIT: u8 = 0x95;

impl Assembler {
    pub(crate) fn load_u32(&mut self, into: Register, base: Register, offset: i16) {
        self.push(LOAD_U32, into, base, offset, 0);
    }

    pub(crate) fn load_u8(&mut self, into: Register, base: Register, offset: i16) {
        self.push(LOAD_U8, into, base, offset, 0);
    }

    pub(crate) fn load_u64(&mut self, into: Register, base: Register, offset: i16) {
        self.push(LOAD_U64, into, base, offset, 0);
    }

    pub(crate) fn store_u32(&mut self, base: Register, offset: i16, from: Register) {
        self.push(STORE_U32, base, from, offset, 0);
    }

    pub(crate) fn store_u16(&mut self, base: Register, offset: i16, from: Register) {
        self.push(STORE_U16, base, from, offset, 0);
    }

    /// Sixteen bits of the host's order in network order.
    pub(crate) fn big_endian_16(&mut self, register: Register) {
        self.push(TO_BIG_ENDIAN, register, Register::R0, 0, 16);
    }

    pub(crate) fn load_map(&mut self, into: Register, descriptor: i32) {
        let at = self.code.len();
        self.load_constant(into, u64::from(descriptor.unsigned_abs()));
        self.code[at] |= PSEUDO_MAP_FD;
    }

    pub(crate) fn call(&mut self, helper: i32) {
        self.push(CALL, Register::R0, Register::R0, 0, helper);
    }

    /// A jump forward, to where [`Assembler::land`] says.
    pub(crate) fn jump(&mut self, when: Condition, register: Register, value: i32) -> Label {
        let label = Label(self.code.len());
        let opcode = JUMP_WITH_VALUE | when as u8;
        self.push(opcode, register, Register::R0, 0, value);
        label
    }

    /// The jump leads to the next instruction.
    pub(crate) fn land(&mut self, label: &Label) {
        let distance = (self.code.len() - label.0 - 1) as u64;
        self.code[label.0] |= (distance & 0xffff) << 16;
    }

    /// An end before the last one.
    pub(crate) fn end(&mut self) {
        self.push(EXIT, Register::R0, Register::R0, 0, 0);
    }

    /// Takes the space of two instructions.
    pub(crate) fn load_constant(&mut self, into: Register, value: u64) {
        let (low, high) = (value as u32 as i32, (value >> 32) as u32 as i32);
        self.push(LOAD_CONSTANT, into, Register::R0, 0, low);
        self.push(0, Register::R0, Register::R0, 0, high);
    }

    /// The value is extended by its sign to 64 bits.
    pub(crate) fn with_value(&mut self, into: Register, operation: Operation, value: i32) {
        self.push(WITH_VALUE | operation as u8, into, Register::R0, 0, value);
    }

    pub(crate) fn with(&mut self, into: Register, operation: Operation, other: Register) {
        self.push(WITH_REGISTER | operation as u8, into, other, 0, 0);
    }

    /// Ends the program; its result is in `R0`.
    pub(crate) fn exit(mut self) -> Vec<u64> {
        self.end();
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
