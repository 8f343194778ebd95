//! What a new container is asked to be: the flags that `run` and `create` share.
//!
//! This is the one definition of each flag; help, man page and completions derive from it.

use std::path::PathBuf;

use clap::Args;

/// Flags of `floe run` and `floe create`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Identity")]
pub(crate) struct CreateFlags {
    /// Name; a random one if not given
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Attach KEY=VALUE to the container (repeatable)
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Host name inside; the short id if not given
    #[arg(short = 'h', long)]
    pub(crate) hostname: Option<String>,
    /// Write the container's id to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) root: RootFlags,
    #[command(flatten)]
    pub(crate) process: ProcessFlags,
    #[command(flatten)]
    pub(crate) storage: StorageFlags,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) isolation: IsolationFlags,
    #[command(flatten)]
    pub(crate) life: LifeFlags,

    /// Program and arguments
    #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Root file system (default: a throw-away copy of this machine's)")]
pub(crate) struct RootFlags {
    /// Directory, tar archive (also .gz, .zst) or OCI image layout directory; never written to,
    /// except a directory given as DIR:rw
    #[arg(long, value_name = "PATH")]
    pub(crate) rootfs: Option<String>,
    /// Image of an OCI layout with several: its tag
    #[arg(long, value_name = "TAG", requires = "rootfs")]
    pub(crate) tag: Option<String>,
    /// Open a path of this machine that the default root hides (repeatable)
    #[arg(long, value_name = "PATH", conflicts_with = "rootfs")]
    pub(crate) show: Vec<PathBuf>,
    /// Keep the writable layer in memory instead of on disk
    #[arg(long)]
    pub(crate) tmpfs_layer: bool,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Process")]
pub(crate) struct ProcessFlags {
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set NAME=VALUE, or pass NAME on from here (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file, one to a line (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Program to run in place of the image's; the rest are its arguments
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Additional group, by name or number (repeatable)
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Run a small init as the first process: it reaps orphans and forwards signals
    #[arg(long)]
    pub(crate) init: bool,
    /// Resource limit of the process: nofile=1024:2048 (repeatable)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// Adjust how readily the kernel kills it when memory ends (-1000 to 1000)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i32>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Storage and devices")]
pub(crate) struct StorageFlags {
    /// Mount a directory or file: SOURCE:TARGET[:ro,rw,Z,…]; a plain name is a volume of floe's
    #[arg(short, long, value_name = "SOURCE:TARGET[:OPTIONS]")]
    pub(crate) volume: Vec<String>,
    /// Mount: type=bind|volume|tmpfs,source=…,target=…[,readonly,…]
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) mount: Vec<String>,
    /// Mount a tmpfs: TARGET[:OPTIONS]
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", default_value = "64m")]
    pub(crate) shm_size: String,
    /// Give it a device of this machine: SOURCE[:TARGET[:rwm]] (repeatable)
    #[arg(long, value_name = "SOURCE[:TARGET[:rwm]]")]
    pub(crate) device: Vec<String>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitFlags {
    /// Memory
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Memory and swap together; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Memory it keeps when others press
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory_reservation: Option<String>,
    /// Cpus' worth of time: 1.5
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<String>,
    /// Weight against other containers when cpus are busy; 1024 is usual
    #[arg(short, long, value_name = "N")]
    pub(crate) cpu_shares: Option<u64>,
    /// Cpus it may run on: 0-2,4
    #[arg(long, value_name = "LIST", alias = "cpuset-cpus")]
    pub(crate) cpuset: Option<String>,
    /// Memory nodes it may use: 0,1
    #[arg(long, value_name = "LIST", alias = "cpuset-mems")]
    pub(crate) memset: Option<String>,
    /// Number of processes and threads; -1 is no limit
    #[arg(
        long,
        value_name = "N",
        alias = "pids-limit",
        allow_hyphen_values = true
    )]
    pub(crate) pids: Option<i64>,
    /// Make its group below this one, or in this slice of systemd's
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Isolation")]
pub(crate) struct IsolationFlags {
    /// none (loopback only, the default), host, container:NAME or ns:PATH
    #[arg(long, visible_alias = "network", value_name = "MODE")]
    pub(crate) net: Option<String>,
    /// Publish a port (needs the bridge network, which this version lacks)
    #[arg(short, long, value_name = "PORTS")]
    pub(crate) publish: Vec<String>,
    /// Pid namespace: private (default), host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub(crate) pid: Option<String>,
    /// IPC namespace: private (default), host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub(crate) ipc: Option<String>,
    /// Host name's namespace: private (default), host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub(crate) uts: Option<String>,
    /// User namespace: host (default as root), private (default otherwise), keep-id or
    /// CONTAINER:HOST:COUNT
    #[arg(long, value_name = "MODE")]
    pub(crate) userns: Option<String>,
    /// Move the clocks that count from boot: 1h, -30s, or monotonic=1h,boottime=2h
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    pub(crate) time_offset: Option<String>,
    /// Add a capability, or ALL (repeatable)
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Take a capability away, or ALL (repeatable)
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// Give it all capabilities, devices and files of the kernel: no protection from it
    #[arg(long)]
    pub(crate) privileged: bool,
    /// no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE, label=LABEL, mask=PATH,
    /// unmask=PATH|ALL (repeatable)
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// Kernel parameter of its namespaces: net.ipv4.ip_forward=1 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) sysctl: Vec<String>,
    /// Seal it: exec, cp and `ns enter` are refused
    #[arg(long)]
    pub(crate) no_enter: bool,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Life")]
pub(crate) struct LifeFlags {
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// When it ends: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub(crate) restart: String,
    /// Signal that asks it to end
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Time it has to end before it is killed
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<u64>,
    /// Size at which its log is rotated
    #[arg(long, value_name = "BYTES", default_value = "10m")]
    pub(crate) log_size: String,
    /// Keys that detach from it and leave it running
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
}
