//! What a tree uses that is not part of it, in the words of criu's `--external`.

use sys::namespace::Kind;

use crate::dump::Dump;
use crate::error::{Error, Result};
use crate::files::Descriptor;
use crate::image::file::FileEntry;
use crate::image::namespace::MntEntry;
use crate::procfs::Lines;

/// A thing outside of the tree that a dump may leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum External {
    /// The mount at `path` comes from the caller again at the restore, under `key`.
    Mount {
        /// Where it is mounted, as the tree's root sees it.
        path: String,
        /// The caller's name for it.
        key: String,
    },
    /// Mounts whose source is outside come from the same place of the host.
    AnyMount,
    /// The namespace with this inode is not the tree's own.
    Namespace {
        /// Its kind.
        kind: Kind,
        /// The inode of `/proc/PID/ns/KIND`.
        inode: u64,
        /// The caller's name for it.
        key: String,
    },
    /// A terminal whose other end is outside: the device that it is and the one that it lies on.
    Terminal {
        /// `st_rdev`, as the kernel prints it in hexadecimal.
        device: u64,
        /// `st_dev`.
        on: u64,
    },
    /// An open file: the id of its mount and its inode.
    File {
        /// `mnt_id` of its fdinfo.
        mount: u32,
        /// `st_ino`.
        inode: u64,
    },
    /// A unix socket with a peer outside.
    UnixSocket {
        /// Its inode.
        inode: u32,
    },
    /// A network device that the caller makes before the restore.
    NetworkDevice {
        /// Its name inside.
        name: String,
        /// What criu's caller says about the other end.
        peer: String,
    },
}

impl External {
    /// Parses `mnt[/path]:KEY`, `net[INODE]:KEY`, `tty[RDEV:DEV]`, `file[MNT:INODE]`, …
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('[')?;
        let (inside, after) = rest.split_once(']')?;
        let key = after.strip_prefix(':').unwrap_or("");
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        match kind {
            "mnt" if inside.is_empty() => Some(Self::AnyMount),
            "mnt" => Some(Self::Mount {
                path: inside.to_owned(),
                key: if key.is_empty() { inside } else { key }.to_owned(),
            }),
            "tty" => {
                let (device, on) = inside.split_once(':')?;
                Some(Self::Terminal {
                    device: hex(device)?,
                    on: hex(on)?,
                })
            }
            "file" => {
                let (mount, inode) = inside.split_once(':')?;
                Some(Self::File {
                    mount: hex(mount)? as u32,
                    inode: hex(inode)?,
                })
            }
            "unix" => Some(Self::UnixSocket {
                inode: inside.parse().ok()?,
            }),
            "veth" | "macvlan" => Some(Self::NetworkDevice {
                name: inside.to_owned(),
                peer: key.to_owned(),
            }),
            _ => {
                let kind = Kind::ALL.into_iter().find(|known| known.file() == kind)?;
                let inode = inside.parse().ok()?;
                Some(Self::Namespace {
                    kind,
                    inode,
                    key: key.to_owned(),
                })
            }
        }
    }
}

/// The key of an open file that the caller brings again at the restore; `None`: it is the tree's.
///
/// # Errors
/// It lies outside of the tree's mounts, and the caller does not name it.
pub(crate) fn name_file(descriptor: &Descriptor, dump: &Dump<'_>) -> Result<Option<String>> {
    let mount = Lines::parse(&descriptor.info).number("mnt_id") as u32;
    let inode = descriptor.stat.st_ino;
    let key = format!("file[{mount:x}:{inode:x}]");
    let wanted = External::File { mount, inode };
    if dump.options.external.contains(&wanted) {
        return Ok(Some(key));
    }
    let known = |entry: &MntEntry| entry.mnt_id == mount;
    if dump.mounts.is_empty() || dump.mounts.iter().any(known) {
        return Ok(None);
    }
    // A device without state, as a runtime hands it in for lack of an input: the one inside will do.
    if descriptor.stat.st_mode & libc::S_IFMT == libc::S_IFCHR
        && rustix::fs::stat(descriptor.link.as_str())
            .is_ok_and(|inside| inside.st_rdev == descriptor.stat.st_rdev)
    {
        return Ok(None);
    }
    let cause = format!("it lies on a mount outside of the tree; name it (--external {key})");
    Err(Error::because("dump file", &descriptor.link, cause))
}

/// The keys under which a caller may give what stands in for a file of the images.
pub(crate) fn keys_of(entry: &FileEntry) -> Vec<String> {
    if let Some(pipe) = &entry.pipe {
        return vec![
            format!("pipe:[{}]", pipe.pipe_id),
            format!("pipe[{}]", pipe.pipe_id),
        ];
    }
    if let Some(socket) = &entry.usk {
        return vec![
            format!("socket:[{}]", socket.ino),
            format!("socket[{}]", socket.ino),
        ];
    }
    if let Some(reg) = &entry.reg {
        let bare = reg.name.trim_start_matches('/').to_owned();
        return vec![reg.name.clone(), bare];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_callers_use() {
        let mount = |path: &str, key: &str| External::Mount {
            path: path.to_owned(),
            key: key.to_owned(),
        };
        for (text, expected) in [
            ("mnt[/dev]:ZDTM_DEV", Some(mount("/dev", "ZDTM_DEV"))),
            ("mnt[/etc/hosts]", Some(mount("/etc/hosts", "/etc/hosts"))),
            ("mnt[]:m", Some(External::AnyMount)),
            (
                "net[4026531840]:extRootNetNS",
                Some(External::Namespace {
                    kind: Kind::Network,
                    inode: 4_026_531_840,
                    key: "extRootNetNS".to_owned(),
                }),
            ),
            (
                "tty[8803:1a]",
                Some(External::Terminal {
                    device: 0x8803,
                    on: 0x1a,
                }),
            ),
            (
                "file[2b:1f]",
                Some(External::File {
                    mount: 0x2b,
                    inode: 0x1f,
                }),
            ),
            ("unix[77]", Some(External::UnixSocket { inode: 77 })),
            (
                "veth[eth0]:host0@br0",
                Some(External::NetworkDevice {
                    name: "eth0".to_owned(),
                    peer: "host0@br0".to_owned(),
                }),
            ),
            ("nonsense[1]", None),
            ("mnt", None),
            ("tty[1]", None),
        ] {
            assert_eq!(External::parse(text), expected, "{text}");
        }
    }
}
