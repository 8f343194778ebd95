//! The syscall tape: many system calls of another process in one resume.
//!
//! Problem: one call injected by ptrace costs two context switches and four calls of the tracer;
//! rebuilding an address space takes thousands. Solution: a loop of about twenty instructions that
//! runs over an array of entries in the process's own memory. The tracer maps both, points the
//! process at the loop, and waits for the trap at its end.

use std::arch::global_asm;

/// Bytes of one entry.
pub const ENTRY_SIZE: usize = 72;
/// The number that ends a tape.
pub const END: u64 = u64::MAX;
/// Flag of an entry: a failure of this call stops the tape.
pub const STOP_ON_ERROR: u64 = 1;

// r15 = the current entry: number, six arguments, result, flags (8 bytes each).
#[cfg(target_arch = "x86_64")]
global_asm!(
    r#"
    .pushsection .rodata.floe_tape, "a"
    .globl floe_tape_start
    .globl floe_tape_end
floe_tape_start:
2:  mov rax, [r15]
    cmp rax, -1
    je 9f
    mov rdi, [r15 + 8]
    mov rsi, [r15 + 16]
    mov rdx, [r15 + 24]
    mov r10, [r15 + 32]
    mov r8,  [r15 + 40]
    mov r9,  [r15 + 48]
    syscall
    mov [r15 + 56], rax
    add r15, 72
    cmp rax, -4095
    jb 2b
    test qword ptr [r15 - 8], 1
    jz 2b
9:  int3
floe_tape_end:
    .popsection
"#
);

// x19 = the current entry.
#[cfg(target_arch = "aarch64")]
global_asm!(
    r#"
    .pushsection .rodata.floe_tape, "a"
    .globl floe_tape_start
    .globl floe_tape_end
floe_tape_start:
2:  ldr x8, [x19]
    cmn x8, #1
    b.eq 9f
    ldp x0, x1, [x19, #8]
    ldp x2, x3, [x19, #24]
    ldp x4, x5, [x19, #40]
    svc #0
    str x0, [x19, #56]
    add x19, x19, #72
    cmn x0, #4095
    b.lo 2b
    ldr x9, [x19, #-8]
    tbz x9, #0, 2b
9:  brk #0
floe_tape_end:
    .popsection
"#
);

unsafe extern "C" {
    static floe_tape_start: u8;
    static floe_tape_end: u8;
}

/// The loop's machine code; it may run at any address.
#[must_use]
pub fn code() -> &'static [u8] {
    let start = &raw const floe_tape_start;
    let length = (&raw const floe_tape_end).addr() - start.addr();
    // SAFETY: the two symbols bound one piece of read-only data, defined above.
    unsafe { std::slice::from_raw_parts(start, length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_small_and_ends_in_a_trap() {
        assert!(code().len() < 128, "{} bytes", code().len());
        #[cfg(target_arch = "x86_64")]
        assert_eq!(code().last(), Some(&0xcc));
    }
}
