//! Makes a container: reads facts, plans, writes the plan to disk. Nothing runs yet.

mod root;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use monitor::clock::Moment;
use monitor::restart::Policy;
use serde_json::{Value, json};

use crate::flags::CreateFlags;
use crate::layer::{Layer, Seed};
use crate::plan::group::group;
use crate::plan::identity::{IdMaps, User};
use crate::plan::mounts::{KernelView, Mount, Source, requested, to_oci};
use crate::plan::spec::{Namespace, Namespaces, OverlayMount, Parts, build};
use crate::plan::{identity, process, resources, security};
use crate::store::container::{Container, replace_durably};
use crate::store::record::Record;
use crate::store::{self, Store};
use crate::{host, parse};
use root::{Root, RootKind};

/// Makes a container of these flags.
///
/// # Errors
/// A flag that is wrong, or what the kernel refuses; nothing is left then.
pub(crate) fn create(store: &Store, flags: &CreateFlags) -> Result<Container> {
    let draft = Draft::read(store, flags)?;
    let id = store::new_id()?;
    if let Some(path) = &flags.cidfile {
        let mut file = std::fs::File::create_new(path)
            .with_context(|| format!("make cidfile `{}`", path.display()))?;
        std::io::Write::write_all(&mut file, id.as_bytes())
            .with_context(|| format!("write `{}`", path.display()))?;
    }
    let name = match &flags.name {
        Some(name) => parse::name(name)?,
        None => store::random_name()?,
    };
    let dir = store.containers().join(&id);
    store::make_private(&dir)?;
    let made = draft.write(store, flags, &id, &name, &dir);
    if made.is_err() {
        store.drop_name(&name, &id);
        // The first error is the one to tell.
        let _ = crate::command::rm::remove_tree(&dir);
    }
    let container = made?;
    crate::events::record(store, &container, "create", &[]);
    Ok(container)
}

/// What is decided before anything is written.
struct Draft {
    id_maps: Option<IdMaps>,
    root: Root,
    user: User,
    arguments: Vec<String>,
    mounts: Vec<Mount>,
    namespaces: Namespaces,
    security: security::Security,
    stop_signal: i32,
}

/// Where the container lies on this machine.
struct Place {
    rootfs: PathBuf,
    overlays: Vec<OverlayMount>,
    mounts: Vec<Value>,
    cgroup: Option<String>,
}

impl Draft {
    fn read(store: &Store, flags: &CreateFlags) -> Result<Self> {
        refuse_early(flags)?;
        let id_maps = identity::id_maps(flags.isolation.userns.as_deref(), &host::caller())?;
        let root = Root::find(store, &flags.root, id_maps.as_ref())?;
        let image = &root.image;
        let user = flags.process.user.as_deref().or(image.user.as_deref());
        let keep_id = flags.isolation.userns.as_deref() == Some("keep-id");
        let own = rustix::process::geteuid().as_raw().to_string();
        let fallback = if keep_id { own.as_str() } else { "0" };
        let user = root.accounts.user(
            user.filter(|user| !user.is_empty()).unwrap_or(fallback),
            &flags.process.group_add,
        )?;
        let mut arguments =
            process::arguments(image, flags.process.entrypoint.as_deref(), &flags.command)?;
        if flags.process.init {
            arguments.splice(0..0, [INIT, "init", "--"].map(str::to_owned));
        }
        let current = std::env::current_dir().context("find current directory")?;
        let namespaces = namespaces(store, flags, id_maps.clone())?;
        let security = security::security(&flags.isolation, host::bounding_set(), &|file| {
            std::fs::read_to_string(file).with_context(|| format!("read seccomp filter `{file}`"))
        })?;
        let stop_signal = match flags
            .life
            .stop_signal
            .as_ref()
            .or(image.stop_signal.as_ref())
        {
            Some(text) => parse::signal(text)?,
            None => 15,
        };
        Ok(Self {
            id_maps,
            user,
            arguments,
            mounts: requested(&flags.storage, &current)?,
            namespaces,
            security,
            stop_signal,
            root,
        })
    }

    fn write(
        self,
        store: &Store,
        flags: &CreateFlags,
        id: &str,
        name: &str,
        dir: &Path,
    ) -> Result<Container> {
        let hostname = flags
            .hostname
            .clone()
            .unwrap_or_else(|| id[..12].to_owned());
        let seeds = seeds(&hostname, &self.namespaces.network);
        let mut record = self.record(flags, id, name, &hostname)?;
        let container_dir = Container {
            record: Record::default(),
            dir: dir.into(),
            run_dir: store.run.join(id),
        };
        record.layer = self.layer_base(store, flags, dir)?;
        let layer = Layer {
            base: &record.layer,
            id_maps: self.id_maps.as_ref(),
            privileged: !store.rootless,
        };
        if record.layer.starts_with(dir) {
            store::make_private(layer.base)?;
        } else {
            store::make_passable(layer.base)?;
        }
        let mut mounts = self.own_mounts(store, flags, &record.layer)?;
        let (rootfs, overlays) = match &self.root.kind {
            RootKind::Direct(path) => {
                mounts.splice(0..0, bind_seeds(dir, &seeds)?);
                record.direct_root = Some(path.clone());
                (path.clone(), Vec::new())
            }
            RootKind::Layered(plan) => {
                let overlays = layer.make(plan, &seeds)?;
                record.root = plan.clone();
                record.seeds = seeds.iter().map(|seed| seed.path.clone()).collect();
                (layer.root(), overlays)
            }
        };
        let group = group(flags.limits.cgroup_parent.as_deref(), id, host::keeper())?;
        record.systemd_group = group.systemd;
        let place = Place {
            rootfs,
            overlays,
            mounts,
            cgroup: group.path,
        };
        let spec = build(&self.parts(flags, hostname, place)?)?;
        let bundle = container_dir.bundle();
        store::make_private(&bundle)?;
        replace_durably(&bundle.join("config.json"), &serde_json::to_vec(&spec)?)?;
        store.take_name(name, id)?;
        let container = Container {
            record,
            ..container_dir
        };
        // Last: a directory without it is no container.
        container.save()?;
        Ok(container)
    }

    fn record(&self, flags: &CreateFlags, id: &str, name: &str, hostname: &str) -> Result<Record> {
        let life = &flags.life;
        let policy = Policy::parse(&life.restart).with_context(|| {
            format!(
                "--restart `{}`: no, on-failure[:N], always or unless-stopped",
                life.restart
            )
        })?;
        if life.rm && policy != Policy::No {
            bail!("--rm and --restart contradict each other");
        }
        parse::detach_keys(&life.detach_keys)?;
        let volumes = self.mounts.iter().filter_map(|mount| match &mount.source {
            Source::Volume(name) => Some(name.clone()),
            Source::Bind { .. } | Source::Tmpfs => None,
        });
        Ok(Record {
            id: id.to_owned(),
            name: name.to_owned(),
            created: Moment::now().to_string(),
            image: self.root.name.clone(),
            command: self.arguments.clone(),
            labels: labels(&flags.labels),
            hostname: hostname.to_owned(),
            network: flags
                .isolation
                .net
                .clone()
                .unwrap_or_else(|| "none".to_owned()),
            terminal: flags.process.tty,
            interactive: flags.process.interactive,
            detach_keys: life.detach_keys.clone(),
            remove: life.rm,
            restart: policy.to_string(),
            stop_signal: self.stop_signal,
            stop_timeout: life.stop_timeout.unwrap_or(10),
            log_size: u64::try_from(parse::bytes(&life.log_size)?).unwrap_or(u64::MAX),
            no_enter: flags.isolation.no_enter,
            user: self.user.clone(),
            id_maps: self.id_maps.clone(),
            volumes: volumes.collect(),
            ..Record::default()
        })
    }

    /// On disk in the container's directory; in memory if asked for, or if the disk's file system
    /// cannot hold a writable layer (an overlay itself: floe inside a container).
    fn layer_base(&self, store: &Store, flags: &CreateFlags, dir: &Path) -> Result<PathBuf> {
        let overlay = file_system(&store.state) == OVERLAY_MAGIC;
        let impossible = overlay && matches!(self.root.kind, RootKind::Layered(_));
        let name = dir.file_name().unwrap_or_default();
        if !(flags.root.tmpfs_layer || impossible) {
            if self.id_maps.is_none() || store.rootless {
                return Ok(dir.join("layer"));
            }
            // The container's root is another user of the host, who must be able to pass. What
            // lies here belongs to it: no file is root's, so a set-id program in it is harmless.
            let shifted = store.state.join("shifted");
            store::make_passable(&shifted)?;
            return Ok(shifted.join(name));
        }
        let shared =
            Path::new("/dev/shm").join(format!("floe-{}", rustix::process::geteuid().as_raw()));
        let Some(base) = [store.run.join("layers"), shared]
            .into_iter()
            .find(|base| file_system(base.parent().unwrap_or(base)) == TMPFS_MAGIC)
        else {
            bail!(
                "--tmpfs-layer: neither `{}` nor `/dev/shm` is a tmpfs",
                store.run.display()
            );
        };
        store::make_private(&base)?;
        use std::os::unix::fs::MetadataExt;
        // Anybody may have made a directory of this name in /dev/shm first.
        let owner = std::fs::symlink_metadata(&base)?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            bail!("`{}` belongs to user {owner}", base.display());
        }
        Ok(base.join(name))
    }

    /// The user's mounts and the init, in OCI form; missing sources are made.
    fn own_mounts(&self, store: &Store, flags: &CreateFlags, layer: &Path) -> Result<Vec<Value>> {
        let volumes = store.state.join("volumes");
        let mut mounts = Vec::new();
        for mount in &self.mounts {
            match &mount.source {
                Source::Bind { path, create: true } if !path.exists() => {
                    std::fs::create_dir_all(path)
                        .with_context(|| format!("make `{}`", path.display()))?;
                }
                Source::Bind {
                    path,
                    create: false,
                } if !path.exists() => {
                    bail!("--mount: `{}` is not there", path.display());
                }
                Source::Volume(name) => store::make_private(&volumes.join(name))?,
                Source::Bind { .. } | Source::Tmpfs => {}
            }
            mounts.push(to_oci(mount, &volumes));
        }
        if flags.process.init {
            // A copy: what a container runs is never the host's own file.
            let copy = layer.join("init");
            let floed = crate::runtime::companion("floed")?;
            std::fs::copy(&floed, &copy).with_context(|| format!("copy `{}`", floed.display()))?;
            mounts.push(json!({
                "destination": INIT, "type": "bind", "source": copy,
                "options": ["bind", "ro", "nosuid", "nodev"],
            }));
        }
        Ok(mounts)
    }

    fn parts(self, flags: &CreateFlags, hostname: String, place: Place) -> Result<Parts> {
        let mut devices = flags
            .storage
            .device
            .iter()
            .map(|text| host::device(text))
            .collect::<Result<Vec<_>>>()?;
        if flags.isolation.privileged && self.id_maps.is_none() {
            devices.extend(host::all_devices());
        }
        let sysctl = flags
            .isolation
            .sysctl
            .iter()
            .map(|text| match text.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => bail!("--sysctl `{text}`: KEY=VALUE"),
            });
        Ok(Parts {
            kernel: KernelView {
                shm_size: parse::bytes(&flags.storage.shm_size)?,
                privileged: flags.isolation.privileged,
                user_namespace: self.id_maps.is_some(),
                tty_group: self.id_maps.as_ref().is_none_or(|maps| maps.has_gid(5)),
                host_network: self.namespaces.network != Namespace::Private,
                host_ipc: self.namespaces.ipc == Namespace::Host,
                host_pid: self.namespaces.pid == Namespace::Host,
                host_queues: Path::new("/dev/mqueue").is_dir(),
                fresh_run: self.root.is_host,
            },
            environment: self.environment(flags, &hostname)?,
            directory: self.directory(flags)?,
            cgroup: place.cgroup,
            resources: resources::resources(&flags.limits)?,
            rlimits: process::rlimits(&flags.process.ulimit)?,
            sysctl: sysctl.collect::<Result<_>>()?,
            labels: labels(&flags.labels).into_iter().collect(),
            read_only: flags.root.read_only,
            terminal: flags.process.tty,
            oom_score_adj: flags.process.oom_score_adj,
            hostname,
            namespaces: self.namespaces,
            arguments: self.arguments,
            user: self.user,
            security: self.security,
            rootfs: place.rootfs,
            overlays: place.overlays,
            mounts: place.mounts,
            devices,
        })
    }

    fn environment(&self, flags: &CreateFlags, hostname: &str) -> Result<Vec<String>> {
        let own = |name: &str| std::env::var(name).ok();
        let mut base: Vec<(String, String)> = Vec::new();
        if self.root.is_host {
            // A copy of this machine speaks its user's language and finds the same programs.
            let passed = std::env::vars().filter(|(name, _)| {
                name == "PATH" || name == "LANG" || name == "TZ" || name.starts_with("LC_")
            });
            base.extend(passed);
        }
        base.extend(
            self.root
                .image
                .environment
                .iter()
                .map(|text| parse::key_value(text)),
        );
        let mut default = |name: &str, value: String| {
            if !base.iter().any(|(other, _)| other == name) {
                base.push((name.to_owned(), value));
            }
        };
        default("PATH", process::DEFAULT_PATH.to_owned());
        default("HOSTNAME", hostname.to_owned());
        default(
            "HOME",
            self.user.home.clone().unwrap_or_else(|| "/".to_owned()),
        );
        if flags.process.tty {
            default("TERM", own("TERM").unwrap_or_else(|| "xterm".to_owned()));
        }
        process::environment(base, &flags.process, &own, &|path| {
            std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
        })
    }

    fn directory(&self, flags: &CreateFlags) -> Result<String> {
        let asked = flags
            .process
            .workdir
            .as_ref()
            .or(self.root.image.directory.as_ref());
        match asked.filter(|directory| !directory.is_empty()) {
            Some(directory) if directory.starts_with('/') => Ok(directory.clone()),
            Some(directory) => bail!("--workdir `{directory}`: an absolute path"),
            None => Ok(self.root.directory.clone()),
        }
    }
}

/// Where the init is mounted.
const INIT: &str = "/dev/floe-init";

const OVERLAY_MAGIC: i64 = 0x794c_7630;
const TMPFS_MAGIC: i64 = 0x0102_1994;

fn file_system(path: &Path) -> i64 {
    rustix::fs::statfs(path).map_or(0, |info| info.f_type)
}

/// What cannot be done is said before anything is done.
fn refuse_early(flags: &CreateFlags) -> Result<()> {
    if !flags.isolation.publish.is_empty() {
        bail!(
            "--publish: this version has no bridge network to publish from\n\
             `--net host` shares the host's ports"
        );
    }
    if let Some(name) = &flags.name {
        parse::name(name)?;
    }
    if let Some(hostname) = &flags.hostname {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if hostname.is_empty() || hostname.len() > 64 || !hostname.bytes().all(good) {
            bail!("--hostname {hostname:?}: 1 to 64 letters, digits, `.`, `-`");
        }
    }
    if let Some(adjustment) = flags.process.oom_score_adj
        && !(-1000..=1000).contains(&adjustment)
    {
        bail!("--oom-score-adj {adjustment}: -1000 to 1000");
    }
    Ok(())
}

fn labels(texts: &[String]) -> BTreeMap<String, String> {
    texts.iter().map(|text| parse::key_value(text)).collect()
}

fn namespaces(store: &Store, flags: &CreateFlags, id_maps: Option<IdMaps>) -> Result<Namespaces> {
    let isolation = &flags.isolation;
    let pid_of = |name: &str| {
        let container = store.find(name)?;
        container.refuse_if_sealed("join")?;
        container.running_pid(store)
    };
    let parse =
        |flag, mode: &Option<String>, file| Namespace::parse(flag, mode.as_deref(), file, &pid_of);
    let offsets = isolation
        .time_offset
        .as_deref()
        .map(process::time_offsets)
        .transpose()?;
    Ok(Namespaces {
        network: parse("--net", &isolation.net, "net")?,
        pid: parse("--pid", &isolation.pid, "pid")?,
        ipc: parse("--ipc", &isolation.ipc, "ipc")?,
        uts: parse("--uts", &isolation.uts, "uts")?,
        id_maps,
        time_offsets: offsets,
    })
}

/// The files about names that every container gets.
fn seeds(hostname: &str, network: &Namespace) -> Vec<Seed> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hosts = if *network == Namespace::Private {
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    } else {
        read("/etc/hosts")
    };
    [
        ("/etc/hosts", hosts),
        ("/etc/hostname", format!("{hostname}\n")),
        ("/etc/resolv.conf", read("/etc/resolv.conf")),
    ]
    .map(|(path, text)| Seed {
        path: path.into(),
        text,
    })
    .into()
}

/// The same files beside a root that is not floe's to write to.
fn bind_seeds(dir: &Path, seeds: &[Seed]) -> Result<Vec<Value>> {
    let directory = dir.join("etc");
    store::make_private(&directory)?;
    let mut mounts = Vec::new();
    for seed in seeds {
        let file = directory.join(seed.path.file_name().unwrap_or_default());
        std::fs::write(&file, &seed.text).with_context(|| format!("write `{}`", file.display()))?;
        mounts.push(json!({
            "destination": seed.path, "type": "bind", "source": file,
            "options": ["bind", "rprivate"],
        }));
    }
    Ok(mounts)
}
