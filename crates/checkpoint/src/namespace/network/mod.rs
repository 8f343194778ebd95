//! What is in a network namespace: devices, addresses, routes, rules and settings. Everything here
//! works on the namespace that the caller is in.
//!
//! Addresses, routes and rules are kept as the kernel sends them, in the form of `ip … save`: a
//! magic number and netlink messages. At a restore they are sent back, with the numbers of devices
//! that came back under another one replaced.

mod device;
mod replay;
mod settings;

use std::io::{Read, Write};

use sys::rtnetlink::{self as netlink, Socket};

use settings::Part;

use crate::error::{Context, Error, Result};
use crate::image::network::{NetDeviceEntry, NetnsEntry};
use crate::image::{Directory, Kind};

pub(crate) use device::{Outside, restore as restore_devices};

const ADDRESS_MAGIC: u32 = 0x4736_1222;
const ROUTE_MAGIC: u32 = 0x4531_1224;
const RULE_MAGIC: u32 = 0x7170_6986;

fn open() -> Result<Socket> {
    Socket::open().during("open", "a routing socket")
}

/// Writes down the namespace.
pub(crate) fn dump(images: &Directory, id: u32) -> Result<()> {
    let socket = open()?;
    images.write(
        &format!("netns-{id}.img"),
        Kind::Netns,
        &[settings::dump()?],
    )?;
    let devices = device::dump(&socket)?;
    images.write(&format!("netdev-{id}.img"), Kind::Netdev, &devices)?;
    let list = |kind, family: i32, length: usize| {
        let mut body = vec![0; length];
        body[0] = family as u8;
        socket
            .list(kind, &body)
            .during("list", "addresses, routes and rules")
    };
    let addresses = list(netlink::RTM_GETADDR, libc::AF_UNSPEC, 8)?;
    save(
        images,
        &format!("ifaddr-{id}.img"),
        ADDRESS_MAGIC,
        &addresses,
    )?;
    for (name, family) in [("route", libc::AF_INET), ("route6", libc::AF_INET6)] {
        let mut routes = list(netlink::RTM_GETROUTE, family, 12)?;
        routes.retain(|route| replay::is_kept_route(route));
        save(images, &format!("{name}-{id}.img"), ROUTE_MAGIC, &routes)?;
    }
    let mut rules = list(netlink::RTM_GETRULE, libc::AF_INET, 12)?;
    rules.extend(list(netlink::RTM_GETRULE, libc::AF_INET6, 12)?);
    save(images, &format!("rule-{id}.img"), RULE_MAGIC, &rules)
}

fn save(images: &Directory, name: &str, magic: u32, messages: &[Vec<u8>]) -> Result<()> {
    let mut file = images.create_raw(name)?;
    let mut bytes = magic.to_le_bytes().to_vec();
    for message in messages {
        bytes.extend_from_slice(message);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    file.write_all(&bytes).during("write image", name)
}

fn load(images: &Directory, name: &str, magic: u32) -> Result<Vec<Vec<u8>>> {
    let Some(mut file) = images.open_raw(name)? else {
        return Ok(Vec::new());
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).during("read image", name)?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let damaged = |cause| Error::because("read image", name, cause);
    if bytes.get(..4) != Some(&magic.to_le_bytes()) {
        return Err(damaged("it is not an image of this kind"));
    }
    let mut rest = &bytes[4..];
    let mut messages = Vec::new();
    while let Some((_, whole, after)) = netlink::split(rest) {
        messages.push(whole.to_vec());
        rest = after;
    }
    if rest.is_empty() {
        Ok(messages)
    } else {
        Err(damaged("it is truncated"))
    }
}

/// The devices of an image.
pub(crate) fn devices(images: &Directory, id: u32) -> Result<Vec<NetDeviceEntry>> {
    images.read(&format!("netdev-{id}.img"), Kind::Netdev)
}

/// Fills the namespace. `outside`: the caller's network namespace and what it says of devices.
pub(crate) fn restore(images: &Directory, id: u32, outside: &Outside) -> Result<()> {
    let socket = open()?;
    let entries: Vec<NetnsEntry> = images.read(&format!("netns-{id}.img"), Kind::Netns)?;
    for entry in &entries {
        settings::restore(entry, Part::First)?;
    }
    let devices = devices(images, id)?;
    let numbers = restore_devices(&socket, &devices, outside)?;
    let addresses = load(images, &format!("ifaddr-{id}.img"), ADDRESS_MAGIC)?;
    replay::addresses(&socket, &addresses, &numbers)?;
    for name in ["route", "route6"] {
        let routes = load(images, &format!("{name}-{id}.img"), ROUTE_MAGIC)?;
        replay::routes(&socket, routes, &numbers)?;
    }
    let rules = load(images, &format!("rule-{id}.img"), RULE_MAGIC)?;
    replay::rules(&socket, &rules)?;
    for entry in &entries {
        settings::restore(entry, Part::Last)?;
    }
    for device in &devices {
        settings::restore_device(device, Part::Last)?;
    }
    Ok(())
}
