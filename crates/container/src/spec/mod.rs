//! The OCI runtime specification's documents, version 1.3, as far as Linux goes.
//!
//! These types are the edge: they say what a document may hold, in the document's own words and
//! units, and no more. [`parse`] refuses wrong types; meaning is judged separately.
//! Fields that are not in the specification are ignored, as every peer does.

mod config;
mod error;
mod features;
mod go;
mod hooks;
mod linux;
mod load;
mod process;
mod resources;
mod sample;
mod seccomp;
mod state;
mod strict;
mod validate;
mod words;

pub use config::{Mount, Root, Spec};
pub use error::Error;
pub use features::{Facts, features};
pub use hooks::{Hook, Hooks};
pub use linux::{
    Device, DeviceKind, IdMapping, IntelRdt, Linux, MemoryPolicy, MemoryPolicyFlag,
    MemoryPolicyMode, Namespace, NamespaceKind, NetDevice, Personality, PersonalityDomain,
    TimeOffset,
};
pub(crate) use load::document;
pub use load::{MAX_DOCUMENT, load, parse, parse_process, parse_resources, read_document};
pub use process::{
    Capabilities, ConsoleSize, CpuAffinity, IoPriority, IoPriorityClass, Process, Rlimit,
    Scheduler, SchedulerFlag, SchedulerPolicy, User,
};
pub use resources::{
    BlockIo, Cpu, DeviceRule, DeviceRuleKind, HugepageLimit, InterfacePriority, Memory, Network,
    Pids, Rdma, Resources, ThrottleDevice, WeightDevice,
};
pub use sample::{sample, sample_rootless};
pub use seccomp::{
    Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompFlag, SeccompOperator, SeccompSyscall,
};
pub use state::{ContainerProcessState, SECCOMP_FD_NAME, State, Status};
pub use validate::{ranges, sysctl_path, validate, validate_process, validate_resources};

/// The version of the specification that floe implements.
pub const VERSION: &str = "1.3.0";
