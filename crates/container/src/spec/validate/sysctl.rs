//! Which kernel parameters a container may set: those of its own namespaces.

use super::super::{Error, Linux, NamespaceKind};
use super::{Check, namespaces};

pub(super) fn check(check: &Check, linux: &Linux) -> Result<(), Error> {
    for name in linux.sysctl.keys() {
        let field = format!("linux.sysctl.{name}");
        let Some(parts) = parts(name) else {
            return check.refuse(field, "no parameter's name");
        };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let Some(kind) = namespace_of(&parts) else {
            return check.refuse(field, "belongs to no namespace, would change the host");
        };
        if !namespaces::has(linux, kind) {
            let kind = format!("{kind:?}").to_lowercase();
            return check.refuse(field, format!("needs a namespace of its own: {kind}"));
        }
        if parts == ["kernel", "hostname"] {
            return check.refuse(field, "use the field `hostname`");
        }
    }
    Ok(())
}

/// The path below `/proc/sys` of a parameter in either spelling of sysctl(8):
/// `net.ipv4.conf.eth0/1.forwarding` and `net/ipv4/conf/eth0.1/forwarding` are the same.
/// `None` for what could lead elsewhere.
#[must_use]
pub fn sysctl_path(name: &str) -> Option<String> {
    Some(parts(name)?.join("/"))
}

/// File names below `/proc/sys`. The separator that comes first is the separator.
fn parts(name: &str) -> Option<Vec<String>> {
    let separator = name
        .find(['.', '/'])
        .map(|position| name.as_bytes()[position]);
    let parts: Vec<String> = match separator {
        Some(b'/') => name.split('/').map(str::to_owned).collect(),
        _ => name.split('.').map(|part| part.replace('/', ".")).collect(),
    };
    let plain = |part: &String| !part.is_empty() && part != "." && part != "..";
    (parts.len() > 1 && parts.iter().all(plain)).then_some(parts)
}

/// The kind of namespace that holds the parameter.
fn namespace_of(parts: &[&str]) -> Option<NamespaceKind> {
    match parts {
        ["kernel", "msgmax" | "msgmnb" | "msgmni" | "sem"]
        | ["kernel", "shmall" | "shmmax" | "shmmni" | "shm_rmid_forced"]
        | ["fs", "mqueue", ..] => Some(NamespaceKind::Ipc),
        ["kernel", "domainname" | "hostname"] => Some(NamespaceKind::Uts),
        ["net", ..] => Some(NamespaceKind::Network),
        ["user", ..] => Some(NamespaceKind::User),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_lead_to_the_same_file_and_none_leads_out() {
        for (name, path) in [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Some("net/ipv4/ip_forward")),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                Some("net/ipv4/conf/eth0.1/forwarding"),
            ),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                Some("net/ipv4/conf/eth0.1/forwarding"),
            ),
            ("net/../kernel/core_pattern", None),
            ("net.//.kernel.core_pattern", None),
            ("net./.x", None),
            ("/net/x", None),
            ("net..x", None),
            ("net.", None),
            ("net", None),
            ("", None),
        ] {
            assert_eq!(sysctl_path(name).as_deref(), path, "{name}");
        }
    }
}
