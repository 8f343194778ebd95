//! System call filters: from a configuration's rules to the kernel's classic BPF. Pure.
//!
//! What the rules mean, settled here as the specification leaves it open:
//! - For each architecture the rules of a call are tried in the document's order; the first whose
//!   conditions hold decides. Without one the default action does.
//! - All conditions of a rule must hold, unless two of them are on the same argument: then each
//!   counts alone, as runc and its profiles have it.
//! - A call, or an architecture, that the tables lack is ignored; on an architecture that is
//!   neither native nor listed every call kills.
//! - Calls newer than any that the profile names answer ENOSYS rather than the default, where the
//!   default would refuse: programs fall back to an older call on ENOSYS, and on nothing else. A
//!   profile cannot have an opinion on what its author could not know.
//!
//! One program: the architecture first, then a binary search over ranges of call numbers with the
//! same answer, then, for few calls, conditions on arguments. Docker's profile of 400 names takes
//! about seven comparisons a call.

mod arch;
mod assemble;
mod rules;
mod syscalls;

use sys::seccomp::{Instruction, Load};

use crate::spec::{Error, Seccomp, SeccompAction, SeccompArch, SeccompFlag};

/// Instructions in a program (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// A filter ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub program: Vec<Instruction>,
    pub load: Load,
}

/// Compiles the rules for a kernel of architecture `native`.
///
/// # Errors
/// The rules make a program longer than the kernel takes.
pub fn compile(seccomp: &Seccomp, native: SeccompArch) -> Result<Filter, Error> {
    let program = assemble::program(&rules::sections(seccomp, native));
    if program.len() > MAX_INSTRUCTIONS {
        let cause = format!(
            "{} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            program.len()
        );
        return Err(Error::new("config.json", "linux.seccomp", &cause));
    }
    Ok(Filter {
        program,
        load: load(seccomp),
    })
}

/// The architecture that floe was built for; `None` where there is no table of its calls.
#[must_use]
pub const fn native() -> Option<SeccompArch> {
    if cfg!(target_arch = "x86_64") {
        Some(SeccompArch::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(SeccompArch::Aarch64)
    } else if cfg!(target_arch = "riscv64") {
        Some(SeccompArch::Riscv64)
    } else if cfg!(target_arch = "loongarch64") {
        Some(SeccompArch::Loongarch64)
    } else if cfg!(target_arch = "s390x") {
        Some(SeccompArch::S390x)
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Some(SeccompArch::Ppc64le)
    } else {
        None
    }
}

/// Whether filters can name calls of this architecture; of any other all calls are ignored.
#[must_use]
pub fn has_table(arch: SeccompArch) -> bool {
    arch::arch(arch).is_some()
}

/// The flags of seccomp(2) that the running kernel knows.
#[must_use]
pub fn supported_flags() -> Vec<SeccompFlag> {
    let with = |flag| match flag {
        SeccompFlag::Tsync => Load::default(),
        SeccompFlag::Log => Load {
            log: true,
            ..Load::default()
        },
        SeccompFlag::SpecAllow => Load {
            spec_allow: true,
            ..Load::default()
        },
        SeccompFlag::WaitKillableRecv => Load {
            listener: true,
            wait_killable: true,
            ..Load::default()
        },
    };
    SeccompFlag::NAMES
        .iter()
        .filter_map(|name| SeccompFlag::from_name(name))
        .filter(|flag| sys::seccomp::knows_flags(with(*flag)))
        .collect()
}

fn load(seccomp: &Seccomp) -> Load {
    let has = |flag| seccomp.flags.contains(&flag);
    let notifies = |action: SeccompAction| action == SeccompAction::Notify;
    let listener = seccomp.syscalls.iter().any(|rule| notifies(rule.action));
    Load {
        log: has(SeccompFlag::Log),
        spec_allow: has(SeccompFlag::SpecAllow),
        listener,
        // Without a listener the kernel refuses the flag, which then means nothing.
        wait_killable: listener && has(SeccompFlag::WaitKillableRecv),
        // Tsync is for threads, and the runtime has one.
    }
}

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;
