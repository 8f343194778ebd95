//! criu's command line on floe's checkpoint engine.

mod log;
mod options;
mod outside;
mod rpc;
mod show;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use checkpoint::image::Directory;
use checkpoint::{Afterwards, DumpOptions, NetworkLock, Place, RestoreOptions};
use log::Log;
use options::Options;
use rustix::process::{Pid, WaitOptions};

/// What peers see as the version of criu: the one whose images and options these are.
const VERSION: &str = "4.2";

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            complain(&format!("{error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let mut log = open_log(&options);
    match run(&options, &mut log) {
        Ok(code) => code,
        Err(error) => {
            log.error(&error);
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, log: &mut Log) -> Result<ExitCode> {
    if options.has("version") {
        print(&format!("Version: {VERSION}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    if options.has("help") || options.action.is_empty() {
        print(&options::help());
        return Ok(ExitCode::SUCCESS);
    }
    match options.action.as_str() {
        "dump" => dump(options, log).map(|()| ExitCode::SUCCESS),
        "restore" => restore(options, log),
        "check" => check(options),
        "show" => {
            print(&format!("{}\n", show::summary(&images(options)?)?));
            Ok(ExitCode::SUCCESS)
        }
        "swrk" => {
            let number = options.rest.first();
            let number = number.context("swrk: name the socket's descriptor")?;
            rpc::serve(number).map(|()| ExitCode::SUCCESS)
        }
        other => bail!("run `{other}`: floe-criu does not do that yet"),
    }
}

fn dump(options: &Options, log: &mut Log) -> Result<()> {
    let tree = options
        .value("tree")
        .context("dump: name the tree (--tree PID)")?;
    let tree = tree
        .parse()
        .with_context(|| format!("dump `{tree}`: it is no process id"))?;
    let images = images(options)?;
    let afterwards = match (options.has("leave-running"), options.has("leave-stopped")) {
        (true, _) => Afterwards::Run,
        (_, true) => Afterwards::Stop,
        _ => Afterwards::Kill,
    };
    let statistics = checkpoint::dump(
        &images,
        &DumpOptions {
            tree,
            afterwards,
            shell_job: options.has("shell-job"),
            link_remap: options.has("link-remap"),
            file_locks: options.has("file-locks"),
            tcp_established: options.has("tcp-established"),
            ghost_limit: Some(ghost_limit(options)?),
            external_unix_sockets: options.has("ext-unix-sk"),
            tcp_close: options.has("tcp-close"),
            freeze_group: options.value("freeze-cgroup").map(PathBuf::from),
            network_lock: network_lock(options)?,
            skip_in_flight: options.has("skip-in-flight"),
            external: outside::external(options)?,
            empty_network: outside::empty_network(options),
            ..DumpOptions::default()
        },
    )?;
    log.line(&format!(
        "dumped {} pages, frozen for {:?}",
        statistics.pages_written, statistics.frozen
    ));
    Ok(())
}

fn network_lock(options: &Options) -> Result<NetworkLock> {
    Ok(match options.value("network-lock") {
        None => NetworkLock::Auto,
        Some("nftables") => NetworkLock::Nftables,
        Some("iptables") => NetworkLock::Iptables,
        Some("skip") => NetworkLock::Skip,
        Some(other) => bail!("read options: `{other}`: not nftables, iptables or skip"),
    })
}

/// Bytes, with a suffix K, M or G; criu's default is a mebibyte.
fn ghost_limit(options: &Options) -> Result<u64> {
    let Some(text) = options.value("ghost-limit") else {
        return Ok(1 << 20);
    };
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[number.len()..]
        .chars()
        .next()
        .map(|c| c.to_ascii_uppercase())
    {
        None => 0,
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some(_) => bail!("read options: `{text}`: it is no size"),
    };
    let number: u64 = number
        .parse()
        .with_context(|| format!("read options: `{text}`"))?;
    Ok(number.saturating_mul(1 << shift))
}

fn restore(options: &Options, log: &mut Log) -> Result<ExitCode> {
    let images = images(options)?;
    let restored = checkpoint::restore(
        &images,
        &RestoreOptions {
            shell_job: options.has("shell-job"),
            sibling: options.has("restore-sibling"),
            tcp_established: options.has("tcp-established"),
            tcp_close: options.has("tcp-close"),
            root: options
                .value("root")
                .map(|path| Place::Path(PathBuf::from(path))),
            mounts: outside::mounts(options),
            external: outside::devices(options),
            join: outside::join(options)?,
            inherit: outside::inherit(options)?,
            empty_network: outside::empty_network(options),
            fail_at: None,
        },
    )?;
    log.line(&format!("restored process {}", restored.root));
    if let Some(path) = options.value("pidfile") {
        let path = in_work_directory(options, path);
        let mut file = File::create(&path).with_context(|| format!("create `{path}`"))?;
        write!(file, "{}", restored.root).with_context(|| format!("write `{path}`"))?;
    }
    if options.has("restore-detached") || options.has("restore-sibling") {
        return Ok(ExitCode::SUCCESS);
    }
    wait(restored.root)
}

/// Waits for the root and ends as it did.
fn wait(root: i32) -> Result<ExitCode> {
    let pid = Pid::from_raw(root);
    let status =
        rustix::process::waitpid(pid, WaitOptions::empty()).context("wait for the root")?;
    let status = status.map(|(_, status)| status);
    let code = status
        .and_then(rustix::process::WaitStatus::exit_status)
        .unwrap_or(1);
    Ok(ExitCode::from(code as u8))
}

fn check(options: &Options) -> Result<ExitCode> {
    const HERE: [&str; 17] = [
        "fdinfo_lock",
        "get_rseq_conf",
        "has_ipt_legacy",
        "ipv6_freebind",
        "kcmp_epoll",
        "loginuid",
        "memfd_hugetlb",
        "mnt_id",
        "network_lock_nftables",
        "ns_pid",
        "pagemap_scan_guard_pages",
        "seccomp_filters",
        "seccomp_suspend",
        "sk_unix_file",
        "sockopt_buf_lock",
        "tcp_half_closed",
        "timerfd",
    ];
    match options.value("feature") {
        None | Some("list") => {
            print("Looks good.\n");
            Ok(ExitCode::SUCCESS)
        }
        Some(feature) if HERE.contains(&feature) => Ok(ExitCode::SUCCESS),
        Some(feature) => bail!("check `{feature}`: not supported"),
    }
}

fn images(options: &Options) -> Result<Directory> {
    Ok(Directory::open(options.value("images-dir").unwrap_or("."))?)
}

fn in_work_directory(options: &Options, path: &str) -> String {
    let directory = options
        .value("work-dir")
        .or_else(|| options.value("images-dir"));
    match directory {
        Some(directory) if !path.starts_with('/') => format!("{directory}/{path}"),
        _ => path.to_owned(),
    }
}

/// The log file that `--log-file` names; without it nothing is logged.
fn open_log(options: &Options) -> Log {
    let path = options
        .value("log-file")
        .map(|path| in_work_directory(options, path));
    Log::new(path.and_then(|path| File::create(path).ok()))
}

fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
