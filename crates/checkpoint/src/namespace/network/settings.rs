//! `net.*` settings of a namespace and of its devices, in the order in which the images keep them.

use crate::error::{Context, Result};
use crate::image::network::{NetDeviceEntry, NetnsEntry, SysctlEntry, SysctlType};
use crate::procfs;

const IPV4: &[&str] = &[
    "accept_local",
    "accept_redirects",
    "accept_source_route",
    "arp_accept",
    "arp_announce",
    "arp_filter",
    "arp_ignore",
    "arp_notify",
    "bootp_relay",
    "disable_policy",
    "disable_xfrm",
    "force_igmp_version",
    "forwarding",
    "igmpv2_unsolicited_report_interval",
    "igmpv3_unsolicited_report_interval",
    "log_martians",
    "medium_id",
    "promote_secondaries",
    "proxy_arp",
    "proxy_arp_pvlan",
    "route_localnet",
    "rp_filter",
    "secure_redirects",
    "send_redirects",
    "shared_media",
    "src_valid_mark",
    "tag",
    "ignore_routes_with_linkdown",
    "drop_gratuitous_arp",
    "drop_unicast_in_l2_multicast",
];

const IPV6: &[&str] = &[
    "accept_dad",
    "accept_ra",
    "accept_ra_defrtr",
    "accept_ra_from_local",
    "accept_ra_min_hop_limit",
    "accept_ra_mtu",
    "accept_ra_pinfo",
    "accept_ra_rt_info_max_plen",
    "accept_ra_rtr_pref",
    "accept_redirects",
    "accept_source_route",
    "autoconf",
    "dad_transmits",
    "disable_ipv6",
    "drop_unicast_in_l2_multicast",
    "drop_unsolicited_na",
    "force_mld_version",
    "force_tllao",
    "forwarding",
    "hop_limit",
    "ignore_routes_with_linkdown",
    "keep_addr_on_down",
    "max_addresses",
    "max_desync_factor",
    "mldv1_unsolicited_report_interval",
    "mldv2_unsolicited_report_interval",
    "mtu",
    "ndisc_notify",
    "optimistic_dad",
    "proxy_ndp",
    "regen_max_retry",
    "router_probe_interval",
    "router_solicitation_delay",
    "router_solicitation_interval",
    "router_solicitations",
    STABLE_SECRET,
    "suppress_frag_ndisc",
    "temp_prefered_lft",
    "temp_valid_lft",
    "use_oif_addrs_only",
    "use_optimistic",
    "use_tempaddr",
];

const STABLE_SECRET: &str = "stable_secret";
const UNIX: &[&str] = &["max_dgram_qlen"];
const PING_GROUPS: &str = "ping_group_range";

fn path(directory: &str, name: &str) -> String {
    format!("{}/sys/net/{directory}/{name}", procfs::root())
}

/// Settings that a kernel does not have, or does not tell, have no value.
fn read(directory: &str, names: &[&str]) -> Vec<SysctlEntry> {
    let one = |name: &&str| {
        let text = std::fs::read_to_string(path(directory, name)).ok();
        let text = text.map(|text| text.trim().to_owned());
        let is_text = [STABLE_SECRET, PING_GROUPS].contains(name);
        let kind = if is_text {
            SysctlType::Str
        } else {
            SysctlType::Number
        };
        SysctlEntry {
            r#type: kind as i32,
            iarg: text
                .as_ref()
                .filter(|_| !is_text)
                .and_then(|text| text.parse().ok()),
            sarg: text.filter(|_| is_text),
        }
    };
    names.iter().map(one).collect()
}

/// Writes what differs: some settings change others.
fn write(directory: &str, names: &[&str], entries: &[SysctlEntry]) -> Result<()> {
    for (name, entry) in names.iter().zip(entries) {
        let number = entry.iarg.map(|number| number.to_string());
        let Some(value) = entry.sarg.clone().or(number) else {
            continue;
        };
        let path = path(directory, name);
        let Ok(now) = std::fs::read_to_string(&path) else {
            // Also a secret that is not set cannot be read.
            if *name == STABLE_SECRET {
                std::fs::write(&path, &value).during("write", &path)?;
            }
            continue;
        };
        if now.trim() != value {
            std::fs::write(&path, &value).during("write", &path)?;
        }
    }
    Ok(())
}

pub(super) fn dump() -> Result<NetnsEntry> {
    Ok(NetnsEntry {
        def_conf4: read("ipv4/conf/default", IPV4),
        all_conf4: read("ipv4/conf/all", IPV4),
        def_conf6: read("ipv6/conf/default", IPV6),
        all_conf6: read("ipv6/conf/all", IPV6),
        unix_conf: read("unix", UNIX),
        ipv4_sysctl: read("ipv4", &[PING_GROUPS]),
        ..NetnsEntry::default()
    })
}

/// Which settings are written when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but whether addresses are looked for elsewhere first, which is off meanwhile: an address
    /// that comes back is ours, and can be used at once.
    First,
    /// That one.
    Last,
}

fn write6(directory: &str, entries: &[SysctlEntry], part: Part) -> Result<()> {
    let first = entries.len().min(1);
    match part {
        Part::First => write(directory, &IPV6[1..], &entries[first..]),
        Part::Last => write(directory, &IPV6[..1], &entries[..first]),
    }
}

pub(super) fn restore(entry: &NetnsEntry, part: Part) -> Result<()> {
    if part == Part::First {
        for directory in ["ipv6/conf/all", "ipv6/conf/default"] {
            let off = number(0);
            write(directory, &IPV6[..1], &[off])?;
        }
        // `all` first: it sets the others.
        write("ipv4/conf/all", IPV4, &entry.all_conf4)?;
        write("ipv4/conf/default", IPV4, &entry.def_conf4)?;
        write("unix", UNIX, &entry.unix_conf)?;
        write("ipv4", &[PING_GROUPS], &entry.ipv4_sysctl)?;
    }
    write6("ipv6/conf/all", &entry.all_conf6, part)?;
    write6("ipv6/conf/default", &entry.def_conf6, part)
}

fn number(value: i32) -> SysctlEntry {
    SysctlEntry {
        r#type: SysctlType::Number as i32,
        iarg: Some(value),
        sarg: None,
    }
}

/// The settings of one device, for IPv4 and IPv6.
pub(super) fn dump_device(name: &str) -> (Vec<SysctlEntry>, Vec<SysctlEntry>) {
    (
        read(&format!("ipv4/conf/{name}"), IPV4),
        read(&format!("ipv6/conf/{name}"), IPV6),
    )
}

pub(super) fn restore_device(device: &NetDeviceEntry, part: Part) -> Result<()> {
    let name = &device.name;
    let directory = format!("ipv6/conf/{name}");
    if part == Part::First {
        write(&directory, &IPV6[..1], &[number(0)])?;
        write(&format!("ipv4/conf/{name}"), IPV4, &device.conf4)?;
    }
    write6(&directory, &device.conf6, part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_as_long_as_those_of_the_images() {
        assert_eq!((IPV4.len(), IPV6.len()), (30, 42));
        assert_eq!(
            (IPV4[27], IPV6[35]),
            ("ignore_routes_with_linkdown", STABLE_SECRET)
        );
    }
}
