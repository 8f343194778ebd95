//! System call filters (config-linux.md, "Seccomp"). The texts are libseccomp's names.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::go::{is_default, or_default, or_none};
use super::words::words;

/// The `linux.seccomp` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    pub default_action: SeccompAction,
    /// Error number of a default action that takes one; `None` = EPERM.
    #[serde(default, skip_serializing_if = "is_default")]
    pub default_errno_ret: Option<u64>,
    /// Architectures in addition to the native one.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub architectures: Vec<SeccompArch>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub flags: Vec<SeccompFlag>,
    /// A unix socket that is sent the notification fd and a `ContainerProcessState`.
    #[serde(
        default,
        deserialize_with = "or_none",
        skip_serializing_if = "is_default"
    )]
    pub listener_path: Option<PathBuf>,
    /// Opaque text for the listener.
    #[serde(
        default,
        deserialize_with = "or_none",
        skip_serializing_if = "is_default"
    )]
    pub listener_metadata: Option<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub syscalls: Vec<SeccompSyscall>,
}

/// One rule: if the call is one of `names` and the conditions hold, then `action`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompSyscall {
    /// Names that the kernel lacks are let pass.
    #[serde(default, deserialize_with = "or_default")]
    pub names: Vec<String>,
    pub action: SeccompAction,
    /// Error number of `Errno`, message of `Trace`; `None` = EPERM.
    #[serde(default, skip_serializing_if = "is_default")]
    pub errno_ret: Option<u64>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub args: Vec<SeccompArg>,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompArg {
    /// 0 to 5.
    #[serde(default, deserialize_with = "or_default")]
    pub index: u64,
    /// The value compared with; for `MaskedEqual` the mask.
    #[serde(default, deserialize_with = "or_default")]
    pub value: u64,
    /// The value compared with for `MaskedEqual`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub value_two: u64,
    pub op: SeccompOperator,
}

words! {
    pub enum SeccompAction {
        /// The same as `KillThread`.
        Kill = "SCMP_ACT_KILL",
        KillProcess = "SCMP_ACT_KILL_PROCESS",
        KillThread = "SCMP_ACT_KILL_THREAD",
        Trap = "SCMP_ACT_TRAP",
        Errno = "SCMP_ACT_ERRNO",
        Trace = "SCMP_ACT_TRACE",
        Allow = "SCMP_ACT_ALLOW",
        Log = "SCMP_ACT_LOG",
        Notify = "SCMP_ACT_NOTIFY",
    }
}

words! {
    /// Unsigned comparisons of 64 bits.
    pub enum SeccompOperator {
        NotEqual = "SCMP_CMP_NE",
        Less = "SCMP_CMP_LT",
        LessOrEqual = "SCMP_CMP_LE",
        Equal = "SCMP_CMP_EQ",
        GreaterOrEqual = "SCMP_CMP_GE",
        Greater = "SCMP_CMP_GT",
        MaskedEqual = "SCMP_CMP_MASKED_EQ",
    }
}

words! {
    /// Flags of seccomp(2).
    pub enum SeccompFlag {
        /// Always in effect for a single-threaded process.
        Tsync = "SECCOMP_FILTER_FLAG_TSYNC",
        Log = "SECCOMP_FILTER_FLAG_LOG",
        SpecAllow = "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        WaitKillableRecv = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    }
}

words! {
    pub enum SeccompArch {
        X86 = "SCMP_ARCH_X86",
        X86_64 = "SCMP_ARCH_X86_64",
        X32 = "SCMP_ARCH_X32",
        Arm = "SCMP_ARCH_ARM",
        Aarch64 = "SCMP_ARCH_AARCH64",
        Mips = "SCMP_ARCH_MIPS",
        Mips64 = "SCMP_ARCH_MIPS64",
        Mips64n32 = "SCMP_ARCH_MIPS64N32",
        Mipsel = "SCMP_ARCH_MIPSEL",
        Mipsel64 = "SCMP_ARCH_MIPSEL64",
        Mipsel64n32 = "SCMP_ARCH_MIPSEL64N32",
        Ppc = "SCMP_ARCH_PPC",
        Ppc64 = "SCMP_ARCH_PPC64",
        Ppc64le = "SCMP_ARCH_PPC64LE",
        S390 = "SCMP_ARCH_S390",
        S390x = "SCMP_ARCH_S390X",
        Parisc = "SCMP_ARCH_PARISC",
        Parisc64 = "SCMP_ARCH_PARISC64",
        Riscv64 = "SCMP_ARCH_RISCV64",
        Loongarch64 = "SCMP_ARCH_LOONGARCH64",
        M68k = "SCMP_ARCH_M68K",
        Sh = "SCMP_ARCH_SH",
        Sheb = "SCMP_ARCH_SHEB",
    }
}
