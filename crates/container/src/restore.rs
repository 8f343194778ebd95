//! `restore`: a container from images on disk.
//!
//! The record, the state directory and the groups are made first, as `create` does: whatever kills
//! us from then on, `delete --force` finds all. Then criu makes the processes and asks back twice:
//! when the first one stands in its namespaces, empty, and when all is whole and nothing runs yet.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use criu_rpc::{ExternalMount, InheritFd, Options, RequestType, script};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sys::in_root::Missing;
use sys::namespace::Kind;

use crate::checkpoint::{self, Images, Opened, STREAMS};
use crate::create::{self, Create, Created};
use crate::criu::{Criu, Stage};
use crate::error::{During, Error, Result};
use crate::groups::Groups;
use crate::launch::Child;
use crate::plan::Plan;
use crate::plan::mount::What;
use crate::record::{self, Directory, Record};
use crate::{hooks, prepare, spec};

/// What to restore, and as what.
#[derive(Debug)]
pub struct Restore<'a> {
    pub create: Create<'a>,
    pub images: Images<'a>,
    /// Connections come back closed.
    pub tcp_close: bool,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

/// Restores a container. The caller is the parent of its first process.
///
/// # Errors
/// Whatever fails, nothing stays: no process, group, mount or state.
pub fn restore(mut request: Restore<'_>) -> Result<Created> {
    let (plan, text, warnings) = create::read_bundle(&request.create)?;
    record::refuse_taken(request.create.root, &plan.id)?;
    let opened = Opened::open(&request.images)?;
    let layout = cgroup::Layout::detect().during(|| "find the groups")?;
    let mut groups = Groups::place(&plan, &layout)?;
    create::refuse_inhabited(groups.outer())?;
    let directory = Directory::create(request.create.root, &plan.id)?;
    let record = create::first_record(&plan, &groups);
    let console = request.create.console.take();
    let made = directory
        .store(&record)
        .and_then(|()| directory.write("config.json", &text))
        .and_then(|()| {
            let mut restoration = Restoration {
                request: &request,
                plan: &plan,
                opened: &opened,
                directory: &directory,
                record: &record,
                groups: &mut groups,
                console,
                own_criu: false,
                child: None,
            };
            restoration.run()?;
            let nothing = || Error::plain("criu says that it restored, and named no process");
            restoration.child.ok_or_else(nothing)
        });
    match made {
        Ok(child) => {
            let pid = child.pid.as_raw_nonzero().get();
            let state = hooks::state(&plan, spec::Status::Running, pid);
            let failed = hooks::run_all("poststart", &plan.spec.hooks.poststart, &state);
            let failed = failed.iter().map(ToString::to_string);
            Ok(Created {
                pid: child.pid,
                pidfd: child.pidfd,
                warnings: warnings.into_iter().chain(failed).collect(),
            })
        }
        Err(error) => {
            let adopted_cgroups = groups.outer().adopted();
            let record = Record {
                adopted_cgroups,
                resctrl: groups.resctrl(),
                ..record
            };
            Err(create::undo(&record, directory, &error))
        }
    }
}

/// A restore at work.
struct Restoration<'a, 'b> {
    request: &'a Restore<'b>,
    plan: &'a Plan,
    opened: &'a Opened,
    directory: &'a Directory,
    record: &'a Record,
    groups: &'a mut Groups<'b>,
    console: Option<OwnedFd>,
    /// It is floe's.
    own_criu: bool,
    /// Once all is whole.
    child: Option<Child>,
}

impl Restoration<'_, '_> {
    fn run(&mut self) -> Result<()> {
        self.groups.before()?;
        make_mount_points(self.plan)?;
        let namespaces = open_joined(&self.plan.spec)?;
        let inherited: Vec<OwnedFd> = namespaces
            .iter()
            .map(|(_, file)| file.try_clone())
            .collect::<std::io::Result<_>>()
            .during(|| "duplicate a namespace's file")?;
        let (criu, opened) = start(&self.request.images, &self.plan.rootfs, &inherited)?;
        let opened = opened.as_ref().unwrap_or(self.opened);
        self.own_criu = criu.is_floe();
        if !self.own_criu {
            // What criu makes is born where criu is.
            let child = adopt(criu.pid()?)?;
            self.groups.attach(&child)?;
        }
        let joined = namespaces.iter().map(|(kind, _)| *kind).zip(&inherited);
        let options = Options {
            root: Some(self.plan.rootfs.to_string_lossy().into_owned()),
            ext_mnt: external_mounts(self.plan),
            inherit_fd: self.inherit_fd(joined)?,
            rst_sibling: Some(true),
            evasive_devices: Some(true),
            tcp_close: Some(self.request.tcp_close),
            lsm_profile: self.request.lsm_profile.clone(),
            lsm_mount_context: self.request.lsm_mount_context.clone(),
            log_file: Some(LOG.to_owned()),
            ..opened.options(&self.request.images)
        };
        let restored = criu.request(RequestType::Restore, options, &mut |stage| self.act(&stage));
        restored.map_err(|error| checkpoint::explain(error, &self.request.images, LOG))?;
        criu.finish()
    }

    /// Our part at a stage.
    fn act(&mut self, stage: &Stage) -> Result<()> {
        match (stage.script.as_str(), stage.pid) {
            (script::SETUP_NAMESPACES, Some(pid)) => self.set_up(pid),
            (script::POST_RESTORE, Some(pid)) => self.whole(pid),
            (script::ORPHAN_PTS_MASTER, _) => self.hand_out(&stage.fds),
            _ => Ok(()),
        }
    }

    /// The first process stands in its namespaces and has done nothing.
    fn set_up(&mut self, pid: Pid) -> Result<()> {
        if self.own_criu {
            // Only the container's own processes count against its limits.
            self.groups.attach(&adopt(pid)?)?;
        }
        prepare::move_devices(&self.plan.linux(), pid)?;
        let pid = pid.as_raw_nonzero().get();
        let runtime_hooks = &self.plan.spec.hooks;
        let state = hooks::state(self.plan, spec::Status::Created, pid);
        hooks::run("prestart", &runtime_hooks.prestart, &state)?;
        let state = hooks::state(self.plan, spec::Status::Creating, pid);
        hooks::run("createRuntime", &runtime_hooks.create_runtime, &state)
    }

    /// All is whole and nothing runs: from here on the container exists.
    fn whole(&mut self, pid: Pid) -> Result<()> {
        let record = Record {
            cgroup_paths: self.groups.outer().paths(),
            resctrl: self.groups.resctrl(),
            ..self.record.clone()
        };
        let pid_file = self.request.create.pid_file.as_deref();
        let child = adopt(pid)?;
        let groups = self.groups.outer();
        self.child = Some(create::finish(
            self.directory,
            record,
            groups,
            child,
            pid_file,
        )?);
        Ok(())
    }

    /// Sends the terminal's master to whom the caller named.
    fn hand_out(&mut self, fds: &[OwnedFd]) -> Result<()> {
        let Some((console, master)) = self.console.as_ref().zip(fds.first()) else {
            return Ok(());
        };
        sys::message::send_with_fds(console, b"/dev/ptmx", &[master.as_fd()])
            .during(|| "hand the terminal out")
    }

    /// Descriptors of ours that criu gives to the tree, by the names that they had.
    fn inherit_fd<'n>(
        &self,
        namespaces: impl Iterator<Item = (Kind, &'n OwnedFd)>,
    ) -> Result<Vec<InheritFd>> {
        let known = checkpoint::joined(&self.plan.spec, self.own_criu)?;
        let known: Vec<Kind> = known.into_iter().map(|(kind, _)| kind).collect();
        let namespaces = namespaces
            .filter(|(kind, _)| known.contains(kind))
            .map(|(kind, file)| InheritFd {
                key: checkpoint::namespace_key(kind),
                fd: file.as_raw_fd(),
            });
        let streams = streams(self.request.images.directory)?;
        Ok(namespaces
            .chain(inherited_streams(&streams, self.own_criu))
            .collect())
    }
}

const LOG: &str = "restore.log";

fn adopt(pid: Pid) -> Result<Child> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).during(|| "open the pidfd")?;
    Ok(Child {
        pid,
        pidfd,
        in_group: false,
    })
}

/// Executes criu where the root file system is a mount, as criu itself demands.
///
/// Where it is none, one is made in a mount namespace that only criu is in: nothing of it can be
/// left behind. Our own hooks must run where the caller is, so we come back.
///
/// There it opens the directories too: criu mounts in the one that it works in.
fn start(
    images: &Images<'_>,
    rootfs: &Path,
    inherited: &[OwnedFd],
) -> Result<(Criu, Option<Opened>)> {
    let program = images.criu;
    if is_mount(rootfs)? || Criu::probe(program)? {
        return Ok((Criu::start(program, inherited)?, None));
    }
    let during = || "make a mount namespace for criu";
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open("/proc/self/ns/mnt", flags, Mode::empty()).during(during)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(".", flags, Mode::empty()).during(|| "open `.`")?;
    sys::namespace::unshare(Kind::Mount.flag()).during(during)?;
    let started = bind(rootfs)
        .and_then(|()| Opened::open(images))
        .and_then(|opened| Ok((Criu::start(program, inherited)?, Some(opened))));
    sys::namespace::join(own.as_fd(), Kind::Mount).during(|| "leave criu's mount namespace")?;
    rustix::process::fchdir(&directory).during(|| "go back to `.`")?;
    started
}

fn bind(rootfs: &Path) -> Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).during(|| "make `/` rslave")?;
    mount_bind_recursive(rootfs, rootfs).during(|| format!("mount `{}`", rootfs.display()))
}

fn is_mount(path: &Path) -> Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .during(|| format!("stat `{}`", path.display()))?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Makes what mounts are mounted on, where the root file system is a fresh one. What lies in another
/// mount is that one's.
fn make_mount_points(plan: &Plan) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&plan.rootfs, flags, Mode::empty())
        .during(|| format!("open `{}`", plan.rootfs.display()))?;
    for step in &plan.mounts {
        let inside = plan.mounts.iter().any(|other| {
            other.destination != step.destination
                && step.destination.starts_with(&other.destination)
        });
        if inside {
            continue;
        }
        let missing = match &step.what {
            What::Bind { source, .. } => {
                let source = std::fs::metadata(source)
                    .during(|| format!("open the source `{}`", source.display()))?;
                if source.is_dir() {
                    Missing::Directory
                } else {
                    Missing::File
                }
            }
            What::Filesystem { .. } | What::Cgroup => Missing::Directory,
        };
        sys::in_root::open_or_create(&root, &step.destination, missing)
            .during(|| format!("make `{}`", step.destination.display()))?;
    }
    Ok(())
}

/// What is mounted where a mount of the container was external.
fn external_mounts(plan: &Plan) -> Vec<ExternalMount> {
    let bound = plan.mounts.iter().filter_map(|step| match &step.what {
        What::Bind { source, .. } => Some((step.destination.clone(), source.clone())),
        What::Filesystem { .. } | What::Cgroup => None,
    });
    let masks = checkpoint::masked_paths(&plan.spec).into_iter();
    let masks = masks.map(|path| (path, "/dev/null".into()));
    bound
        .chain(masks)
        .map(|(key, source)| ExternalMount {
            key: key.to_string_lossy().into_owned(),
            val: source.to_string_lossy().into_owned(),
        })
        .collect()
}

fn open_joined(config: &spec::Spec) -> Result<Vec<(Kind, OwnedFd)>> {
    let open = |(kind, path): (Kind, std::path::PathBuf)| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty())
            .during(|| format!("linux.namespaces: open `{}`", path.display()))?;
        Ok((kind, file))
    };
    checkpoint::joined(config, true)?
        .into_iter()
        .map(open)
        .collect()
}

/// What the standard streams were at the checkpoint; images of others may not tell.
fn streams(directory: &Path) -> Result<Vec<String>> {
    let path = directory.join(STREAMS);
    let during = || format!("read `{}`", path.display());
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => spec::document(STREAMS, &other.during(during)?)
            .map_err(|error| Error::new(during(), error)),
    }
}

/// Our own standard streams, for those that were the caller's. One name stands for one object, so
/// the first stream with it will do.
fn inherited_streams(streams: &[String], floe: bool) -> Vec<InheritFd> {
    let outside = |name: &str| {
        let socket = floe && name.starts_with("socket:");
        name.starts_with("pipe:") || name.starts_with("file[") || socket
    };
    let mut seen = BTreeSet::new();
    (0..3)
        .zip(streams)
        .filter(|(_, name)| outside(name) && seen.insert(name.as_str()))
        .map(|(fd, name)| InheritFd {
            key: name.clone(),
            fd,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_the_caller_are_inherited_once() {
        let streams = ["/dev/null", "pipe:[7]", "pipe:[7]", "pipe:[8]"].map(str::to_owned);
        let given = inherited_streams(&streams, false);
        assert_eq!(
            given,
            [InheritFd {
                key: "pipe:[7]".into(),
                fd: 1
            }]
        );
        let streams = ["file[1:2]", "socket:[3]", "/dev/pts/0"].map(str::to_owned);
        assert_eq!(inherited_streams(&streams, false).len(), 1);
        let given: Vec<i32> = inherited_streams(&streams, true)
            .iter()
            .map(|one| one.fd)
            .collect();
        assert_eq!(given, [0, 1]);
    }
}
