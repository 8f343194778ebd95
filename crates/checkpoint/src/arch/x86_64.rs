//! x86-64.

use rustix::process::Pid;
use sys::ptrace::{self, NT_PRSTATUS, NT_X86_XSTATE};

use crate::error::{Context, Error, Result};
use crate::image::core::{
    CoreEntry, March, ThreadInfoX86, UserX86FpregsEntry, UserX86RegsEntry, UserX86RegsMode,
    UserX86XsaveEntry,
};

/// The `syscall` instruction.
pub(crate) const SYSCALL_INSTRUCTION: &[u8] = &[0x0f, 0x05];
/// First address that user memory cannot have.
pub(crate) const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// What the calls "sleep" and their like return when a stop interrupts them.
const RESTARTS: std::ops::RangeInclusive<i64> = -516..=-512;
const RESTART_BLOCK: i64 = -516;

const ARCH_MAP_VDSO_64: u64 = 0x2003;
const XSAVE_AREA: usize = 16 << 10;
const LEGACY: usize = 512;

// Positions in `struct user_regs_struct`.
const R15: usize = 0;
const R10: usize = 7;
const R9: usize = 8;
const R8: usize = 9;
const RAX: usize = 10;
const RDX: usize = 12;
const RSI: usize = 13;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;
const RIP: usize = 16;
const CS: usize = 17;
const FLAGS: usize = 18;
const COUNT: usize = 27;
const TRAP_FLAG: u64 = 0x100;
const USER_CS_64: u64 = 0x33;

/// The general registers of a stopped thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registers([u64; COUNT]);

impl Registers {
    /// Those of a stopped thread.
    pub(crate) fn of(thread: Pid) -> sys::Result<Self> {
        let mut bytes = [0; COUNT * 8];
        ptrace::register_set(thread, NT_PRSTATUS, &mut bytes)?;
        let mut registers = Self([0; COUNT]);
        for (register, bytes) in registers.0.iter_mut().zip(bytes.chunks_exact(8)) {
            *register = bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        }
        Ok(registers)
    }

    /// Gives them to a stopped thread.
    pub(crate) fn install(&self, thread: Pid) -> sys::Result<()> {
        let bytes: Vec<u8> = self
            .0
            .iter()
            .flat_map(|register| register.to_ne_bytes())
            .collect();
        ptrace::set_register_set(thread, NT_PRSTATUS, &bytes)
    }

    /// The same, about to make a system call with the instruction at `gadget`.
    pub(crate) fn with_call(&self, gadget: u64, number: i64, arguments: [u64; 6]) -> Self {
        let mut registers = self.clone();
        let places = [RDI, RSI, RDX, R10, R8, R9];
        places
            .iter()
            .zip(arguments)
            .for_each(|(place, value)| registers.0[*place] = value);
        registers.0[RAX] = number as u64;
        registers.0[RIP] = gadget;
        registers.0[ORIG_RAX] = u64::MAX;
        registers.0[CS] = USER_CS_64;
        registers.0[FLAGS] &= !TRAP_FLAG;
        registers
    }

    /// The same, about to run the tape at `entries` with the loop at `code`.
    pub(crate) fn with_tape(&self, code: u64, entries: u64) -> Self {
        let mut registers = self.with_call(code, -1, [0; 6]);
        registers.0[R15] = entries;
        registers
    }

    /// What the last system call returned.
    pub(crate) fn result(&self) -> i64 {
        self.0[RAX] as i64
    }

    /// Whether the thread runs 32-bit code.
    pub(crate) fn is_compat(&self) -> bool {
        self.0[CS] != USER_CS_64
    }

    /// The same as they must be to run on after a restore: an interrupted system call is made
    /// again, and one that only the kernel could go on with (a relative sleep) sees EINTR.
    pub(crate) fn restartable(&self) -> Self {
        let mut registers = self.clone();
        let in_call = self.0[ORIG_RAX] as i64 >= 0;
        if in_call && RESTARTS.contains(&self.result()) {
            if self.result() == RESTART_BLOCK {
                registers.0[RAX] = -i64::from(libc::EINTR) as u64;
            } else {
                registers.0[RAX] = self.0[ORIG_RAX];
                registers.0[RIP] -= SYSCALL_INSTRUCTION.len() as u64;
            }
        }
        registers
    }

    fn to_image(&self) -> UserX86RegsEntry {
        let [
            r15,
            r14,
            r13,
            r12,
            bp,
            bx,
            r11,
            r10,
            r9,
            r8,
            ax,
            cx,
            dx,
            si,
            di,
            orig_ax,
            ip,
            cs,
            flags,
            sp,
            ss,
            fs_base,
            gs_base,
            ds,
            es,
            fs,
            gs,
        ] = self.0;
        let mode = Some(UserX86RegsMode::Native as i32);
        UserX86RegsEntry {
            r15,
            r14,
            r13,
            r12,
            bp,
            bx,
            r11,
            r10,
            r9,
            r8,
            ax,
            cx,
            dx,
            si,
            di,
            orig_ax,
            ip,
            cs,
            flags,
            sp,
            ss,
            fs_base,
            gs_base,
            ds,
            es,
            fs,
            gs,
            mode,
        }
    }

    /// As they are in an image, fit to be installed.
    pub(crate) fn from_image(core: &CoreEntry, name: &str) -> Result<Self> {
        let info = core.thread_info.as_ref();
        let Some(regs) = info.map(|info| &info.gpregs) else {
            return Err(Error::because(
                "restore registers",
                name,
                "the image has none of x86-64",
            ));
        };
        if regs.mode() != UserX86RegsMode::Native || regs.cs != USER_CS_64 {
            return Err(Error::because(
                "restore registers",
                name,
                "32-bit programs are not supported",
            ));
        }
        Ok(Self([
            regs.r15,
            regs.r14,
            regs.r13,
            regs.r12,
            regs.bp,
            regs.bx,
            regs.r11,
            regs.r10,
            regs.r9,
            regs.r8,
            regs.ax,
            regs.cx,
            regs.dx,
            regs.si,
            regs.di,
            u64::MAX,
            regs.ip,
            regs.cs,
            regs.flags & !TRAP_FLAG,
            regs.sp,
            regs.ss,
            regs.fs_base,
            regs.gs_base,
            regs.ds,
            regs.es,
            regs.fs,
            regs.gs,
        ]))
    }
}

/// The parts of the extended state that an image holds, with the kernel's component numbers.
const COMPONENTS: [u32; 7] = [2, 3, 4, 5, 6, 7, 9];

/// Fills the architecture's part of `core` from a stopped thread.
pub(crate) fn dump(
    thread: Pid,
    registers: &Registers,
    clear_tid_addr: u64,
    core: &mut CoreEntry,
) -> Result<()> {
    let mut area = vec![0; XSAVE_AREA];
    let length = ptrace::register_set(thread, NT_X86_XSTATE, &mut area)
        .during("read extended state of", thread.as_raw_nonzero())?;
    area.truncate(length);
    core.mtype = March::X8664 as i32;
    core.thread_info = Some(ThreadInfoX86 {
        clear_tid_addr,
        gpregs: registers.restartable().to_image(),
        fpregs: extended_state(&area),
        tls: Vec::new(),
    });
    Ok(())
}

fn extended_state(area: &[u8]) -> UserX86FpregsEntry {
    let u16_at = |at: usize| u32::from(u16::from_le_bytes([area[at], area[at + 1]]));
    let words = |from: usize, bytes: usize| words_of(&area[from..from + bytes]);
    let longs = |from: usize, bytes: usize| longs_of(&area[from..from + bytes]);
    let mut xsave = UserX86XsaveEntry {
        xstate_bv: longs(LEGACY, 8)[0],
        ..Default::default()
    };
    for number in COMPONENTS {
        let Some((at, size)) = component(number, area.len()) else {
            continue;
        };
        match number {
            2 => xsave.ymmh_space = words(at, size),
            3 => xsave.bndreg_state = longs(at, size),
            4 => xsave.bndcsr_state = longs(at, size),
            5 => xsave.opmask_reg = longs(at, size),
            6 => xsave.zmm_upper = longs(at, size),
            7 => xsave.hi16_zmm = longs(at, size),
            _ => xsave.pkru = words(at, size),
        }
    }
    UserX86FpregsEntry {
        cwd: u16_at(0),
        swd: u16_at(2),
        twd: u16_at(4),
        fop: u16_at(6),
        rip: longs(8, 8)[0],
        rdp: longs(16, 8)[0],
        mxcsr: words(24, 4)[0],
        mxcsr_mask: words(28, 4)[0],
        st_space: words(32, 128),
        xmm_space: words(160, 256),
        padding: Vec::new(),
        xsave: Some(xsave),
    }
}

/// Installs the extended state of `core` in a stopped thread.
pub(crate) fn restore_extended_state(thread: Pid, core: &CoreEntry) -> Result<()> {
    let Some(info) = core.thread_info.as_ref() else {
        return Ok(());
    };
    let object = thread.as_raw_nonzero();
    let mut area = vec![0; XSAVE_AREA];
    let length = ptrace::register_set(thread, NT_X86_XSTATE, &mut area)
        .during("read extended state of", object)?;
    area.truncate(length);
    fill_extended_state(&info.fpregs, &mut area)
        .map_err(|cause| Error::because("restore extended state of", object, cause))?;
    ptrace::set_register_set(thread, NT_X86_XSTATE, &area)
        .during("restore extended state of", object)
}

fn fill_extended_state(
    image: &UserX86FpregsEntry,
    area: &mut [u8],
) -> std::result::Result<(), &'static str> {
    area[..LEGACY - 48].fill(0);
    let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, value) in [
        (0, image.cwd),
        (2, image.swd),
        (4, image.twd),
        (6, image.fop),
    ] {
        put(at, &(value as u16).to_le_bytes());
    }
    put(8, &image.rip.to_le_bytes());
    put(16, &image.rdp.to_le_bytes());
    put(
        24,
        &(image.mxcsr & image.mxcsr_mask.max(0xffbf)).to_le_bytes(),
    );
    put(28, &image.mxcsr_mask.to_le_bytes());
    if image.st_space.len() != 32 || image.xmm_space.len() != 64 {
        return Err("the image's floating point registers have a wrong size");
    }
    put(32, &bytes_of_words(&image.st_space));
    put(160, &bytes_of_words(&image.xmm_space));
    // x87 and SSE are always there.
    let mut present = 3;
    let Some(xsave) = &image.xsave else {
        area[LEGACY..LEGACY + 8].copy_from_slice(&3_u64.to_le_bytes());
        return Ok(());
    };
    for number in COMPONENTS {
        let bytes = match number {
            2 => bytes_of_words(&xsave.ymmh_space),
            3 => bytes_of_longs(&xsave.bndreg_state),
            4 => bytes_of_longs(&xsave.bndcsr_state),
            5 => bytes_of_longs(&xsave.opmask_reg),
            6 => bytes_of_longs(&xsave.zmm_upper),
            7 => bytes_of_longs(&xsave.hi16_zmm),
            _ => bytes_of_words(&xsave.pkru),
        };
        let in_use = xsave.xstate_bv & (1 << number) != 0 && !bytes.is_empty();
        match component(number, area.len()) {
            Some((at, size)) if in_use && bytes.len() <= size => {
                area[at..at + bytes.len()].copy_from_slice(&bytes);
                present |= 1 << number;
            }
            Some(_) if in_use => return Err("the image's extended state has a wrong size"),
            None if in_use => return Err("this processor lacks registers that the image holds"),
            Some(_) | None => {}
        }
    }
    let bits = (xsave.xstate_bv & 3) | (present & !3);
    area[LEGACY..LEGACY + 8].copy_from_slice(&bits.to_le_bytes());
    area[LEGACY + 8..LEGACY + 64].fill(0);
    Ok(())
}

fn component(number: u32, area: usize) -> Option<(usize, usize)> {
    sys::cpu::extended_state_component(number).filter(|(at, size)| at + size <= area)
}

fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

fn longs_of(bytes: &[u8]) -> Vec<u64> {
    let word = |b: &[u8]| {
        b.iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    bytes.chunks_exact(8).map(word).collect()
}

fn bytes_of_words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn bytes_of_longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

/// The address that the kernel clears and wakes when the thread ends.
pub(crate) fn clear_tid_address(core: &CoreEntry) -> u64 {
    core.thread_info
        .as_ref()
        .map_or(0, |info| info.clear_tid_addr)
}

/// The call that maps a fresh vdso (with its data pages first) at `address`.
pub(crate) fn map_vdso(address: u64) -> (i64, [u64; 6]) {
    (
        libc::SYS_arch_prctl,
        [ARCH_MAP_VDSO_64, address, 0, 0, 0, 0],
    )
}
