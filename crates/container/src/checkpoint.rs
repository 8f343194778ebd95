//! `checkpoint`: a container's processes to images on disk.

use std::fs::{DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use criu_rpc::{ExternalMount, Options, RequestType};
use rustix::fs::FileType;
use rustix::process::Pid;
use sys::namespace::Kind;

use crate::control::{self, Force};
use crate::criu::{self, Criu};
use crate::error::{During, Error, Result};
use crate::id::ContainerId;
use crate::plan::namespace::Namespaces;
use crate::record::{self, Directory, Record};
use crate::{query, spec};

/// What a checkpoint and a restore have in common: where, by whom, and what the caller allows.
#[derive(Debug, Clone)]
pub struct Images<'a> {
    /// criu, or what speaks as it does.
    pub criu: &'a Path,
    /// Where the images are.
    pub directory: &'a Path,
    /// Where the log is written; `None`: beside the images.
    pub work: Option<&'a Path>,
    pub tcp_established: bool,
    pub external_unix_sockets: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    /// The network namespace comes back with nothing in it.
    pub empty_network: bool,
    pub groups: Option<CgroupMode>,
}

/// What criu does about resource groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    Soft,
    Full,
    Strict,
    Ignore,
}

/// How to checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint<'a> {
    pub images: Images<'a>,
    /// The container runs on afterwards; else it is deleted.
    pub leave_running: bool,
    /// Connections that are being made are left out.
    pub tcp_skip_in_flight: bool,
    /// Files whose name is gone get a temporary one.
    pub link_remap: bool,
}

/// Checkpoints a running or paused container. Failures of `poststop` hooks are returned.
///
/// # Errors
/// Something of it cannot be dumped: the container is then as it was.
pub fn checkpoint(root: &Path, id: &ContainerId, request: &Checkpoint<'_>) -> Result<Vec<Error>> {
    let directory = Directory::open(root, id)?;
    match query::status(root, id)? {
        spec::Status::Running | spec::Status::Paused => {}
        spec::Status::Stopped => return Err(Error::not_running()),
        status => {
            let status = format!("{status:?}").to_lowercase();
            let text = format!("cannot checkpoint a container that is {status}");
            return Err(Error::plain(text));
        }
    }
    let record = record::read(root, id)?.ok_or_else(|| Error::not_found(id.as_str()))?;
    let config = record::read_config(root, id)?;
    let pid = record.process().ok_or_else(Error::not_running)?.pid;
    refuse_strangers(pid, &query::processes(root, id)?)?;
    let opened = Opened::make(&request.images)?;
    let streams = streams(pid)?;
    store_streams(request.images.directory, &streams)?;
    dump(request, &record, &config, &opened, &streams)?;
    drop(directory);
    if request.leave_running {
        return Ok(Vec::new());
    }
    control::delete(root, id, Force::Yes)
}

fn dump(
    request: &Checkpoint<'_>,
    record: &Record,
    config: &spec::Spec,
    opened: &Opened,
    streams: &[String],
) -> Result<()> {
    let pid = Pid::from_raw(record.init_process_pid).ok_or_else(Error::not_running)?;
    let criu = Criu::start(request.images.criu, &[])?;
    let mut external = joined_namespaces(config, criu.is_floe())?;
    let files = streams.iter().filter(|key| key.starts_with("file["));
    external.extend(files.cloned());
    let options = Options {
        pid: Some(pid.as_raw_nonzero().get()),
        root: Some(record.rootfs.to_string_lossy().into_owned()),
        leave_running: Some(request.leave_running),
        tcp_skip_in_flight: Some(request.tcp_skip_in_flight),
        link_remap: Some(request.link_remap),
        freeze_cgroup: freezer(record, criu.is_floe()),
        ext_mnt: external_mounts(pid, config)?,
        external,
        log_file: Some(DUMP_LOG.to_owned()),
        ..opened.options(&request.images)
    };
    let dumped = criu.request(RequestType::Dump, options, &mut |_| Ok(()));
    dumped.map_err(|error| explain(error, &request.images, DUMP_LOG))?;
    criu.finish()
}

const DUMP_LOG: &str = "dump.log";

/// Refuses processes that `exec` brought in: they are no descendants of the first one, so the images
/// would lack them.
fn refuse_strangers(first: Pid, processes: &[i32]) -> Result<()> {
    let first = first.as_raw_nonzero().get();
    let parent = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse().ok()
    };
    match stranger(first, processes, parent) {
        None => Ok(()),
        Some(pid) => {
            let cause = "it was started by `exec`: end it first";
            Err(Error::new(format!("process {pid} of the container"), cause))
        }
    }
}

/// A process that is not below the first one; one that ends meanwhile is none.
fn stranger(first: i32, processes: &[i32], parent: impl Fn(i32) -> Option<i32>) -> Option<i32> {
    let below = |pid: &i32| {
        let mut now = *pid;
        while now != first {
            match parent(now) {
                Some(next) if next > 0 => now = next,
                Some(_) => return false,
                None => return true,
            }
        }
        true
    };
    processes.iter().copied().find(|pid| !below(pid))
}

/// Adds where there is more to read. What criu itself answers is its first error, if any; the one
/// that ended it is in its log.
pub(crate) fn explain(error: Error, images: &Images<'_>, log: &str) -> Error {
    let path = images.work.unwrap_or(images.directory).join(log);
    let text = error.to_string();
    let poor = ["criu failed", "Error ("]
        .iter()
        .any(|start| text.starts_with(start));
    match criu::decisive_error(&path) {
        Some(decisive) if poor => {
            Error::plain(format!("criu: {decisive}; log file: {}", path.display()))
        }
        _ => error,
    }
}

/// The group to freeze the container by: criu itself wants v1's freezer where there is one.
fn freezer(record: &Record, floe: bool) -> Option<String> {
    let names = if floe {
        ["", "freezer"]
    } else {
        ["freezer", ""]
    };
    let path = names.iter().find_map(|name| record.cgroup_paths.get(*name));
    path.map(|path| path.to_string_lossy().into_owned())
}

/// The directories of a request, open.
#[derive(Debug)]
pub(crate) struct Opened {
    images: File,
    work: Option<File>,
}

impl Opened {
    /// Makes them where they are not there.
    pub(crate) fn make(images: &Images<'_>) -> Result<Opened> {
        make_directory(images.directory)?;
        images.work.map(make_directory).transpose()?;
        Opened::open(images)
    }

    pub(crate) fn open(images: &Images<'_>) -> Result<Opened> {
        let open = |path: &Path| File::open(path).during(|| format!("open `{}`", path.display()));
        Ok(Opened {
            images: open(images.directory)?,
            work: images.work.map(open).transpose()?,
        })
    }

    /// What a dump and a restore ask for alike.
    pub(crate) fn options(&self, images: &Images<'_>) -> Options {
        let mode = images.groups.map(|mode| match mode {
            CgroupMode::Soft => 3,
            CgroupMode::Full => 4,
            CgroupMode::Strict => 5,
            CgroupMode::Ignore => 0,
        });
        let network = u32::try_from(Kind::Network.flag()).unwrap_or_default();
        Options {
            images_dir_fd: self.images.as_raw_fd(),
            work_dir_fd: self.work.as_ref().map(AsRawFd::as_raw_fd),
            log_level: Some(LOG_LEVEL),
            notify_scripts: Some(true),
            manage_cgroups: Some(true),
            manage_cgroups_mode: mode,
            orphan_pts_master: Some(true),
            tcp_established: Some(images.tcp_established),
            ext_unix_sk: Some(images.external_unix_sockets),
            shell_job: Some(images.shell_job),
            file_locks: Some(images.file_locks),
            empty_ns: images.empty_network.then_some(network),
            ..Options::default()
        }
    }
}

const LOG_LEVEL: i32 = 4;

fn make_directory(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.during(|| format!("make `{}`", path.display()))
}

/// Namespaces that the container joined: they are not its own, and at the restore it joins the
/// configured ones again. criu itself knows the first two kinds.
pub(crate) fn joined(config: &spec::Spec, floe: bool) -> Result<Vec<(Kind, PathBuf)>> {
    let list = config.linux.as_ref().map(|linux| &linux.namespaces);
    let joined = Namespaces::plan(list.map_or(&[], Vec::as_slice))?.join;
    let known = |kind: Kind| floe || [Kind::Network, Kind::Pid].contains(&kind);
    Ok(joined
        .into_iter()
        .filter(|(kind, _)| known(*kind))
        .collect())
}

/// The name of a joined namespace in the images.
pub(crate) fn namespace_key(kind: Kind) -> String {
    let mut name = kind.file().to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!("extRoot{name}NS")
}

fn joined_namespaces(config: &spec::Spec, floe: bool) -> Result<Vec<String>> {
    let name = |(kind, path): (Kind, PathBuf)| {
        let during = || format!("linux.namespaces: stat `{}`", path.display());
        let inode = std::fs::metadata(&path).during(during)?.ino();
        Ok(format!("{}[{inode}]:{}", kind.file(), namespace_key(kind)))
    };
    joined(config, floe)?.into_iter().map(name).collect()
}

/// The mounts that are not the container's: what is bound into it, and what hides its masked files.
fn external_mounts(pid: Pid, config: &spec::Spec) -> Result<Vec<ExternalMount>> {
    let named = || "read the container's mounts";
    let text = std::fs::read(format!("/proc/{pid}/mountinfo")).during(named)?;
    let points: Vec<PathBuf> = sys::mountinfo::parse(&text)
        .map(|mount| PathBuf::from(mount.mount_point.into_owned()))
        .collect();
    let root = format!("/proc/{pid}/root");
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let root = rustix::fs::open(&root, flags, rustix::fs::Mode::empty()).during(named)?;
    let real = |path: &Path| {
        let found = sys::in_root::open(&root, path).ok()?;
        let stat = rustix::fs::fstat(&found).ok()?;
        let path = sys::in_root::path_of(std::os::fd::AsFd::as_fd(&found)).ok()?;
        Some((path, FileType::from_raw_mode(stat.st_mode)))
    };
    Ok(plan_external(config, &points, real)
        .into_iter()
        .map(|(point, key)| ExternalMount {
            key: point.to_string_lossy().into_owned(),
            val: key.to_string_lossy().into_owned(),
        })
        .collect())
}

/// Where external mounts are, and the names of the configuration for them. `points`: what is
/// mounted; `real`: where a path leads inside the container, and to what.
fn plan_external(
    config: &spec::Spec,
    points: &[PathBuf],
    real: impl Fn(&Path) -> Option<(PathBuf, FileType)>,
) -> Vec<(PathBuf, PathBuf)> {
    let binds = bind_mounts(config).map(|(destination, _)| (destination, true));
    let masks = masked_paths(config).into_iter().map(|path| (path, false));
    binds
        .chain(masks)
        .filter_map(|(path, bound)| {
            let (point, kind) = real(&path)?;
            // An empty file system hides a directory; that is the container's own.
            let outside = bound || kind != FileType::Directory;
            (outside && points.contains(&point)).then_some((point, path))
        })
        .collect()
}

/// The bind mounts of a configuration: destination and source.
pub(crate) fn bind_mounts(config: &spec::Spec) -> impl Iterator<Item = (PathBuf, &spec::Mount)> {
    let bound = |mount: &&spec::Mount| {
        let word = |word: &str| word == "bind" || word == "rbind";
        mount.kind.as_deref().is_some_and(word) || mount.options.iter().any(|option| word(option))
    };
    let mounts = config.mounts.iter().filter(bound);
    mounts.map(|mount| (Path::new("/").join(&mount.destination), mount))
}

/// The masked paths of a configuration.
pub(crate) fn masked_paths(config: &spec::Spec) -> Vec<PathBuf> {
    let linux = config.linux.as_ref();
    linux.map_or_else(Vec::new, |linux| linux.masked_paths.clone())
}

/// What the standard streams of a process are. Pipes, sockets and files of the host are the
/// caller's: at a restore those of its own take their places.
fn streams(pid: Pid) -> Result<Vec<String>> {
    (0..3).map(|number| stream(pid, number)).collect()
}

fn stream(pid: Pid, number: u32) -> Result<String> {
    let path = format!("/proc/{pid}/fd/{number}");
    let link = match std::fs::read_link(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        other => other.during(|| format!("read `{path}`"))?,
    };
    let link = link.to_string_lossy().into_owned();
    let file = std::fs::metadata(&path).during(|| format!("stat `{path}`"))?;
    let info = format!("/proc/{pid}/fdinfo/{number}");
    let info = std::fs::read_to_string(&info).during(|| format!("read `{info}`"))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let mount: Option<u32> = mount.and_then(|id| id.trim().parse().ok());
    let text = std::fs::read(format!("/proc/{pid}/mountinfo")).during(|| "read mountinfo")?;
    let inside = sys::mountinfo::parse(&text).any(|one| Some(one.id) == mount);
    Ok(match mount {
        Some(mount) if link.starts_with('/') && !inside => {
            format!("file[{mount:x}:{:x}]", file.ino())
        }
        _ => link,
    })
}

/// The file that tells a restore what the standard streams were; runc's name and form.
pub(crate) const STREAMS: &str = "descriptors.json";

fn store_streams(directory: &Path, streams: &[String]) -> Result<()> {
    let text = serde_json::to_vec(streams).map_err(|error| Error::new(STREAMS, error))?;
    record::write_atomically(&directory.join(STREAMS), &text, record::PRIVATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_and_masked_files_are_external() {
        let config = br#"{"ociVersion": "1.0.2", "mounts": [
            {"destination": "/data", "type": "none", "source": "/host", "options": ["rbind"]},
            {"destination": "/var/run/x", "type": "bind", "source": "/host/x"},
            {"destination": "/gone", "type": "bind", "source": "/host/y"},
            {"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"maskedPaths": ["/proc/kcore", "/proc/acpi", "/proc/none"]}}"#;
        let config = spec::parse(config).unwrap();
        let points = ["/", "/data", "/run/x", "/proc", "/proc/kcore", "/proc/acpi"];
        let points = points.map(PathBuf::from);
        let real = |path: &Path| {
            let (path, kind) = match path.to_str()? {
                "/var/run/x" => ("/run/x", FileType::RegularFile),
                "/proc/kcore" => ("/proc/kcore", FileType::CharacterDevice),
                "/proc/none" => return None,
                other => (other, FileType::Directory),
            };
            Some((PathBuf::from(path), kind))
        };
        let planned = plan_external(&config, &points, real);
        let expected = [
            ("/data", "/data"),
            ("/run/x", "/var/run/x"),
            ("/proc/kcore", "/proc/kcore"),
        ];
        assert_eq!(
            planned,
            expected.map(|(point, key)| (point.into(), key.into()))
        );
    }

    #[test]
    fn who_is_not_below_the_first_process_is_a_stranger() {
        // 10 is the first; 12 is a child of its child; 20 came from outside; 30 has just ended.
        let parent = |pid| match pid {
            10 | 20 => Some(1),
            11 => Some(10),
            12 => Some(11),
            1 => Some(0),
            _ => None,
        };
        assert_eq!(stranger(10, &[10, 11, 12, 30], parent), None);
        assert_eq!(stranger(10, &[10, 11, 20], parent), Some(20));
    }

    #[test]
    fn joined_namespaces_have_runcs_names() {
        assert_eq!(namespace_key(Kind::Network), "extRootNetNS");
        assert_eq!(namespace_key(Kind::Pid), "extRootPidNS");
        let config = br#"{"ociVersion": "1.0.2", "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network", "path": "/proc/self/ns/net"},
            {"type": "ipc", "path": "/proc/self/ns/ipc"}]}}"#;
        let config = spec::parse(config).unwrap();
        let names = joined_namespaces(&config, false).unwrap();
        assert!(
            matches!(names.as_slice(), [one] if one.starts_with("net[") && one.ends_with("]:extRootNetNS"))
        );
        assert_eq!(joined_namespaces(&config, true).unwrap().len(), 2);
    }

    #[test]
    fn criu_freezes_by_v1_where_there_is_one() {
        let both = [("", "/v2"), ("freezer", "/v1")];
        for (paths, floe, expected) in [
            (&both[..], true, Some("/v2")),
            (&both[..], false, Some("/v1")),
            (&both[..1], false, Some("/v2")),
            (&[][..], true, None),
        ] {
            let paths = paths
                .iter()
                .map(|(name, path)| ((*name).to_owned(), path.into()));
            let record = Record {
                cgroup_paths: paths.collect(),
                ..Record::default()
            };
            assert_eq!(freezer(&record, floe).as_deref(), expected);
        }
    }
}
