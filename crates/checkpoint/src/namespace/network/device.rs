//! Network devices.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use sys::rtnetlink::{self as netlink, Socket, attributes, push_attribute};

use super::settings::{self, Part};
use crate::error::{Context, Error, Result};
use crate::external::External;
use crate::image::network::{MacvlanLinkEntry, NdType, NetDeviceEntry};

const IFINFO: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_MACVLAN_FLAGS: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const UP: u32 = 1;
/// Flags that a user sets: up, no arp, promiscuous, all multicast, multicast, dynamic.
const SETTABLE: u32 = 0x1 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x8000;
/// Devices that every namespace has, where their module is loaded.
const FALLBACK: &[&str] = &[
    "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0",
];

/// What lies on the other side.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// The caller's network namespace, with a socket in it.
    pub(crate) caller: Option<(OwnedFd, Socket)>,
    /// The namespace that is filled.
    pub(crate) own: Option<OwnedFd>,
    /// What the caller says of devices.
    pub(crate) external: Vec<External>,
}

fn word(value: &[u8]) -> Option<u32> {
    value
        .get(..4)
        .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .trim_end_matches('\0')
        .to_owned()
}

pub(super) fn dump(socket: &Socket) -> Result<Vec<NetDeviceEntry>> {
    let messages = socket
        .list(netlink::RTM_GETLINK, &[0; IFINFO])
        .during("list", "network devices")?;
    let mut devices: Vec<NetDeviceEntry> = messages.iter().filter_map(|m| parse(m)).collect();
    for device in &mut devices {
        (device.conf4, device.conf6) = settings::dump_device(&device.name);
    }
    Ok(devices)
}

fn parse(message: &[u8]) -> Option<NetDeviceEntry> {
    let body = message.get(netlink::HEADER..)?;
    let hardware = u16::from_ne_bytes([*body.get(2)?, *body.get(3)?]);
    let mut device = NetDeviceEntry {
        ifindex: word(body.get(4..)?)?,
        flags: word(body.get(8..)?)?,
        ..NetDeviceEntry::default()
    };
    let (mut link, mut link_namespace) = (None, None);
    for (kind, value) in attributes(body.get(IFINFO..)?) {
        match kind {
            IFLA_IFNAME => device.name = text(value),
            IFLA_MTU => device.mtu = word(value)?,
            IFLA_ADDRESS => device.address = Some(value.to_vec()),
            IFLA_MASTER => device.master = word(value),
            IFLA_LINK => link = word(value),
            IFLA_LINK_NETNSID => link_namespace = word(value),
            IFLA_LINKINFO => parse_info(value, &mut device),
            _ => {}
        }
    }
    let kind = match device.kind.as_deref() {
        _ if hardware == ARPHRD_LOOPBACK => NdType::Loopback,
        Some("veth") => NdType::Veth,
        Some("bridge") => NdType::Bridge,
        Some("macvlan") => NdType::Macvlan,
        Some("tun") => NdType::Tun,
        _ => NdType::Extlink,
    };
    device.r#type = kind as i32;
    if kind == NdType::Veth {
        device.peer_ifindex = link;
        device.peer_nsid = link_namespace;
    }
    Some(device)
}

fn parse_info(value: &[u8], device: &mut NetDeviceEntry) {
    let mut data = &[][..];
    for (kind, value) in attributes(value) {
        match kind {
            IFLA_INFO_KIND => device.kind = Some(text(value)),
            IFLA_INFO_DATA => data = value,
            _ => {}
        }
    }
    if device.kind.as_deref() == Some("macvlan") {
        let mut entry = MacvlanLinkEntry::default();
        for (kind, value) in attributes(data) {
            match kind {
                IFLA_MACVLAN_MODE => entry.mode = word(value).unwrap_or(0),
                IFLA_MACVLAN_FLAGS => {
                    entry.flags = value
                        .get(..2)
                        .map(|b| u16::from_ne_bytes([b[0], b[1]]).into());
                }
                _ => {}
            }
        }
        device.macvlan = Some(entry);
    }
}

/// Numbers of the devices that are there, by name.
fn present(socket: &Socket) -> Result<HashMap<String, u32>> {
    let messages = socket
        .list(netlink::RTM_GETLINK, &[0; IFINFO])
        .during("list", "network devices")?;
    let devices = messages.iter().filter_map(|message| parse(message));
    Ok(devices
        .map(|device| (device.name, device.ifindex))
        .collect())
}

/// Makes the devices; returns the new number of each old one.
pub(crate) fn restore(
    socket: &Socket,
    devices: &[NetDeviceEntry],
    outside: &Outside,
) -> Result<HashMap<u32, u32>> {
    for device in devices {
        let there = present(socket)?;
        if !there.contains_key(&device.name) && !FALLBACK.contains(&device.name.as_str()) {
            create(socket, device, devices, outside).map_err(|error| {
                Error::because("restore device", &device.name, error.to_string())
            })?;
        }
    }
    let there = present(socket)?;
    let number = |device: &NetDeviceEntry| Some((device.ifindex, *there.get(&device.name)?));
    let numbers: HashMap<u32, u32> = devices.iter().filter_map(number).collect();
    for device in devices {
        let Some(index) = numbers.get(&device.ifindex) else {
            continue;
        };
        settings::restore_device(device, Part::First)?;
        set_up(socket, device, *index, &numbers)
            .map_err(|errno| Error::kernel("set up device", &device.name, errno))?;
    }
    Ok(numbers)
}

fn header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for value in [index, flags, change] {
        body.extend(value.to_ne_bytes());
    }
    body
}

fn set_up(
    socket: &Socket,
    device: &NetDeviceEntry,
    index: u32,
    numbers: &HashMap<u32, u32>,
) -> sys::Result<()> {
    if let Some(master) = device.master.and_then(|master| numbers.get(&master)) {
        let mut body = header(index, 0, 0);
        push_attribute(&mut body, IFLA_MASTER, &master.to_ne_bytes());
        socket.request(netlink::RTM_SETLINK, 0, &body)?;
    }
    let mut body = header(index, device.flags & SETTABLE, SETTABLE);
    if device.mtu != 0 {
        push_attribute(&mut body, IFLA_MTU, &device.mtu.to_ne_bytes());
    }
    let loopback = device.r#type == NdType::Loopback as i32;
    if let Some(address) = device.address.as_ref().filter(|_| !loopback) {
        push_attribute(&mut body, IFLA_ADDRESS, address);
    }
    socket.request(netlink::RTM_SETLINK, 0, &body)?;
    if device.flags & UP == 0 {
        return socket.request(netlink::RTM_SETLINK, 0, &header(index, 0, UP));
    }
    Ok(())
}

fn name_attribute(body: &mut Vec<u8>, name: &str) {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    push_attribute(body, IFLA_IFNAME, &bytes);
}

fn info(kind: &str, data: &[u8]) -> Vec<u8> {
    let mut info = Vec::new();
    push_attribute(&mut info, IFLA_INFO_KIND, kind.as_bytes());
    if !data.is_empty() {
        push_attribute(&mut info, IFLA_INFO_DATA, data);
    }
    info
}

fn base(device: &NetDeviceEntry) -> Vec<u8> {
    let mut body = header(device.ifindex, 0, 0);
    name_attribute(&mut body, &device.name);
    if let Some(address) = &device.address {
        push_attribute(&mut body, IFLA_ADDRESS, address);
    }
    body
}

fn create(
    socket: &Socket,
    device: &NetDeviceEntry,
    devices: &[NetDeviceEntry],
    outside: &Outside,
) -> Result<()> {
    let kind = device.kind.as_deref().unwrap_or_default();
    match NdType::try_from(device.r#type) {
        Ok(NdType::Veth) => create_veth(socket, device, devices, outside),
        Ok(NdType::Macvlan) => create_macvlan(device, outside),
        Ok(NdType::Bridge) => make(socket, base(device), "bridge", &[]),
        Ok(NdType::Extlink) if ["dummy", "ifb", "nlmon"].contains(&kind) => {
            make(socket, base(device), kind, &[])
        }
        _ => {
            let cause = "it is outside, and the caller has not made it";
            Err(Error::because("create device", &device.name, cause))
        }
    }
}

fn make(socket: &Socket, mut body: Vec<u8>, kind: &str, data: &[u8]) -> Result<()> {
    push_attribute(&mut body, IFLA_LINKINFO, &info(kind, data));
    socket
        .request(netlink::RTM_NEWLINK, netlink::CREATE, &body)
        .during("create device of kind", kind)
}

/// What the caller says about the device with this name.
fn told<'a>(outside: &'a Outside, device: &str) -> Option<&'a str> {
    outside.external.iter().find_map(|external| match external {
        External::NetworkDevice { name, peer } if name == device => Some(peer.as_str()),
        _ => None,
    })
}

fn create_veth(
    socket: &Socket,
    device: &NetDeviceEntry,
    devices: &[NetDeviceEntry],
    outside: &Outside,
) -> Result<()> {
    let inside = devices
        .iter()
        .find(|other| device.peer_nsid.is_none() && Some(other.ifindex) == device.peer_ifindex);
    let mut peer = header(inside.map_or(0, |peer| peer.ifindex), 0, 0);
    let mut bridge = None;
    if let Some(inside) = inside {
        name_attribute(&mut peer, &inside.name);
    } else {
        let (Some(told), Some((caller, _))) = (told(outside, &device.name), &outside.caller) else {
            let cause = format!(
                "its other end is outside; name it (--external veth[{}]:NAME)",
                device.name
            );
            return Err(Error::because("create device", &device.name, cause));
        };
        let (name, on) = told
            .split_once('@')
            .map_or((told, None), |(name, on)| (name, Some(on)));
        name_attribute(&mut peer, name);
        push_attribute(
            &mut peer,
            IFLA_NET_NS_FD,
            &(caller.as_raw_fd() as u32).to_ne_bytes(),
        );
        bridge = on.map(|on| (name, on));
    }
    let mut data = Vec::new();
    push_attribute(&mut data, VETH_INFO_PEER, &peer);
    make(socket, base(device), "veth", &data)?;
    if let (Some((name, bridge)), Some((_, socket))) = (bridge, &outside.caller) {
        join_bridge(socket, name, bridge)?;
    }
    Ok(())
}

/// On the caller's side.
fn join_bridge(socket: &Socket, name: &str, bridge: &str) -> Result<()> {
    let there = present(socket)?;
    let number = |name: &str| {
        let missing = || Error::because("find device", name, "the caller has none of this name");
        there.get(name).copied().ok_or_else(missing)
    };
    let mut body = header(number(name)?, UP, UP);
    push_attribute(&mut body, IFLA_MASTER, &number(bridge)?.to_ne_bytes());
    socket
        .request(netlink::RTM_SETLINK, 0, &body)
        .during("add to the bridge", name)
}

/// It is made where its lower device is, and sent here.
fn create_macvlan(device: &NetDeviceEntry, outside: &Outside) -> Result<()> {
    let (Some(lower), Some((_, socket)), Some(own)) =
        (told(outside, &device.name), &outside.caller, &outside.own)
    else {
        let cause = format!(
            "its lower device is outside; name it (--external macvlan[{}]:NAME)",
            device.name
        );
        return Err(Error::because("create device", &device.name, cause));
    };
    let there = present(socket)?;
    let lower = *there
        .get(lower)
        .ok_or_else(|| Error::because("find device", lower, "the caller has none of this name"))?;
    let mut data = Vec::new();
    if let Some(entry) = &device.macvlan {
        push_attribute(&mut data, IFLA_MACVLAN_MODE, &entry.mode.to_ne_bytes());
        let flags = entry.flags.unwrap_or(0) as u16;
        push_attribute(&mut data, IFLA_MACVLAN_FLAGS, &flags.to_ne_bytes());
    }
    let mut body = base(device);
    push_attribute(&mut body, IFLA_LINK, &lower.to_ne_bytes());
    push_attribute(
        &mut body,
        IFLA_NET_NS_FD,
        &(own.as_raw_fd() as u32).to_ne_bytes(),
    );
    make(socket, body, "macvlan", &data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_as_the_kernel_describes_it() {
        let mut message = vec![0; netlink::HEADER];
        message.extend([0, 0, 1, 0, 5, 0, 0, 0, 0x43, 0x10, 0, 0, 0, 0, 0, 0]);
        name_attribute(&mut message, "eth0");
        push_attribute(&mut message, IFLA_MTU, &1400_u32.to_ne_bytes());
        push_attribute(&mut message, IFLA_LINK, &7_u32.to_ne_bytes());
        push_attribute(&mut message, IFLA_LINKINFO, &info("veth", &[]));
        let device = parse(&message).unwrap();
        assert_eq!(
            (device.name.as_str(), device.ifindex, device.mtu),
            ("eth0", 5, 1400)
        );
        assert_eq!(
            (device.r#type, device.peer_ifindex),
            (NdType::Veth as i32, Some(7))
        );
        assert_eq!(device.flags, 0x1043);
        for cut in 0..message.len() {
            let _ = parse(&message[..cut]);
        }
    }
}
