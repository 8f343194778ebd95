//! `floe checkpoint`

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use monitor::wire::Request;
use serde_json::{Value, json};

use crate::output::{self, Format};
use crate::runtime::{Runtime, companion};
use crate::session::Session;
use crate::store::Store;
use crate::store::container::{Container, Word};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    show: Option<Subject>,
    /// Directory of the images [default: the container's own]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Checkpoint this process and its descendants, outside of containers
    #[arg(
        long,
        value_name = "PID",
        conflicts_with = "container",
        requires = "to"
    )]
    pid: Option<i32>,
    /// Let it run on instead of ending it
    #[arg(long)]
    leave_running: bool,
    /// Allow established TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Allow file locks
    #[arg(long)]
    file_locks: bool,
    /// Allow Unix sockets with a peer outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow the session and terminal of a shell (with --pid)
    #[arg(long, requires = "pid")]
    shell_job: bool,
    /// How to show what was done
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Show what is in images
    Show {
        /// How to show it
        #[arg(long, value_name = "FORMAT", default_value = "table")]
        format: Format,
        /// Directory of images, or a container's name
        #[arg(value_name = "DIR|CONTAINER")]
        images: String,
    },
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    match (&flags.show, &flags.container, flags.pid) {
        (Some(Subject::Show { format, images }), _, _) => show(images, *format),
        (None, Some(name), _) => container(flags, name),
        (None, None, Some(pid)) => process(flags, pid),
        (None, None, None) => bail!("name a container, or a process with --pid"),
    }
}

/// Where a container's images are by default.
pub(super) fn directory(container: &Container) -> PathBuf {
    container.dir.join("checkpoint")
}

/// The flags that the runtime and criu have in common.
fn allowed(flags: &Flags) -> impl Iterator<Item = &'static str> {
    let allowed = [
        (flags.leave_running, "--leave-running"),
        (flags.tcp_established, "--tcp-established"),
        (flags.file_locks, "--file-locks"),
        (flags.ext_unix_sk, "--ext-unix-sk"),
        (flags.shell_job, "--shell-job"),
    ];
    allowed
        .into_iter()
        .filter_map(|(on, flag)| on.then_some(flag))
}

fn container(flags: &Flags, name: &str) -> Result<u8> {
    let store = Store::open()?;
    let runtime = Runtime::find(&store)?;
    let container = store.find(name)?;
    container.refuse_if_sealed("checkpoint")?;
    let lock = container.lock()?;
    let word = container.state_locked(&store)?.word;
    let name = &container.record.name;
    if !matches!(word, Word::Running | Word::Paused) {
        bail!("container `{name}` is {}, not running", word.name());
    }
    if container.record.remove && !flags.leave_running {
        bail!(
            "container `{name}` is removed when it ends (--rm)\n`--leave-running` lets it run on"
        );
    }
    let images = match &flags.to {
        Some(path) => std::path::absolute(path).context("--to")?,
        None => directory(&container),
    };
    let fresh = Fresh::make(&images)?;
    dump(flags, &container, &runtime, &fresh.path)?;
    fresh.keep(&images)?;
    drop(lock);
    let details = [("directory", images.to_string_lossy().into_owned())];
    let details = details
        .each_ref()
        .map(|(key, value)| (*key, value.as_str()));
    crate::events::record(&store, &container, "checkpoint", &details);
    report(flags.format, name, &images)
}

/// Has the runtime checkpoint the container. Its monitor must not start it again meanwhile, and
/// must know it if it goes on.
fn dump(flags: &Flags, container: &Container, runtime: &Runtime, images: &Path) -> Result<()> {
    let session = Session::connect(container)?;
    if !flags.leave_running {
        session.request(&Request::Hold)?;
    }
    let mut arguments = vec!["--image-path".into(), images.as_os_str().to_owned()];
    arguments.extend(allowed(flags).map(Into::into));
    arguments.push(container.record.id.clone().into());
    if let Err(error) = runtime.run("checkpoint", arguments) {
        if !flags.leave_running {
            // A monitor whose container is gone has nothing to release.
            let _gone = session.request(&Request::Release);
        }
        return Err(error);
    }
    if !flags.leave_running {
        session.wait(Some(std::time::Duration::from_secs(10)))?;
    }
    Ok(())
}

/// A directory that takes the place of an older one only when it is whole.
struct Fresh {
    path: PathBuf,
    kept: bool,
}

impl Fresh {
    fn make(wanted: &Path) -> Result<Self> {
        let mut name = wanted.file_name().context("--to: no name")?.to_owned();
        name.push(format!(".new{}", std::process::id()));
        let path = wanted.with_file_name(name);
        let occupied = wanted.exists() && !wanted.join("inventory.img").exists();
        let empty = || std::fs::read_dir(wanted).is_ok_and(|mut entries| entries.next().is_none());
        if occupied && !empty() {
            bail!(
                "--to `{}`: it is there, and holds no images",
                wanted.display()
            );
        }
        crate::store::make_private(&path)?;
        Ok(Self { path, kept: false })
    }

    fn keep(mut self, wanted: &Path) -> Result<()> {
        super::rm::remove_tree(wanted)?;
        std::fs::rename(&self.path, wanted)
            .with_context(|| format!("name images `{}`", wanted.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.kept {
            // The checkpoint's error is the one to tell.
            let _ = super::rm::remove_tree(&self.path);
        }
    }
}

fn process(flags: &Flags, pid: i32) -> Result<u8> {
    let wanted = flags.to.as_deref().context("--to is missing")?;
    let wanted = std::path::absolute(wanted).context("--to")?;
    let fresh = Fresh::make(&wanted)?;
    let mut command = Command::new(companion("floe-criu")?);
    command.args(["dump", "--tree", &pid.to_string(), "--images-dir"]);
    command.arg(&fresh.path).args(allowed(flags));
    let output = command.stdin(Stdio::null()).output();
    let output = output.context("execute `floe-criu`")?;
    if !output.status.success() {
        bail!(
            "{}",
            crate::text::plain(String::from_utf8_lossy(&output.stderr).trim())
        );
    }
    fresh.keep(&wanted)?;
    report(flags.format, &pid.to_string(), &wanted)
}

fn report(format: Format, name: &str, images: &Path) -> Result<u8> {
    match format {
        Format::Table => output::line(name)?,
        Format::Json => {
            let summary = summary(images)?;
            let (files, bytes) = size(images)?;
            output::json(&json!({
                "name": name,
                "directory": images,
                "frozenMicroseconds": summary["frozenMicroseconds"],
                "pages": summary["pages"],
                "processes": summary["processes"].as_array().map_or(0, Vec::len),
                "files": files,
                "bytes": bytes,
            }))?;
        }
    }
    Ok(0)
}

/// How many images there are, and the bytes that they take on disk.
fn size(images: &Path) -> Result<(usize, u64)> {
    let named = || format!("read `{}`", images.display());
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(images).with_context(named)? {
        files += 1;
        bytes += entry
            .with_context(named)?
            .metadata()
            .with_context(named)?
            .blocks()
            * 512;
    }
    Ok((files, bytes))
}

/// What `floe-criu show` tells of images.
fn summary(images: &Path) -> Result<Value> {
    let mut command = Command::new(companion("floe-criu")?);
    command.args(["show", "--images-dir"]).arg(images);
    let output = command.stdin(Stdio::null()).output();
    let output = output.context("execute `floe-criu`")?;
    if !output.status.success() {
        bail!(
            "{}",
            crate::text::plain(String::from_utf8_lossy(&output.stderr).trim())
        );
    }
    serde_json::from_slice(&output.stdout).context("read what `floe-criu show` prints")
}

fn show(images: &str, format: Format) -> Result<u8> {
    let path = Path::new(images);
    let path = if path.join("inventory.img").exists() {
        path.to_owned()
    } else {
        let container = Store::open()?.find(images)?;
        directory(&container)
    };
    let summary = summary(&path)?;
    if format == Format::Json {
        output::json(&summary)?;
        return Ok(0);
    }
    let word = |value: &Value| match value {
        Value::String(text) => crate::text::plain(text),
        other => other.to_string(),
    };
    let rows: Vec<Vec<String>> = summary["processes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let memory = one["memoryBytes"].as_u64().unwrap_or(0);
            vec![
                word(&one["pid"]),
                word(&one["ppid"]),
                word(&one["threads"]),
                crate::text::size(memory),
                word(&one["name"]),
            ]
        })
        .collect();
    output::print(&crate::text::table(
        &["PID", "PPID", "THREADS", "MEMORY", "NAME"],
        &rows,
    ))?;
    let rows: Vec<Vec<String>> = summary["files"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| vec![word(&one["kind"]), word(&one["name"])])
        .collect();
    output::line("")?;
    output::print(&crate::text::table(&["FILE", "NAME"], &rows))?;
    Ok(0)
}
