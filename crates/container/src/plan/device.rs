//! Device nodes: those that every container has, and those of `linux.devices`.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, makedev};

use crate::error::{Error, Result};
use crate::spec;

/// The nodes and links to make in `/dev`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Empty where `/dev` is the host's: nothing is made in it then.
    pub(crate) nodes: Vec<Node>,
    /// Whether the standard links, `/dev/ptmx` and `/dev/console` are made.
    pub(crate) standard: bool,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    pub(crate) kind: FileType,
    pub(crate) number: u64,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Not listed by the configuration: every container has it.
    pub(crate) default: bool,
}

/// Devices that config-linux.md demands of every runtime ("Default Devices").
const DEFAULT: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links that it demands ("Default Filesystems", `/dev` symbolic links).
pub(crate) const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

impl Devices {
    pub(crate) fn plan(linux: &spec::Linux, mounts: &[spec::Mount]) -> Result<Devices> {
        if mounts.iter().any(is_host_dev) {
            return Ok(Devices::default());
        }
        let mut nodes = linux
            .devices
            .iter()
            .enumerate()
            .map(|(index, device)| {
                Node::plan(device)
                    .map_err(|cause| Error::new(format!("linux.devices[{index}]"), cause))
            })
            .collect::<Result<Vec<Node>>>()?;
        for (path, major, minor) in DEFAULT {
            let path = Path::new(path);
            if !nodes.iter().any(|node| node.path == path) {
                nodes.push(Node::default_character(path, *major, *minor));
            }
        }
        Ok(Devices {
            nodes,
            standard: true,
        })
    }
}

/// A bind mount on `/dev` brings its own nodes, which are not ours to change.
fn is_host_dev(mount: &spec::Mount) -> bool {
    let bind = mount.kind.as_deref() == Some("bind")
        || mount
            .options
            .iter()
            .any(|option| option == "bind" || option == "rbind");
    bind && mount
        .destination
        .components()
        .eq(Path::new("/dev").components())
}

impl Node {
    fn default_character(path: &Path, major: u32, minor: u32) -> Node {
        Node {
            path: path.to_owned(),
            kind: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
            default: true,
        }
    }

    fn plan(device: &spec::Device) -> Result<Node> {
        if !device.path.is_absolute() {
            let path = device.path.display();
            return Err(Error::plain(format!("path: `{path}` is not absolute")));
        }
        let kind = match device.kind {
            spec::DeviceKind::Block => FileType::BlockDevice,
            spec::DeviceKind::Char | spec::DeviceKind::Unbuffered => FileType::CharacterDevice,
            spec::DeviceKind::Fifo => FileType::Fifo,
        };
        let number = |name: &str, value: i64, most: u32| {
            u32::try_from(value)
                .ok()
                .filter(|value| *value <= most)
                .ok_or_else(|| Error::plain(format!("{name}: {value} is not a device number")))
        };
        let number = match kind {
            FileType::Fifo => 0, // engines give numbers here too; a fifo has none
            _ => makedev(
                number("major", device.major, 0xfff)?,
                number("minor", device.minor, 0xf_ffff)?,
            ),
        };
        Ok(Node {
            path: device.path.clone(),
            kind,
            number,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
            default: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str, major: i64) -> spec::Device {
        spec::Device {
            path: path.into(),
            kind: spec::DeviceKind::Char,
            major,
            minor: 1,
            file_mode: None,
            uid: None,
            gid: None,
        }
    }

    #[test]
    fn a_listed_device_replaces_the_default_one() {
        let linux = spec::Linux {
            devices: vec![device("/dev/null", 7)],
            ..spec::Linux::default()
        };
        let plan = Devices::plan(&linux, &[]).unwrap();
        let nulls: Vec<_> = plan
            .nodes
            .iter()
            .filter(|node| node.path == Path::new("/dev/null"))
            .collect();
        assert_eq!((nulls.len(), nulls[0].number), (1, makedev(7, 1)));
        assert_eq!(plan.nodes.len(), DEFAULT.len());
    }

    #[test]
    fn the_hosts_dev_is_left_alone() {
        let mount = spec::Mount {
            destination: "/dev/".into(),
            options: vec!["rbind".into()],
            ..spec::Mount::default()
        };
        assert_eq!(
            Devices::plan(&spec::Linux::default(), &[mount]).unwrap(),
            Devices::default()
        );
    }

    #[test]
    fn numbers_out_of_range_name_the_field() {
        let linux = spec::Linux {
            devices: vec![device("/dev/x", -1)],
            ..spec::Linux::default()
        };
        let error = Devices::plan(&linux, &[]).unwrap_err().to_string();
        assert_eq!(error, "linux.devices[0]: major: -1 is not a device number");
    }
}
