//! The kernel's table of mounts as entries of the images.

use std::os::unix::ffi::OsStrExt;

use crate::image::namespace::{Fstype, MntEntry};

/// Options of a mount, with their bits of mount(2).
const MOUNT_OPTIONS: &[(&str, u64)] = &[
    ("ro", libc::MS_RDONLY),
    ("nosuid", libc::MS_NOSUID),
    ("nodev", libc::MS_NODEV),
    ("noexec", libc::MS_NOEXEC),
    ("noatime", libc::MS_NOATIME),
    ("nodiratime", libc::MS_NODIRATIME),
    ("relatime", libc::MS_RELATIME),
    ("nosymfollow", 256),
];

/// Options of a file system, with their bits of mount(2).
const SUPER_OPTIONS: &[(&str, u64)] = &[
    ("ro", libc::MS_RDONLY),
    ("sync", libc::MS_SYNCHRONOUS),
    ("dirsync", libc::MS_DIRSYNC),
    ("mand", libc::MS_MANDLOCK),
    ("lazytime", libc::MS_LAZYTIME),
];

/// The entries of a table's text (`/proc/PID/mountinfo`).
pub(crate) fn parse(text: &[u8]) -> Vec<MntEntry> {
    sys::mountinfo::parse(text)
        .map(|mount| entry(&mount))
        .collect()
}

fn entry(mount: &sys::mountinfo::Mount<'_>) -> MntEntry {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fs_type = text(mount.fs_type);
    let (flags, _) = split(&text(mount.options), MOUNT_OPTIONS);
    let (sb_flags, mut options) = split(&text(mount.super_options), SUPER_OPTIONS);
    let code = super::code_of(&fs_type);
    if code == Fstype::Devpts {
        options.push("newinstance".to_owned());
    }
    let propagation = text(mount.propagation);
    let group = |key: &str| {
        let found = propagation
            .split(' ')
            .find_map(|word| word.strip_prefix(key));
        found.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let unbindable = propagation.split(' ').any(|word| word == "unbindable");
    let root = text(mount.root.as_bytes());
    let deleted = root.strip_suffix("//deleted").map(str::to_owned);
    MntEntry {
        fstype: code as u32,
        mnt_id: mount.id,
        root_dev: mount.device.0 << 20 | mount.device.1,
        parent_mnt_id: mount.parent,
        flags: flags
            | if unbindable {
                libc::MS_UNBINDABLE as u32
            } else {
                0
            },
        deleted: deleted.is_some().then_some(true),
        root: deleted.unwrap_or(root),
        mountpoint: text(mount.mount_point.as_bytes()),
        source: text(mount.source.as_bytes()),
        options: options.join(","),
        shared_id: Some(group("shared:")),
        master_id: Some(group("master:")),
        fsname: (code == Fstype::Unsupported).then_some(fs_type),
        sb_flags: Some(sb_flags),
        ..MntEntry::default()
    }
}

/// The bits of the known options, and the others.
fn split(options: &str, known: &[(&str, u64)]) -> (u32, Vec<String>) {
    let mut bits = 0;
    let mut others = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match known.iter().find(|(name, _)| *name == option) {
            Some((_, bit)) => bits |= *bit as u32,
            None if option == "rw" => {}
            None => others.push(option.to_owned()),
        }
    }
    (bits, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_an_entry() {
        let text = b"97 94 0:46 /sub /run rw,nosuid,relatime shared:7 master:3 - tmpfs zdtm_run ro,size=64k,mode=755\n\
                     69 95 0:47 / /dev/pts rw - devpts pts rw,mode=666\n\
                     70 95 8:1 /x//deleted /gone rw - ext4 /dev/sda rw\n";
        let entries = parse(text);
        let first = &entries[0];
        assert_eq!(
            (first.fstype, first.root_dev, first.flags),
            (5, 46, 0x20_0002)
        );
        assert_eq!((first.shared_id, first.master_id), (Some(7), Some(3)));
        assert_eq!(first.options, "size=64k,mode=755");
        assert_eq!((first.sb_flags, first.root.as_str()), (Some(1), "/sub"));
        assert_eq!(entries[1].options, "mode=666,newinstance");
        let third = &entries[2];
        assert_eq!((third.root.as_str(), third.deleted), ("/x", Some(true)));
        assert_eq!((third.fstype, third.root_dev), (0, 8 << 20 | 1));
    }
}
