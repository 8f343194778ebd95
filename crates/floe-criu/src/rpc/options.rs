//! The options of a request, in the engine's words.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use checkpoint::image::Directory;
use checkpoint::{
    Afterwards, DumpOptions, External, NamespaceKind, NetworkLock, Place, RestoreOptions,
};
use criu_rpc::Options;

use crate::log::Log;

/// criu's default: a mebibyte.
const GHOST_LIMIT: u32 = 1 << 20;

/// The directory of the images, which the caller has open.
pub(super) fn images(options: &Options, caller: i32) -> Result<Directory> {
    Ok(Directory::open(&images_path(options, caller)?)?)
}

fn images_path(options: &Options, caller: i32) -> Result<String> {
    match (&options.images_dir, options.images_dir_fd) {
        (Some(path), _) => Ok(path.clone()),
        (None, fd) if fd >= 0 => Ok(of_caller(caller, fd)),
        (None, _) => bail!("read options: the directory of the images is not named"),
    }
}

fn of_caller(caller: i32, fd: i32) -> String {
    format!("/proc/{caller}/fd/{fd}")
}

/// The log file: a name in the working directory, which by default is that of the images.
pub(super) fn log(options: Option<&Options>, caller: i32) -> Result<Log> {
    let Some((options, name)) = options.and_then(|all| Some((all, all.log_file.as_ref()?))) else {
        return Ok(Log::new(None));
    };
    if name.contains('/') {
        bail!("read options: log file `{name}`: only a name in the working directory");
    }
    let directory = match options.work_dir_fd {
        Some(fd) => of_caller(caller, fd),
        None => images_path(options, caller)?,
    };
    let path = format!("{directory}/{name}");
    let file = File::create(&path).with_context(|| format!("create `{path}`"))?;
    Ok(Log::new(Some(file)))
}

/// Refuses what would be wrong in silence.
pub(super) fn refuse_unknown(options: &Options) -> Result<()> {
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let missing = [
        (options.ps.is_some(), "a page server"),
        (
            options
                .parent_img
                .as_deref()
                .is_some_and(|path| !path.is_empty()),
            "a parent image",
        ),
        (on(options.track_mem), "tracking of memory"),
        (on(options.lazy_pages), "lazy pages"),
    ];
    match missing.iter().find(|(given, _)| *given) {
        Some((_, what)) => bail!("read options: {what}: floe-criu does not do that yet"),
        None => Ok(()),
    }
}

/// How to dump; without a pid, the caller.
pub(super) fn dump(options: &Options, caller: i32) -> Result<DumpOptions> {
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let afterwards = match (on(options.leave_running), on(options.leave_stopped)) {
        (true, _) => Afterwards::Run,
        (_, true) => Afterwards::Stop,
        _ => Afterwards::Kill,
    };
    Ok(DumpOptions {
        tree: options.pid.unwrap_or(caller),
        afterwards,
        shell_job: on(options.shell_job),
        link_remap: on(options.link_remap),
        file_locks: on(options.file_locks),
        tcp_established: on(options.tcp_established),
        tcp_close: on(options.tcp_close),
        ghost_limit: Some(options.ghost_limit.unwrap_or(GHOST_LIMIT).into()),
        external_unix_sockets: on(options.ext_unix_sk),
        freeze_group: options.freeze_cgroup.as_ref().map(PathBuf::from),
        skip_in_flight: on(options.tcp_skip_in_flight),
        network_lock: network_lock(options)?,
        external: external(options)?,
        empty_network: empty_network(options),
        ..DumpOptions::default()
    })
}

fn network_lock(options: &Options) -> Result<NetworkLock> {
    Ok(match options.network_lock {
        None => NetworkLock::Auto,
        Some(1) => NetworkLock::Iptables,
        Some(2) => NetworkLock::Nftables,
        Some(3) => NetworkLock::Skip,
        Some(other) => bail!("read options: network lock {other}: unknown"),
    })
}

fn external(options: &Options) -> Result<Vec<External>> {
    let mounts = options
        .ext_mnt
        .iter()
        .map(|mount| match mount.key.as_str() {
            "auto" => External::AnyMount,
            path => External::Mount {
                path: path.to_owned(),
                key: mount.val.clone(),
            },
        });
    let sockets = options.unix_sk_ino.iter();
    let sockets = sockets.map(|socket| External::UnixSocket {
        inode: socket.inode,
    });
    let mut all: Vec<External> = mounts.chain(sockets).collect();
    if options.auto_ext_mnt.unwrap_or(false) {
        all.push(External::AnyMount);
    }
    for text in &options.external {
        let parsed = External::parse(text);
        all.push(parsed.with_context(|| format!("read options: external `{text}`: unknown form"))?);
    }
    Ok(all)
}

fn empty_network(options: &Options) -> bool {
    let flags = u64::from(options.empty_ns.unwrap_or(0));
    flags & NamespaceKind::Network.flag() != 0
}

/// How to restore.
pub(super) fn restore(options: &Options) -> Result<RestoreOptions> {
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let (mut join, inherit) = inherited(options)?;
    for wanted in &options.join_ns {
        join.push(namespace(&wanted.ns, &wanted.ns_file)?);
    }
    Ok(RestoreOptions {
        shell_job: on(options.shell_job),
        sibling: on(options.rst_sibling),
        tcp_established: on(options.tcp_established),
        tcp_close: on(options.tcp_close),
        root: options
            .root
            .as_ref()
            .map(|path| Place::Path(PathBuf::from(path))),
        mounts: mounts(options),
        join,
        inherit,
        empty_network: empty_network(options),
        ..RestoreOptions::default()
    })
}

/// What is mounted for each key.
fn mounts(options: &Options) -> Vec<(String, Place)> {
    let listed = options.ext_mnt.iter();
    let listed = listed.map(|mount| (mount.key.as_str(), mount.val.as_str()));
    let named = options.external.iter();
    let named = named.filter_map(|text| text.strip_prefix("mnt[")?.split_once("]:"));
    listed
        .chain(named)
        .map(|(key, path)| (key.to_owned(), Place::Path(PathBuf::from(path))))
        .collect()
}

type Joined = Vec<(NamespaceKind, OwnedFd)>;
type Given = Vec<(String, OwnedFd)>;

/// Descriptors that the caller left open for us. Those of namespaces are what the tree joins: under
/// which name they were left out at the dump is the caller's matter.
fn inherited(options: &Options) -> Result<(Joined, Given)> {
    let (mut join, mut given) = (Vec::new(), Vec::new());
    for wanted in &options.inherit_fd {
        let fd = sys::inherited_fd::duplicate(wanted.fd)
            .with_context(|| format!("take descriptor {} for `{}`", wanted.fd, wanted.key))?;
        match sys::nsfs::kind(&fd).ok().and_then(kind_of_flag) {
            Some(kind) => join.push((kind, fd)),
            None => given.push((wanted.key.clone(), fd)),
        }
    }
    // The tree must not have them beside its own; one may have been given under two keys.
    let numbers: BTreeSet<i32> = options.inherit_fd.iter().map(|wanted| wanted.fd).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        drop(sys::fd::adopt(number).context("close what was inherited")?);
    }
    Ok((join, given))
}

fn kind_of_flag(flag: u32) -> Option<NamespaceKind> {
    NamespaceKind::ALL
        .into_iter()
        .find(|kind| kind.flag() == u64::from(flag))
}

fn namespace(name: &str, path: &str) -> Result<(NamespaceKind, OwnedFd)> {
    let kind = NamespaceKind::ALL
        .into_iter()
        .find(|kind| kind.file() == name);
    let kind = kind.with_context(|| format!("read options: join `{name}`: unknown kind"))?;
    let file = File::open(path).with_context(|| format!("open `{path}`"))?;
    Ok((kind, file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use criu_rpc::{ExternalMount, PageServer};

    #[test]
    fn runcs_dump() {
        let options = Options {
            pid: Some(42),
            leave_running: Some(true),
            shell_job: Some(false),
            ext_mnt: vec![ExternalMount {
                key: "/data".into(),
                val: "data".into(),
            }],
            external: vec!["net[77]:extRootNetNS".into()],
            empty_ns: Some(libc_newnet()),
            ..Options::default()
        };
        let dump = dump(&options, 1).unwrap();
        assert_eq!((dump.tree, dump.afterwards), (42, Afterwards::Run));
        assert!(dump.empty_network && !dump.shell_job);
        assert_eq!(dump.ghost_limit, Some(1 << 20));
        let mount = External::Mount {
            path: "/data".into(),
            key: "data".into(),
        };
        assert_eq!(dump.external[0], mount);
        assert!(matches!(
            dump.external[1],
            External::Namespace { inode: 77, .. }
        ));
    }

    fn libc_newnet() -> u32 {
        u32::try_from(NamespaceKind::Network.flag()).unwrap()
    }

    #[test]
    fn without_a_pid_the_caller_is_dumped() {
        assert_eq!(dump(&Options::default(), 9).unwrap().tree, 9);
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let page_server = Options {
            ps: Some(PageServer::default()),
            ..Options::default()
        };
        let lazy = Options {
            lazy_pages: Some(true),
            ..Options::default()
        };
        for (options, refused) in [
            (Options::default(), false),
            (page_server, true),
            (lazy, true),
        ] {
            assert_eq!(refuse_unknown(&options).is_err(), refused, "{options:?}");
        }
        let unknown = Options {
            external: vec!["what".into()],
            ..Options::default()
        };
        assert!(dump(&unknown, 1).is_err());
    }

    #[test]
    fn both_forms_name_mounts() {
        let options = Options {
            ext_mnt: vec![ExternalMount {
                key: "a".into(),
                val: "/host/a".into(),
            }],
            external: vec!["mnt[b]:/host/b".into(), "veth[eth0]:x".into()],
            ..Options::default()
        };
        let mounts = mounts(&options);
        let shown: Vec<String> = mounts.iter().map(|mount| format!("{mount:?}")).collect();
        assert_eq!(
            shown,
            [r#"("a", Path("/host/a"))"#, r#"("b", Path("/host/b"))"#]
        );
    }

    #[test]
    fn a_log_file_has_no_directory() {
        let options = Options {
            log_file: Some("../x".into()),
            ..Options::default()
        };
        assert!(log(Some(&options), 1).is_err());
    }
}
