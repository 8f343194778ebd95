//! Sends saved addresses, routes and rules back to the kernel.

use std::collections::HashMap;

use sys::rtnetlink::{self as netlink, Socket, attributes, push_attribute};

use crate::error::{Context, Result};

const ADDRESS: usize = 8;
const ROUTE: usize = 12;
const IFA_FLAGS: u16 = 8;
/// Tentative, deprecated, failed, permanent: the kernel's own findings.
const IFA_FOUND: u32 = 0x40 | 0x20 | 0x08 | 0x80;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RT_TABLE_LOCAL: u8 = 255;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_ONLINK: u32 = 4;

type Numbers = HashMap<u32, u32>;

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

fn set_word(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

fn renumber(number: u32, numbers: &Numbers) -> u32 {
    numbers.get(&number).copied().unwrap_or(number)
}

/// Routes that the kernel makes by itself, or that are a memory of others, are left out.
pub(super) fn is_kept_route(message: &[u8]) -> bool {
    let body = message.get(netlink::HEADER..).unwrap_or_default();
    body.get(4) != Some(&RT_TABLE_LOCAL) && word(body, 8) & RTM_F_CLONED == 0
}

pub(super) fn addresses(socket: &Socket, messages: &[Vec<u8>], numbers: &Numbers) -> Result<()> {
    for message in messages {
        let body = address(message, numbers);
        socket
            .request(netlink::RTM_NEWADDR, netlink::REPLACE_OR_CREATE, &body)
            .or_else(already_there)
            .during("set", "an address")?;
    }
    Ok(())
}

fn already_there(errno: sys::Errno) -> sys::Result<()> {
    if errno == sys::Errno::EXIST {
        Ok(())
    } else {
        Err(errno)
    }
}

fn address(message: &[u8], numbers: &Numbers) -> Vec<u8> {
    let bytes = message.get(netlink::HEADER..).unwrap_or_default();
    let mut body = bytes.get(..ADDRESS).unwrap_or_default().to_vec();
    if let Some(flags) = body.get_mut(2) {
        *flags &= !(IFA_FOUND as u8);
    }
    let index = word(&body, 4);
    set_word(&mut body, 4, renumber(index, numbers));
    for (kind, value) in attributes(bytes.get(ADDRESS..).unwrap_or_default()) {
        let mut value = value.to_vec();
        if kind == IFA_FLAGS {
            let flags = word(&value, 0) & !IFA_FOUND;
            set_word(&mut value, 0, flags);
        }
        push_attribute(&mut body, kind, &value);
    }
    body
}

/// The nearest first: a gateway must be reachable when its route is made.
pub(super) fn routes(socket: &Socket, mut messages: Vec<Vec<u8>>, numbers: &Numbers) -> Result<()> {
    messages.sort_by_key(|message| {
        let body = message.get(netlink::HEADER..).unwrap_or_default();
        let scope = body.get(6).copied().unwrap_or(0);
        let far = attributes(body.get(ROUTE..).unwrap_or_default())
            .any(|(kind, _)| [RTA_GATEWAY, RTA_MULTIPATH].contains(&kind));
        (far, std::cmp::Reverse(scope))
    });
    for message in messages {
        let body = route(&message, numbers);
        socket
            .request(netlink::RTM_NEWROUTE, netlink::CREATE, &body)
            .or_else(already_there)
            .during("set", "a route")?;
    }
    Ok(())
}

fn route(message: &[u8], numbers: &Numbers) -> Vec<u8> {
    let bytes = message.get(netlink::HEADER..).unwrap_or_default();
    let mut body = bytes.get(..ROUTE).unwrap_or_default().to_vec();
    let flags = word(&body, 8) & RTNH_F_ONLINK;
    set_word(&mut body, 8, flags);
    for (kind, value) in attributes(bytes.get(ROUTE..).unwrap_or_default()) {
        let mut value = value.to_vec();
        match kind {
            RTA_CACHEINFO => continue,
            RTA_IIF | RTA_OIF => {
                let index = word(&value, 0);
                set_word(&mut value, 0, renumber(index, numbers));
            }
            RTA_MULTIPATH => renumber_hops(&mut value, numbers),
            _ => {}
        }
        push_attribute(&mut body, kind, &value);
    }
    body
}

/// Each hop: length, flags, weight, device, attributes.
fn renumber_hops(value: &mut [u8], numbers: &Numbers) {
    let mut at = 0;
    while at + 8 <= value.len() {
        let length = usize::from(u16::from_ne_bytes([value[at], value[at + 1]]));
        // What the kernel found out about the link.
        value[at + 2] &= RTNH_F_ONLINK as u8;
        let index = word(value, at + 4);
        set_word(value, at + 4, renumber(index, numbers));
        at += length.max(8).next_multiple_of(4);
    }
}

/// Makes the rules of the namespace those of the image.
pub(super) fn rules(socket: &Socket, messages: &[Vec<u8>]) -> Result<()> {
    let body = |message: &Vec<u8>| message.get(netlink::HEADER..).unwrap_or_default().to_vec();
    let wanted: Vec<Vec<u8>> = messages.iter().map(body).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut there = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = vec![0; ROUTE];
        request[0] = family as u8;
        let rules = socket
            .list(netlink::RTM_GETRULE, &request)
            .during("list", "rules")?;
        there.extend(rules.iter().map(body));
    }
    for rule in there.iter().filter(|rule| !wanted.contains(rule)) {
        socket
            .request(netlink::RTM_DELRULE, 0, rule)
            .during("remove", "a rule")?;
    }
    for rule in wanted.iter().filter(|rule| !there.contains(rule)) {
        socket
            .request(netlink::RTM_NEWRULE, netlink::CREATE, rule)
            .or_else(already_there)
            .during("set", "a rule")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8], list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; netlink::HEADER];
        message.extend_from_slice(body);
        for (kind, value) in list {
            push_attribute(&mut message, *kind, value);
        }
        message
    }

    #[test]
    fn devices_that_changed_their_number_are_followed() {
        let numbers = Numbers::from([(7, 9)]);
        let sent = message(
            &[2, 24, 0x80, 0, 7, 0, 0, 0],
            &[(IFA_FLAGS, &[0x80, 0, 0, 0])],
        );
        let body = address(&sent, &numbers);
        assert_eq!(body[..8], [2, 24, 0, 0, 9, 0, 0, 0]);
        assert_eq!(word(&body, 12), 0);
        let mut header = [0; 12];
        header[8] = 0x11;
        let sent = message(
            &header,
            &[(RTA_OIF, &[7, 0, 0, 0]), (RTA_CACHEINFO, &[0; 8])],
        );
        let body = route(&sent, &numbers);
        let found: Vec<_> = attributes(&body[12..]).collect();
        assert_eq!(found, [(RTA_OIF, &[9, 0, 0, 0][..])]);
        assert_eq!(body[8], 0);
        let mut hops = vec![8, 0, 0x11, 0, 7, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0];
        renumber_hops(&mut hops, &numbers);
        assert_eq!(hops, [8, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn the_kernels_own_routes_are_not_kept() {
        let route = |table: u8, flags: u32| {
            let mut body = [0; 12];
            body[4] = table;
            body[8..].copy_from_slice(&flags.to_ne_bytes());
            is_kept_route(&message(&body, &[]))
        };
        assert!(route(254, 0) && route(100, 0));
        assert!(!route(RT_TABLE_LOCAL, 0) && !route(254, RTM_F_CLONED));
    }
}
