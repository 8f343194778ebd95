//! The measurement itself, in a mount namespace of its own (`unshare --mount` made it).

use super::Options;
use super::measure::Times;
use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, unmount};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Where to measure; set only where xtask calls itself.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Stage {
    #[arg(long, hide = true)]
    pub(crate) root: Option<PathBuf>,
    #[arg(long, hide = true, requires = "root")]
    programs: Option<PathBuf>,
}

const BENCH: &str = "/run/bench";
const RUNTIMES: [(&str, &str); 3] = [
    ("floe-oci", "/run/bench/floe-oci"),
    ("crun", "/usr/bin/crun"),
    ("runc", "/usr/sbin/runc"),
];

/// Everything that is measured among the runtimes.
pub(crate) fn run(options: &Options) -> Result<Value> {
    let root = options.stage.root.as_deref().context("--root")?;
    let programs = options.stage.programs.as_deref().context("--programs")?;
    enter(root, programs)?;
    let bundle = bundle()?;
    let mut report = json!({"versions": {}, "errors": {}});
    let mut working = Vec::new();
    for (name, path) in RUNTIMES {
        let runtime = Runtime {
            name,
            path,
            bundle: &bundle,
        };
        report["versions"][name] = json!(runtime.version());
        match runtime.probe() {
            Ok(()) => working.push(runtime),
            Err(error) => report["errors"][name] = json!(format!("{error:#}")),
        }
    }
    report["start"] = starts(&working, &bundle, options.starts)?;
    if !options.quick {
        let mut parallel = Map::new();
        let mut existing = Map::new();
        let mut resident = Map::new();
        for runtime in &working {
            parallel.insert(
                runtime.name.to_owned(),
                in_parallel(runtime, options.containers)?,
            );
            existing.insert(runtime.name.to_owned(), beside_others(runtime)?);
            resident.insert(runtime.name.to_owned(), json!(resident_processes(runtime)?));
        }
        report["parallel"] = parallel.into();
        report["existing"] = existing.into();
        report["resident"] = resident.into();
    }
    Ok(report)
}

/// Makes the peers' tree our root, with the v2 hierarchy alone and with the programs to measure.
fn enter(root: &Path, programs: &Path) -> Result<()> {
    let none = MountFlags::empty();
    mount_bind(root, root).context("bind the root")?;
    std::env::set_current_dir(root)?;
    mount("proc", "proc", "proc", none, None).context("mount proc")?;
    mount("sysfs", "sys", "sysfs", none, None).context("mount sysfs")?;
    mount("cgroup2", "sys/fs/cgroup", "cgroup2", none, None).context("mount cgroup2")?;
    mount_bind_recursive("/dev", "dev").context("bind /dev")?;
    for directory in ["run", "tmp"] {
        mount("tmpfs", directory, "tmpfs", none, None).context("mount tmpfs")?;
    }
    fs::create_dir_all("run/bench/bundle/rootfs")?;
    for program in ["floe-oci", "floor", "payload"] {
        fs::copy(programs.join(program), Path::new("run/bench").join(program))
            .with_context(|| format!("copy {program}"))?;
    }
    fs::copy("run/bench/payload", "run/bench/bundle/rootfs/payload")?;
    for directory in ["proc", "dev", "sys", "etc", "tmp"] {
        fs::create_dir(Path::new("run/bench/bundle/rootfs").join(directory))?;
    }
    rustix::process::pivot_root(".", ".").context("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).context("unmount the old root")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// `runc spec`'s bundle, but for its process and its terminal.
fn bundle() -> Result<PathBuf> {
    let bundle = Path::new(BENCH).join("bundle");
    let status = Command::new("/usr/sbin/runc")
        .arg("spec")
        .current_dir(&bundle)
        .status()
        .context("execute runc")?;
    ensure!(status.success(), "runc spec: {status}");
    let file = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/payload", "true"]);
    config["root"]["readonly"] = json!(false);
    fs::write(&file, config.to_string())?;
    // The same with other processes: one that stays, one that proves that it ran.
    config["root"]["path"] = json!(bundle.join("rootfs"));
    for (name, args) in [
        ("sleeping", ["/payload", "sleep", "1000"].as_slice()),
        ("probe", &["/payload", "echo", "probed"]),
    ] {
        let other = Path::new(BENCH).join(name);
        fs::create_dir(&other)?;
        config["process"]["args"] = json!(args);
        fs::write(other.join("config.json"), config.to_string())?;
    }
    Ok(bundle)
}

#[derive(Debug, Clone, Copy)]
struct Runtime<'a> {
    name: &'static str,
    path: &'static str,
    bundle: &'a Path,
}

impl Runtime<'_> {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(self.path);
        command
            .arg("--root")
            .arg(Path::new(BENCH).join(format!("state-{}", self.name)))
            .arg(verb);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn version(&self) -> String {
        let output = Command::new(self.path).arg("--version").output();
        let text = output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Whether it really runs a container.
    fn probe(&self) -> Result<()> {
        let bundle = Path::new(BENCH).join("probe");
        let mut command = self.command("run");
        let output = command
            .arg("--bundle")
            .arg(bundle)
            .arg("probe")
            .stdout(Stdio::piped())
            .output()?;
        ensure!(
            output.stdout == b"probed\n",
            "it does not run the bundle: {}",
            output.status
        );
        Ok(())
    }

    /// `run` to the end of the container.
    fn run(&self, id: &str) -> Result<Duration> {
        self.timed(self.command("run").arg("--bundle").arg(self.bundle).arg(id))
    }

    fn create(&self, id: &str) -> Result<Duration> {
        let bundle = Path::new(BENCH).join("sleeping");
        self.timed(self.command("create").arg("--bundle").arg(bundle).arg(id))
    }

    fn delete(&self, id: &str) -> Result<Duration> {
        self.timed(self.command("delete").arg("--force").arg(id))
    }

    fn timed(&self, command: &mut Command) -> Result<Duration> {
        let start = Instant::now();
        let status = command
            .status()
            .with_context(|| format!("execute {}", self.path))?;
        let time = start.elapsed();
        ensure!(status.success(), "{}: {command:?}: {status}", self.name);
        Ok(time)
    }
}

/// The time of a whole `run`, the contenders taking turns so that a disturbance meets all of them.
fn starts(runtimes: &[Runtime<'_>], bundle: &Path, count: usize) -> Result<Value> {
    let mut times: Vec<Times> = runtimes.iter().map(|_| Times::default()).collect();
    let mut floor_times = Times::default();
    let mut floor = Command::new("/run/bench/floor");
    floor
        .arg(bundle.join("rootfs"))
        .arg("/payload")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for round in 0..count + 5 {
        let warm = round >= 5;
        let start = Instant::now();
        let status = floor.status().context("execute floor")?;
        let time = start.elapsed();
        ensure!(status.success(), "floor: {status}");
        if warm {
            floor_times.push(time);
        }
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            let time = runtime.run(&format!("start-{round}"))?;
            if warm {
                times.push(time);
            }
        }
    }
    let mut result = Map::new();
    result.insert("floor".to_owned(), floor_times.summary());
    for (runtime, times) in runtimes.iter().zip(&mut times) {
        result.insert(runtime.name.to_owned(), times.summary());
    }
    Ok(result.into())
}

/// Containers per second, created and deleted by 1, 2, 4, 8 at a time.
fn in_parallel(runtime: &Runtime<'_>, count: usize) -> Result<Value> {
    let mut result = Map::new();
    for jobs in [1, 2, 4, 8] {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                let id = format!("parallel-{jobs}-{number}");
                runtime.create(&id)?;
                runtime.delete(&id)?;
            }
        };
        let start = Instant::now();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| anyhow::bail!("a worker panicked"))
            })
        })?;
        let rate = count as f64 / start.elapsed().as_secs_f64();
        result.insert(jobs.to_string(), json!((rate * 10.0).round() / 10.0));
    }
    Ok(result.into())
}

/// Creating and deleting one container while 10 and while 500 exist.
fn beside_others(runtime: &Runtime<'_>) -> Result<Value> {
    let mut result = Map::new();
    let mut made = 0;
    for existing in [10, 500] {
        for number in made..existing {
            runtime.create(&format!("existing-{number}"))?;
        }
        made = existing;
        let mut times = Times::default();
        for number in 0..50 {
            let id = format!("beside-{existing}-{number}");
            times.push(runtime.create(&id)? + runtime.delete(&id)?);
        }
        result.insert(existing.to_string(), times.summary());
    }
    for number in 0..made {
        runtime.delete(&format!("existing-{number}"))?;
    }
    Ok(result.into())
}

/// How many processes a running container has beside its own.
fn resident_processes(runtime: &Runtime<'_>) -> Result<usize> {
    let before = processes();
    runtime.create("resident")?;
    runtime.timed(runtime.command("start").arg("resident"))?;
    std::thread::sleep(Duration::from_millis(100));
    let new: Vec<u32> = processes().difference(&before).copied().collect();
    let is_container = |pid: &&u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !line.starts_with("/payload\0") && !line.is_empty()
    };
    let beside = new
        .iter()
        .filter(is_container)
        .filter(|pid| belongs_to(runtime, **pid))
        .count();
    runtime.delete("resident")?;
    Ok(beside)
}

/// Whether a process runs the runtime's program; others come and go on the machine meanwhile.
fn belongs_to(runtime: &Runtime<'_>, pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().starts_with(runtime.name)
}

fn processes() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc")
        .map(|entries| entries.flatten().collect::<Vec<_>>())
        .unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
