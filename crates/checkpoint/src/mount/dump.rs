//! Writes down the mounts of the namespace that the engine is in, and what is in those that vanish
//! with it.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use sys::mount::Scope;

use crate::dump::Dump;
use crate::error::{Context, Error, Result};
use crate::external::External;
use crate::image::Kind;
use crate::image::namespace::{Fstype, MntEntry};
use crate::mount::{plan, table, tmpfs};
use crate::procfs;

/// The mounts of the namespace that the engine is in, with the caller's keys.
pub(crate) fn table(external: &[External]) -> Result<Vec<MntEntry>> {
    let path = format!("{}/self/mountinfo", procfs::root());
    let mut entries = table::parse(&std::fs::read(&path).during("read", &path)?);
    name_external(&mut entries, external);
    Ok(entries)
}

/// Dumps all mount namespaces of the tree.
pub(crate) fn dump(dump: &mut Dump<'_>) -> Result<()> {
    let mut entries = std::mem::take(&mut dump.mounts);
    let plan = plan::plan(&entries)?;
    let mut dumped = HashSet::new();
    for source in &plan.sources {
        let plan::Origin::New(model) = source.origin else {
            continue;
        };
        let entry = &entries[model];
        if entry.fstype == Fstype::Tmpfs as u32 && dumped.insert(entry.root_dev) {
            dump_tmpfs(&entries, entry, dump)?;
        }
    }
    // Only the message about a mount that is outside needed it.
    for entry in &mut entries {
        entry.fsname = None;
    }
    let mut rest = &entries[..];
    for table in &dump.mount_tables {
        let (own, others) = rest.split_at(table.mounts.min(rest.len()));
        let name = format!("mountpoints-{}.img", table.id);
        dump.images.write(&name, Kind::Mounts, own)?;
        rest = others;
    }
    Ok(())
}

fn name_external(entries: &mut [MntEntry], external: &[External]) {
    for entry in entries {
        let key = external.iter().find_map(|external| match external {
            External::Mount { path, key } if *path == entry.mountpoint => Some(key.clone()),
            _ => None,
        });
        entry.ext_key = key;
    }
}

fn dump_tmpfs(entries: &[MntEntry], entry: &MntEntry, dump: &Dump<'_>) -> Result<()> {
    if entry.root != "/" {
        let cause = "its file system is mounted in parts only; name it (--external mnt[PATH]:KEY)";
        return Err(Error::because("dump mount", &entry.mountpoint, cause));
    }
    let mut first = 0;
    for table in &dump.mount_tables {
        let own = &entries[first..(first + table.mounts).min(entries.len())];
        first += table.mounts;
        let mut same = own
            .iter()
            .filter(|other| other.root_dev == entry.root_dev && other.root == "/")
            .peekable();
        if same.peek().is_none() {
            continue;
        }
        table.visit()?;
        let mut found = None;
        for mount in same {
            found = found.or(open(mount)?);
        }
        let done = found.map(|root| {
            // Without the mounts on top of it; an unbindable mount cannot be copied.
            let alone = sys::mount::clone_tree(&root, Scope::One).unwrap_or(root);
            tmpfs::dump(&alone, entry.root_dev, dump.images)
        });
        crate::namespace::leave(dump)?;
        if let Some(result) = done {
            return result;
        }
    }
    let cause = "another mount hides it";
    Err(Error::because("dump mount", &entry.mountpoint, cause))
}

/// The root of a mount; `None` if another one hides it.
fn open(mount: &MntEntry) -> Result<Option<OwnedFd>> {
    let point = &mount.mountpoint;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match rustix::fs::open(point.as_str(), flags, Mode::empty()) {
        Err(sys::Errno::NOENT | sys::Errno::NOTDIR) => return Ok(None),
        other => other.during("open", point)?,
    };
    Ok(Some(root).filter(|root| id_of(root).is_ok_and(|id| id == mount.mnt_id)))
}

/// The id of the mount that a descriptor lies on.
pub(crate) fn id_of(fd: &OwnedFd) -> Result<u32> {
    let path = format!("{}/self/fdinfo/{}", procfs::root(), fd.as_raw_fd());
    let info = std::fs::read_to_string(&path).during("read", path)?;
    Ok(procfs::Lines::parse(&info).number("mnt_id") as u32)
}
