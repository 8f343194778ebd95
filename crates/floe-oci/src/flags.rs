//! The command line: one definition, from which help, man page and completions derive.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

/// An OCI runtime with runc's command line.
#[derive(Debug, Parser)]
#[command(name = "floe-oci", disable_version_flag = true, max_term_width = 100)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags before the command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Directory of the containers' state, on a tmpfs [default: /run/floe-oci, or below $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// File to which errors are appended
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Log more
    #[arg(long)]
    pub(crate) debug: bool,
    /// Let systemd make the groups; cgroupsPath is `slice:prefix:name`
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Accepted for runc's callers: what a caller may do is found out
    #[arg(long, value_name = "true|false|auto", hide = true)]
    pub(crate) rootless: Option<String>,
    /// Program that checkpoints and restores, by criu's RPC [default: floe-criu beside this program, or criu in $PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) criu: Option<PathBuf>,
    /// Print the version
    #[arg(short = 'v', long)]
    pub(crate) version: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a container; its process waits for `start`
    Create(Create),
    /// Run the program of a created container
    Start(Id),
    /// Create and start a container, wait for its program, delete it
    Run(Run),
    /// Run another program in a container
    Exec(Box<Exec>),
    /// Print a container's state
    State(Id),
    /// List containers
    List(List),
    /// List a container's processes
    Ps(Ps),
    /// Send a signal to a container
    Kill(Kill),
    /// Delete a stopped container
    Delete(Delete),
    /// Freeze all processes of a container
    Pause(Id),
    /// Let a paused container go on
    Resume(Id),
    /// Change a container's limits
    Update(Box<Update>),
    /// Print what a container uses, and when its memory runs out
    Events(Events),
    /// Save a container's processes to disk
    Checkpoint(Box<Checkpoint>),
    /// Create a container from what `checkpoint` saved; its processes go on
    Restore(Box<Restore>),
    /// Print what this runtime can do, as JSON
    Features,
    /// Write an example config.json
    Spec(Spec),
}

impl Command {
    /// The exit code of a failure of ours; of `exec` it must differ from the program's own.
    pub(crate) fn failure_code(&self) -> u8 {
        match self {
            Command::Exec(_) => 255,
            _ => 1,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Unix socket that is sent the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Unix socket that is sent a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// File to write the process's pid to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Use chroot, for a host that runs from its initramfs
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Stay in the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Descriptors after the standard ones that the program inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Do not wait for the program
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not delete the container afterwards
    #[arg(long)]
    pub(crate) keep: bool,
    /// Do not become the reaper of the container's orphans
    #[arg(long)]
    pub(crate) no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// File with the process as JSON, of the form of `process` in config.json
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Unix socket that is sent the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Unix socket that is sent a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// File to write the process's pid to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Do not wait for the program
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Environment variable, NAME=value
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Numbers of user and group
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Numbers of more groups
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// Capability to add
    #[arg(short, long, value_name = "CAP_NAME")]
    pub(crate) cap: Vec<String>,
    /// Group below the container's, for all controllers or one
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Let it gain no privileges by exec
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// Allow it in a paused container; it runs once that is resumed
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Descriptors after the standard ones that the program inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// The container's id
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: Format,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: Format,
    /// The container's id
    pub(crate) id: String,
    /// Options of ps(1) [default: -ef]
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PS OPTIONS"
    )]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Send it to every process of the container
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The container's id
    pub(crate) id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM", allow_hyphen_values = true)]
    pub(crate) signal: String,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Kill it first if it runs; one that does not exist is no error
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// File with a JSON object of the form of `linux.resources`, `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub(crate) blkio_weight: Option<u16>,
    /// Microseconds per period
    #[arg(long, value_name = "US")]
    pub(crate) cpu_period: Option<u64>,
    /// Microseconds of processor time per period
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Microseconds that may be saved up
    #[arg(long, value_name = "US")]
    pub(crate) cpu_burst: Option<u64>,
    /// Weight of the processor, 2 to 262144
    #[arg(long, value_name = "N")]
    pub(crate) cpu_share: Option<u64>,
    /// Microseconds of real-time scheduling per real-time period
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// Microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Run only when the processor is idle
    #[arg(long, value_name = "0|1")]
    pub(crate) cpu_idle: Option<i64>,
    /// Processors, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<i64>,
    /// Bytes that the container keeps when memory is short
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<i64>,
    /// Bytes of memory and swap together
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<i64>,
    /// Accepted and ignored: kernel memory is part of memory
    #[arg(long, value_name = "BYTES", hide = true, allow_hyphen_values = true)]
    pub(crate) kernel_memory: Option<i64>,
    /// Accepted and ignored
    #[arg(long, value_name = "BYTES", hide = true, allow_hyphen_values = true)]
    pub(crate) kernel_memory_tcp: Option<i64>,
    /// Processes and threads
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Print the present numbers once and end
    #[arg(long)]
    pub(crate) stats: bool,
    /// Time between two reports
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub(crate) interval: String,
    /// The container's id
    pub(crate) id: String,
}

/// What `checkpoint` and `restore` have in common.
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Directory of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub(crate) image_path: PathBuf,
    /// Directory of the log [default: that of the images]
    #[arg(long, value_name = "DIR")]
    pub(crate) work_path: Option<PathBuf>,
    /// Allow established TCP connections
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// Allow Unix sockets with a peer outside
    #[arg(long)]
    pub(crate) ext_unix_sk: bool,
    /// Allow a session and a terminal of outside
    #[arg(long)]
    pub(crate) shell_job: bool,
    /// Allow file locks
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// What becomes of resource groups
    #[arg(long, value_name = "MODE")]
    pub(crate) manage_cgroups_mode: Option<GroupMode>,
    /// Namespace that comes back with nothing in it
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) empty_ns: Vec<EmptyNamespace>,
    /// Accepted: there are no earlier images to take pages from
    #[arg(long, hide = true)]
    pub(crate) auto_dedup: bool,
    /// Leave memory to be read later: not in this version
    #[arg(long, hide = true)]
    pub(crate) lazy_pages: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupMode {
    Soft,
    Full,
    Strict,
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmptyNamespace {
    Network,
}

#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    pub(crate) images: Images,
    /// Let the container run on instead of deleting it
    #[arg(long)]
    pub(crate) leave_running: bool,
    /// Leave out connections that are being made
    #[arg(long)]
    pub(crate) tcp_skip_in_flight: bool,
    /// Give files whose name is gone a temporary one
    #[arg(long)]
    pub(crate) link_remap: bool,
    /// Images of an earlier `--pre-dump`: not in this version
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) parent_path: Option<PathBuf>,
    /// Save memory only, and let the container run on: not in this version
    #[arg(long, hide = true)]
    pub(crate) pre_dump: bool,
    /// Send memory to another machine: not in this version
    #[arg(long, value_name = "ADDRESS:PORT", hide = true)]
    pub(crate) page_server: Option<String>,
    /// Descriptor that is told when lazy pages are served: not in this version
    #[arg(long, value_name = "FD", hide = true)]
    pub(crate) status_fd: Option<i32>,
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) images: Images,
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Unix socket that is sent the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// File to write the process's pid to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Do not wait for the program
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not become the reaper of the container's orphans
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    /// Accepted: no root is pivoted in a restore
    #[arg(long, hide = true)]
    pub(crate) no_pivot: bool,
    /// Bring TCP connections back closed
    #[arg(long)]
    pub(crate) tcp_close: bool,
    /// Profile of AppArmor or SELinux, TYPE:NAME
    #[arg(long, value_name = "PROFILE")]
    pub(crate) lsm_profile: Option<String>,
    /// SELinux label of mounts
    #[arg(long, value_name = "LABEL")]
    pub(crate) lsm_mount_context: Option<String>,
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// Directory to write to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// For a user who is not root
    #[arg(long)]
    pub(crate) rootless: bool,
}

/// A command line that is not run: help, version, or an error.
#[derive(Debug)]
pub(crate) enum Refused {
    Clap(Box<clap::Error>),
    Version,
}

/// Parses a command line.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Flags, Refused> {
    let command = Flags::command();
    // The version flag needs no command, which clap would ask for.
    let is_command = |argument: &&OsString| {
        command
            .get_subcommands()
            .any(|one| *argument == one.get_name())
    };
    let mut before = arguments
        .iter()
        .skip(1)
        .take_while(|argument| !is_command(argument));
    if before.any(|argument| argument == "--version" || argument == "-v") {
        return Err(Refused::Version);
    }
    let clap = |error| Refused::Clap(Box::new(error));
    let matches = command.try_get_matches_from(arguments).map_err(clap)?;
    Flags::from_arg_matches(&matches).map_err(clap)
}

impl Refused {
    /// Prints it to where it belongs; runc's exit codes.
    #[expect(
        clippy::print_stdout,
        clippy::print_stderr,
        reason = "the one place that prints help"
    )]
    pub(crate) fn print(&self) -> ExitCode {
        match self {
            Refused::Version => {
                println!("{}", crate::command::version::text());
                ExitCode::SUCCESS
            }
            Refused::Clap(error) if !error.use_stderr() => {
                print!("{error}");
                ExitCode::SUCCESS
            }
            Refused::Clap(error) => {
                eprint!("{error}");
                if let Some(flag) = without_value(error) {
                    // Podman looks for these words to learn which flags there are.
                    eprintln!("flag needs an argument: {flag}");
                }
                match error.kind() {
                    clap::error::ErrorKind::InvalidSubcommand => ExitCode::from(3),
                    _ => ExitCode::FAILURE,
                }
            }
        }
    }
}

/// The flag that was given without its value.
fn without_value(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let (flag, value) = (
        error.get(ContextKind::InvalidArg)?,
        error.get(ContextKind::InvalidValue),
    );
    let empty = match value {
        Some(ContextValue::String(text)) => text.is_empty(),
        None => true,
        Some(_) => false,
    };
    (error.kind() == ErrorKind::InvalidValue && empty).then(|| flag.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_without_its_value_is_named() {
        for (line, named) in [
            (&["floe-oci", "restore", "--lsm-mount-context"][..], true),
            (&["floe-oci", "restore", "--nonsense"], false),
            (&["floe-oci", "list", "--format", "x"], false),
        ] {
            let line: Vec<OsString> = line.iter().map(OsString::from).collect();
            let Err(Refused::Clap(error)) = parse(&line) else {
                panic!("{line:?} is refused");
            };
            assert_eq!(without_value(&error).is_some(), named, "{line:?}");
        }
    }

    #[test]
    fn man_pages_and_completions() {
        ::tests::pages::check(Flags::command());
    }
}
