//! 64-bit ARM: laid out, not yet tried on a machine.

use rustix::process::Pid;
use sys::ptrace::{self, NT_PRSTATUS};

use crate::error::{Context, Error, Result};
use crate::image::core::{
    CoreEntry, March, ThreadInfoAarch64, UserAarch64FpsimdContextEntry, UserAarch64RegsEntry,
};

/// `svc #0`.
pub(crate) const SYSCALL_INSTRUCTION: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
/// First address that user memory cannot have.
pub(crate) const TASK_SIZE: u64 = 1 << 48;
const RESTARTS: std::ops::RangeInclusive<i64> = -516..=-512;
const RESTART_BLOCK: i64 = -516;
const NT_PRFPREG: u32 = 2;
const NT_ARM_TLS: u32 = 0x401;
const NT_ARM_SYSTEM_CALL: u32 = 0x404;

const X8: usize = 8;
const X19: usize = 19;
const SP: usize = 31;
const PC: usize = 32;
const PSTATE: usize = 33;
const COUNT: usize = 34;
/// 32 vector registers, then FPSR and FPCR.
const FPSIMD: usize = 32 * 16 + 16;

/// The general registers of a stopped thread, its thread pointer, and the call it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    general: [u64; COUNT],
    thread_pointer: u64,
}

impl Registers {
    /// Those of a stopped thread.
    pub(crate) fn of(thread: Pid) -> sys::Result<Self> {
        let mut bytes = [0; COUNT * 8];
        ptrace::register_set(thread, NT_PRSTATUS, &mut bytes)?;
        let mut general = [0; COUNT];
        for (register, bytes) in general.iter_mut().zip(bytes.chunks_exact(8)) {
            *register = long(bytes);
        }
        let mut tls = [0; 8];
        ptrace::register_set(thread, NT_ARM_TLS, &mut tls)?;
        Ok(Self {
            general,
            thread_pointer: long(&tls),
        })
    }

    /// Gives them to a stopped thread.
    pub(crate) fn install(&self, thread: Pid) -> sys::Result<()> {
        let bytes: Vec<u8> = self
            .general
            .iter()
            .flat_map(|register| register.to_ne_bytes())
            .collect();
        ptrace::set_register_set(thread, NT_PRSTATUS, &bytes)?;
        ptrace::set_register_set(thread, NT_ARM_TLS, &self.thread_pointer.to_ne_bytes())?;
        ptrace::set_register_set(thread, NT_ARM_SYSTEM_CALL, &(-1_i32).to_ne_bytes())
    }

    /// The same, about to make a system call with the instruction at `gadget`.
    pub(crate) fn with_call(&self, gadget: u64, number: i64, arguments: [u64; 6]) -> Self {
        let mut registers = self.clone();
        registers.general[..6].copy_from_slice(&arguments);
        registers.general[X8] = number as u64;
        registers.general[PC] = gadget;
        registers
    }

    /// The same, about to run the tape at `entries` with the loop at `code`.
    pub(crate) fn with_tape(&self, code: u64, entries: u64) -> Self {
        let mut registers = self.with_call(code, -1, [0; 6]);
        registers.general[X19] = entries;
        registers
    }

    /// What the last system call returned.
    pub(crate) fn result(&self) -> i64 {
        self.general[0] as i64
    }

    /// Whether the thread runs 32-bit code.
    pub(crate) fn is_compat(&self) -> bool {
        self.general[PSTATE] & 0x10 != 0
    }

    /// As on x86-64; here the first argument's register held the result, so a call that must be
    /// made again cannot be rebuilt from registers alone and sees EINTR.
    pub(crate) fn restartable(&self) -> Self {
        let mut registers = self.clone();
        if RESTARTS.contains(&self.result()) && self.result() >= RESTART_BLOCK {
            registers.general[0] = -i64::from(libc::EINTR) as u64;
        }
        registers
    }

    /// As they are in an image, fit to be installed.
    pub(crate) fn from_image(core: &CoreEntry, name: &str) -> Result<Self> {
        let Some(info) = core
            .ti_aarch64
            .as_ref()
            .filter(|info| info.gpregs.regs.len() == SP)
        else {
            return Err(Error::because(
                "restore registers",
                name,
                "the image has none of aarch64",
            ));
        };
        let mut general = [0; COUNT];
        general[..SP].copy_from_slice(&info.gpregs.regs);
        general[SP] = info.gpregs.sp;
        general[PC] = info.gpregs.pc;
        general[PSTATE] = info.gpregs.pstate;
        Ok(Self {
            general,
            thread_pointer: info.tls,
        })
    }
}

/// Fills the architecture's part of `core` from a stopped thread.
pub(crate) fn dump(
    thread: Pid,
    registers: &Registers,
    clear_tid_addr: u64,
    core: &mut CoreEntry,
) -> Result<()> {
    let mut area = [0; FPSIMD];
    ptrace::register_set(thread, NT_PRFPREG, &mut area)
        .during("read vector registers of", thread.as_raw_nonzero())?;
    let fixed = registers.restartable();
    let word = |at: usize| u32::from_le_bytes([area[at], area[at + 1], area[at + 2], area[at + 3]]);
    core.mtype = March::Aarch64 as i32;
    core.ti_aarch64 = Some(ThreadInfoAarch64 {
        clear_tid_addr,
        tls: fixed.thread_pointer,
        gpregs: UserAarch64RegsEntry {
            regs: fixed.general[..SP].to_vec(),
            sp: fixed.general[SP],
            pc: fixed.general[PC],
            pstate: fixed.general[PSTATE],
        },
        fpsimd: UserAarch64FpsimdContextEntry {
            vregs: area[..512].chunks_exact(8).map(long).collect(),
            fpsr: word(512),
            fpcr: word(516),
        },
        ..Default::default()
    });
    Ok(())
}

/// Installs the vector registers of `core` in a stopped thread.
pub(crate) fn restore_extended_state(thread: Pid, core: &CoreEntry) -> Result<()> {
    let Some(info) = core.ti_aarch64.as_ref() else {
        return Ok(());
    };
    let mut area: Vec<u8> = info
        .fpsimd
        .vregs
        .iter()
        .flat_map(|long| long.to_le_bytes())
        .collect();
    area.resize(512, 0);
    area.extend_from_slice(&info.fpsimd.fpsr.to_le_bytes());
    area.extend_from_slice(&info.fpsimd.fpcr.to_le_bytes());
    area.resize(FPSIMD, 0);
    ptrace::set_register_set(thread, NT_PRFPREG, &area)
        .during("restore vector registers of", thread.as_raw_nonzero())
}

/// The address that the kernel clears and wakes when the thread ends.
pub(crate) fn clear_tid_address(core: &CoreEntry) -> u64 {
    core.ti_aarch64
        .as_ref()
        .map_or(0, |info| info.clear_tid_addr)
}

/// There is no call that maps a vdso here: the live one is moved with mremap(2).
pub(crate) fn map_vdso(address: u64) -> (i64, [u64; 6]) {
    (libc::SYS_mremap, [0, 0, 0, 0, address, 0])
}

fn long(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
