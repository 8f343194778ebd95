//! Architectures as filters see them.

use crate::spec::SeccompArch;

/// Bit of x32's call numbers, the only difference between its calls and those of x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arch {
    /// Its column in the table of calls.
    pub(super) column: &'static str,
    /// `AUDIT_ARCH_…`: the machine's ELF number, 64 bit, little endian.
    pub(super) token: u32,
    /// Added to the table's numbers.
    pub(super) bit: u32,
    /// Arguments have 64 bits; else only the low 32 are looked at.
    pub(super) wide: bool,
    /// Socket and System V IPC calls are also to be had through `socketcall` and `ipc`.
    pub(super) multiplexed: bool,
    /// Call 0 stands for calls that the kernel does not know.
    pub(super) zero_is_unknown: bool,
}

const WIDE: u32 = 0x8000_0000;
const LITTLE: u32 = 0x4000_0000;
/// The n32 calling convention of MIPS.
const N32: u32 = 0x2000_0000;

/// What is known of an architecture; `None` for those without a column in the table.
pub(super) fn arch(arch: SeccompArch) -> Option<Arch> {
    use SeccompArch as A;
    let (column, token, wide) = match arch {
        A::X86 => ("x86", 3 | LITTLE, false),
        A::X86_64 => ("x86_64", 62 | WIDE | LITTLE, true),
        // Its arguments are those of a 32 bit program, in wide registers.
        A::X32 => ("x32", 62 | WIDE | LITTLE, false),
        A::Arm => ("arm", 40 | LITTLE, false),
        A::Aarch64 => ("aarch64", 183 | WIDE | LITTLE, true),
        A::Riscv64 => ("riscv64", 243 | WIDE | LITTLE, true),
        A::Loongarch64 => ("loongarch64", 258 | WIDE | LITTLE, true),
        A::Ppc => ("ppc", 20, false),
        A::Ppc64 => ("ppc64", 21 | WIDE, true),
        A::Ppc64le => ("ppc64", 21 | WIDE | LITTLE, true),
        A::S390 => ("s390", 22, false),
        A::S390x => ("s390x", 22 | WIDE, true),
        A::Mips => ("mips", 8, false),
        A::Mipsel => ("mips", 8 | LITTLE, false),
        A::Mips64 => ("mips64", 8 | WIDE, true),
        A::Mipsel64 => ("mips64", 8 | WIDE | LITTLE, true),
        A::Mips64n32 => ("mips64n32", 8 | WIDE | N32, false),
        A::Mipsel64n32 => ("mips64n32", 8 | WIDE | N32 | LITTLE, false),
        A::Parisc | A::Parisc64 | A::M68k | A::Sh | A::Sheb => return None,
    };
    Some(Arch {
        column,
        token,
        bit: if arch == A::X32 { X32_BIT } else { 0 },
        wide,
        multiplexed: matches!(column, "x86" | "ppc" | "ppc64" | "s390" | "s390x" | "mips"),
        zero_is_unknown: matches!(column, "s390" | "s390x"),
    })
}
