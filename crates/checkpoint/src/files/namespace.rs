//! Descriptors of `/proc/PID/ns/*`, as long as the namespace is one that the process is in.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::{Descriptor, new_entry};
use crate::error::{Context, Error, Result};
use crate::image::file::{FdTypes, FileEntry, NsFileEntry};

/// Name in `/proc/PID/ns`, CLONE_NEW* flag.
const KINDS: [(&str, i32); 8] = [
    ("net", libc::CLONE_NEWNET),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("user", libc::CLONE_NEWUSER),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", 0x80),
];

/// The kind of namespace that a link names: `net:[4026531840]`.
pub(crate) fn kind(link: &str) -> Option<(&'static str, i32)> {
    let (name, rest) = link.split_once(":[")?;
    let number = rest.strip_suffix(']')?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    KINDS.into_iter().find(|(known, _)| *known == name)
}

pub(crate) fn dump(descriptor: &Descriptor) -> Result<FileEntry> {
    let about = |cause| Error::because("dump namespace", &descriptor.link, cause);
    let (name, flag) = kind(&descriptor.link).ok_or_else(|| about("unknown kind"))?;
    let path = format!("{}/{}/ns/{name}", crate::procfs::root(), descriptor.process);
    let own = std::fs::metadata(&path).during("stat", &path)?.ino();
    if own != descriptor.stat.st_ino {
        return Err(about("none of the dumped processes is in it"));
    }
    let mut entry = new_entry(FdTypes::Ns, descriptor.id);
    entry.nsf = Some(NsFileEntry {
        id: descriptor.id,
        ns_id: 0,
        ns_cflag: flag as u32,
        flags: descriptor.flags,
    });
    Ok(entry)
}

/// Opens the namespace of this kind that `process` is in.
pub(crate) fn restore(entry: &NsFileEntry, process: Pid) -> Result<OwnedFd> {
    let known = KINDS
        .iter()
        .find(|(_, flag)| *flag as u32 == entry.ns_cflag);
    let unknown = || Error::because("open namespace", entry.id, "unknown kind");
    let (name, _) = known.ok_or_else(unknown)?;
    let path = format!("{}/{process}/ns/{name}", crate::procfs::root());
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during("open", &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_namespaces() {
        assert_eq!(kind("net:[4026531840]"), Some(("net", libc::CLONE_NEWNET)));
        for other in ["pipe:[5]", "net:[x]", "/net:[5", "socket:[5]"] {
            assert_eq!(kind(other), None, "{other}");
        }
    }
}
