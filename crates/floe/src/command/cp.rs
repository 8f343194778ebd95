//! `floe cp`
//!
//! Both sides are directories' descriptors; see [`crate::inside`] for what that guards against.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timestamps, Uid, chownat,
    fchmod, futimens, mkdirat, mkfifoat, openat, readlinkat, statat, symlinkat, unlinkat,
};

use crate::output;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::container::Container;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Keep owners and groups
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link points to, not the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// PATH or CONTAINER:PATH
    #[arg(value_name = "SOURCE")]
    source: String,
    /// PATH or CONTAINER:PATH
    #[arg(value_name = "TARGET")]
    target: String,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let (source, target) = (Place::parse(&flags.source), Place::parse(&flags.target));
    let name = match (&source, &target) {
        (Place::Container(name, _), Place::Host(_))
        | (Place::Host(_), Place::Container(name, _)) => name,
        (Place::Host(_), Place::Host(_)) => bail!("one side must be CONTAINER:PATH"),
        (Place::Container(..), Place::Container(..)) => {
            bail!("copy between containers: by way of a directory of the host")
        }
    };
    let container = store.find(name)?;
    container.refuse_if_sealed("copy to or from")?;
    let view = View::open(&store, &container)?;
    let host = open_root(Path::new("/"))?;
    let into = matches!(target, Place::Container(..));
    let owner = owner(&container, into);
    let (from_root, to_root) = if into {
        (&host, &view.root)
    } else {
        (&view.root, &host)
    };
    let copy = Copy {
        keep_owner: flags.archive,
        owner,
        strip: !into,
    };
    copy_to(
        from_root,
        &source.path()?,
        to_root,
        &target.path()?,
        flags.follow_link,
        &copy,
    )?;
    drop(view);
    Ok(0)
}

/// Who owns what is copied without --archive: the container's root inside, the caller outside.
fn owner(container: &Container, into: bool) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let inside = container
        .record
        .id_maps
        .as_ref()
        .and_then(crate::plan::identity::IdMaps::root);
    Some(if into {
        inside.unwrap_or((0, 0))
    } else {
        (0, 0)
    })
}

enum Place {
    Host(PathBuf),
    Container(String, PathBuf),
}

impl Place {
    /// A colon after a name means a container; a path with one is written `./a:b`.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, path)) if crate::parse::name(name).is_ok() => {
                Self::Container(name.to_owned(), Path::new("/").join(path))
            }
            _ => Self::Host(text.into()),
        }
    }

    /// An absolute path.
    fn path(&self) -> Result<PathBuf> {
        Ok(match self {
            Self::Host(path) => {
                let keeps_slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
                let current = std::env::current_dir().context("find current directory")?;
                let path = current.join(path);
                if keeps_slash { path.join("") } else { path }
            }
            Self::Container(_, path) => path.clone(),
        })
    }
}

/// A container's root, and what was made to see it.
struct View {
    root: OwnedFd,
    /// Of a container that does not run: made from its bundle, without a program running.
    made: Option<(Runtime, String, PathBuf)>,
}

impl View {
    fn open(store: &Store, container: &Container) -> Result<Self> {
        let _lock = container.lock()?;
        if let Some(pid) = container.state_locked(store)?.pid {
            return Ok(Self {
                root: crate::inside::root_of(pid)?,
                made: None,
            });
        }
        // A created container has its mounts and no program of its own yet. It has an id of its
        // own too, so that nothing takes it for the real one.
        let runtime = Runtime::find(store)?;
        let id = format!("{}-cp", container.record.id);
        let bundle = container.dir.join("cp");
        crate::store::make_private(&bundle)?;
        let config = container.bundle().join("config.json");
        let spec =
            std::fs::read(&config).with_context(|| format!("read `{}`", config.display()))?;
        let mut spec: serde_json::Value = serde_json::from_slice(&spec)
            .with_context(|| format!("read `{}`", config.display()))?;
        spec["process"]["terminal"] = false.into();
        if let Some(group) = spec["linux"]["cgroupsPath"].as_str() {
            spec["linux"]["cgroupsPath"] = format!("{group}-cp").into();
        }
        std::fs::write(bundle.join("config.json"), spec.to_string())
            .with_context(|| format!("write `{}`", bundle.display()))?;
        runtime.delete_force(&id)?;
        let pid_file = bundle.join("pid");
        let mut command = runtime.create_command(container.record.systemd_group);
        command
            .arg("--bundle")
            .arg(&bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(&id);
        let log = std::fs::File::create(bundle.join("log")).context("make log")?;
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(log);
        let made = Some((runtime, id, bundle.clone()));
        if !command.status().context("execute runtime")?.success() {
            let text = std::fs::read_to_string(bundle.join("log")).unwrap_or_default();
            bail!("{}", crate::runtime::message_of(&text, "create"));
        }
        let pid = std::fs::read_to_string(&pid_file).context("read pid")?;
        let root = crate::inside::root_of(pid.trim().parse().context("read pid")?)?;
        Ok(Self { root, made })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some((runtime, id, bundle)) = &self.made {
            // What cannot be removed now is removed by the next copy, or with the container.
            let _ = runtime.delete_force(id);
            let _ = std::fs::remove_dir_all(bundle);
        }
    }
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("open `{}`", path.display()))
}

/// docker's rules: onto a directory means into it; `SOURCE/.` means what is in it.
fn copy_to(
    from_root: &OwnedFd,
    source: &Path,
    to_root: &OwnedFd,
    target: &Path,
    follow: bool,
    copy: &Copy,
) -> Result<()> {
    let contents = source.as_os_str().as_encoded_bytes().ends_with(b"/.");
    let source = tidy(source)?;
    let (parent, name) = split(from_root, &source, follow || contents)?;
    let told = || format!("look at `{}`", source.display());
    let what = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).with_context(told)?;
    let is_directory = FileType::from_raw_mode(what.st_mode) == FileType::Directory;
    let wants_directory = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    let target = tidy(target)?;
    let existing = open_directory(to_root, &target);
    match existing {
        Ok(directory) if is_directory && contents => {
            let from = open_below(&parent, &name).with_context(told)?;
            copy.entries(&from, &directory, &source)
        }
        Ok(directory) => {
            let own = source.file_name().context("the source has no name")?;
            copy.entry((&parent, &name), (&directory, Path::new(own)), &source)
        }
        Err(sys::Errno::NOENT | sys::Errno::NOTDIR) => {
            let above = target.parent().unwrap_or(Path::new("/"));
            let above_fd = open_directory(to_root, above)
                .with_context(|| format!("open `{}`", above.display()))?;
            if wants_directory && !is_directory {
                bail!("`{}` is not a directory", target.display());
            }
            let own = target.file_name().context("the target has no name")?;
            copy.entry((&parent, &name), (&above_fd, Path::new(own)), &source)
        }
        Err(errno) => Err(errno).with_context(|| format!("open `{}`", target.display())),
    }
}

/// Without `.` and empty parts; `..` is left to the kernel, which stays below the root.
fn tidy(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        bail!("an empty path");
    }
    Ok(path
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect())
}

/// The directory an entry is in, and its name there. To follow a link means to begin where it
/// leads, as seen from the root.
fn split(root: &OwnedFd, path: &Path, follow: bool) -> Result<(OwnedFd, PathBuf)> {
    let told = || format!("open `{}`", path.display());
    let Some(name) = path.file_name().filter(|_| !path.ends_with("..")) else {
        return Ok((open_directory(root, path).with_context(told)?, ".".into()));
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent_fd =
        open_directory(root, parent).with_context(|| format!("open `{}`", parent.display()))?;
    if !follow {
        return Ok((parent_fd, name.into()));
    }
    let mut path = path.to_owned();
    for _ in 0..40 {
        let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
        let Some(name) = path.file_name().map(PathBuf::from) else {
            return Ok((open_directory(root, &path).with_context(told)?, ".".into()));
        };
        let parent_fd = open_directory(root, &parent).with_context(told)?;
        match readlinkat(&parent_fd, &name, Vec::new()) {
            Ok(link) => path = parent.join(Path::new(&*link.to_string_lossy())),
            Err(_) => return Ok((parent_fd, name)),
        }
    }
    Err(sys::Errno::LOOP).with_context(told)
}

fn open_directory(root: &OwnedFd, path: &Path) -> sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    sys::in_root::open_with(root.as_fd(), path, flags, ResolveFlags::empty())
}

fn open_below(parent: &OwnedFd, name: &Path) -> sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

struct Copy {
    keep_owner: bool,
    owner: Option<(u32, u32)>,
    /// Drop set-id bits: a container's program must not become a set-id program of the host's.
    strip: bool,
}

impl Copy {
    /// Copies all entries of an open directory into another.
    fn entries(&self, from: &OwnedFd, to: &OwnedFd, path: &Path) -> Result<()> {
        let told = || format!("list `{}`", path.display());
        for entry in Dir::read_from(from).with_context(told)? {
            let entry = entry.with_context(told)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let name =
                PathBuf::from(std::ffi::OsStr::new(name.to_str().with_context(|| {
                    format!("{}: a name is not UTF-8", path.display())
                })?));
            self.entry((from, &name), (to, &name), &path.join(&name))?;
        }
        Ok(())
    }

    fn entry(&self, from: (&OwnedFd, &Path), to: (&OwnedFd, &Path), path: &Path) -> Result<()> {
        let told = || format!("copy `{}`", path.display());
        let what = statat(from.0, from.1, AtFlags::SYMLINK_NOFOLLOW).with_context(told)?;
        match FileType::from_raw_mode(what.st_mode) {
            FileType::Directory => {
                match mkdirat(to.0, to.1, Mode::RWXU) {
                    Ok(()) | Err(sys::Errno::EXIST) => {}
                    Err(errno) => return Err(errno).with_context(told),
                }
                let source = open_below(from.0, from.1).with_context(told)?;
                let target = open_below(to.0, to.1).with_context(told)?;
                self.entries(&source, &target, path)?;
                self.attributes(&target, &what).with_context(told)
            }
            FileType::RegularFile => self.file(from, to, &what).with_context(told),
            FileType::Symlink => {
                let link = readlinkat(from.0, from.1, Vec::new()).with_context(told)?;
                remove(to).with_context(told)?;
                symlinkat(&link, to.0, to.1).with_context(told)?;
                self.give(to, &what).with_context(told)
            }
            FileType::Fifo => {
                remove(to).with_context(told)?;
                mkfifoat(to.0, to.1, Mode::from_raw_mode(what.st_mode & 0o777))
                    .with_context(told)?;
                self.give(to, &what).with_context(told)
            }
            _ => {
                output::note(&format!(
                    "`{}` is a device or socket: left out",
                    crate::text::plain(&path.to_string_lossy())
                ));
                Ok(())
            }
        }
    }

    fn file(&self, from: (&OwnedFd, &Path), to: (&OwnedFd, &Path), what: &Stat) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = openat(from.0, from.1, flags, Mode::empty())?;
        // It may have been replaced since it was looked at.
        let now = rustix::fs::fstat(&source)?;
        if FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
            bail!("it changed while it was copied");
        }
        remove(to)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = openat(to.0, to.1, flags, Mode::RUSR | Mode::WUSR)?;
        let (mut reader, mut writer) = (std::fs::File::from(source), std::fs::File::from(target));
        std::io::copy(&mut reader, &mut writer)?;
        self.attributes(&writer.into(), what)
    }

    /// Owner before mode: a change of owner takes set-id bits away.
    fn attributes(&self, fd: &OwnedFd, what: &Stat) -> Result<()> {
        if let Some((uid, gid)) = self.owner_of(what) {
            rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        let mask = if self.strip { 0o777 } else { 0o7777 };
        fchmod(fd, Mode::from_raw_mode(what.st_mode & mask))?;
        let time = |seconds, nanos: u64| rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: i64::try_from(nanos).unwrap_or(0),
        };
        let times = Timestamps {
            last_access: time(what.st_atime, what.st_atime_nsec),
            last_modification: time(what.st_mtime, what.st_mtime_nsec),
        };
        futimens(fd, &times)?;
        Ok(())
    }

    fn give(&self, to: (&OwnedFd, &Path), what: &Stat) -> Result<()> {
        if let Some((uid, gid)) = self.owner_of(what) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(to.0, to.1, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn owner_of(&self, what: &Stat) -> Option<(u32, u32)> {
        let given = self.owner?;
        Some(if self.keep_owner {
            (what.st_uid, what.st_gid)
        } else {
            given
        })
    }
}

/// Makes room for a file; never for a directory.
fn remove(place: (&OwnedFd, &Path)) -> sys::Result<()> {
    match unlinkat(place.0, place.1, AtFlags::empty()) {
        Ok(()) | Err(sys::Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
