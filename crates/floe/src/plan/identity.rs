//! Users: names looked up in a root file system's own files, and the maps of user namespaces.

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};

/// Whom a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Option<String>,
}

/// The texts of `/etc/passwd` and `/etc/group` of a root file system; empty if it has none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

impl Accounts {
    /// Looks up `USER[:GROUP]`; numbers need no entry.
    ///
    /// # Errors
    /// A name that no line has.
    pub(crate) fn user(&self, text: &str, more_groups: &[String]) -> Result<User> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let entry = self
            .passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| {
                fields.len() >= 6 && (fields[0] == user || (is_number(user) && fields[2] == user))
            });
        let (uid, mut gid, home, name) = match &entry {
            Some(fields) => (
                id(fields[2])?,
                id(fields[3])?,
                Some(fields[5].to_owned()),
                Some(fields[0]),
            ),
            None if is_number(user) => (id(user)?, 0, None, None),
            None => bail!("no user `{user}` in the container's /etc/passwd"),
        };
        let mut groups = Vec::new();
        match group {
            Some(group) => gid = self.group(group)?,
            None => groups.extend(name.into_iter().flat_map(|name| self.memberships(name))),
        }
        for group in more_groups {
            groups.push(self.group(group)?);
        }
        groups.retain(|group| *group != gid);
        groups.sort_unstable();
        groups.dedup();
        let home = home.filter(|home| home.starts_with('/'));
        Ok(User {
            uid,
            gid,
            groups,
            home,
        })
    }

    fn group(&self, text: &str) -> Result<u32> {
        let mut lines = self
            .group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>());
        match lines.find(|fields| fields.len() >= 3 && fields[0] == text) {
            Some(fields) => id(fields[2]),
            None if is_number(text) => id(text),
            None => bail!("no group `{text}` in the container's /etc/group"),
        }
    }

    fn memberships(&self, name: &str) -> Vec<u32> {
        let lines = self
            .group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>());
        lines
            .filter(|fields| fields.len() >= 4 && fields[3].split(',').any(|user| user == name))
            .filter_map(|fields| fields[2].parse().ok())
            .collect()
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn id(text: &str) -> Result<u32> {
    text.parse()
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| anyhow!("`{}` is not a user or group id", crate::text::plain(text)))
}

/// A range of ids inside a user namespace and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdRange {
    #[serde(rename = "containerID")]
    pub(crate) inside: u32,
    #[serde(rename = "hostID")]
    pub(crate) outside: u32,
    #[serde(rename = "size")]
    pub(crate) count: u32,
}

/// The maps of a container's own user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct IdMaps {
    pub(crate) uids: Vec<IdRange>,
    pub(crate) gids: Vec<IdRange>,
}

impl IdMaps {
    /// The host's ids of the container's root.
    #[must_use]
    pub(crate) fn root(&self) -> Option<(u32, u32)> {
        let find = |ranges: &[IdRange]| {
            ranges
                .iter()
                .find(|range| range.inside == 0)
                .map(|range| range.outside)
        };
        Some((find(&self.uids)?, find(&self.gids)?))
    }

    /// Whether an id has a counterpart outside.
    #[must_use]
    pub(crate) fn has_gid(&self, gid: u32) -> bool {
        self.gids
            .iter()
            .any(|range| gid >= range.inside && gid - range.inside < range.count)
    }
}

/// A range of `/etc/subuid` or `/etc/subgid`: its first id and how many.
pub(crate) type Subordinate = Option<(u32, u32)>;

/// Finds the first range of a user, by name or number, in the text of `/etc/subuid`.
#[must_use]
pub(crate) fn subordinate(text: &str, name: &str, uid: u32) -> Subordinate {
    let number = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let user = fields.next()?;
        if user != name && user != number {
            return None;
        }
        Some((
            fields.next()?.parse().ok()?,
            fields.next()?.trim().parse().ok()?,
        ))
    })
}

/// The caller, as far as id maps depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) subuids: Subordinate,
    pub(crate) subgids: Subordinate,
}

/// Where root's containers get ids from if no range is set aside for them.
const DEFAULT_RANGE: (u32, u32) = (0x7000_0000, 65_536);

/// Decides on the user namespace by `--userns`; `None` is the host's.
///
/// # Errors
/// An unknown mode, or the host's for somebody who is not root.
pub(crate) fn id_maps(mode: Option<&str>, caller: &Caller) -> Result<Option<IdMaps>> {
    let rootless = caller.uid != 0;
    Ok(match mode {
        None | Some("") if !rootless => None,
        Some("host") if !rootless => None,
        Some("host") => bail!("--userns host needs root: an ordinary user has no rights outside"),
        None | Some("" | "private" | "auto") if rootless => Some(IdMaps {
            uids: own_and_subordinate(caller.uid, caller.subuids),
            gids: own_and_subordinate(caller.gid, caller.subgids),
        }),
        Some("keep-id") if rootless => Some(IdMaps {
            uids: keep(caller.uid, caller.subuids),
            gids: keep(caller.gid, caller.subgids),
        }),
        Some("keep-id") => None,
        None | Some("private" | "auto") => {
            let whole = |range: Subordinate| {
                let (outside, count) = range.unwrap_or(DEFAULT_RANGE);
                vec![IdRange {
                    inside: 0,
                    outside,
                    count,
                }]
            };
            Some(IdMaps {
                uids: whole(caller.subuids),
                gids: whole(caller.subgids),
            })
        }
        Some(text) => {
            let range = parse_range(text).ok_or_else(|| {
                anyhow!("--userns `{text}`: host, private, keep-id or IN:OUT:COUNT")
            })?;
            Some(IdMaps {
                uids: vec![range],
                gids: vec![range],
            })
        }
    })
}

fn parse_range(text: &str) -> Option<IdRange> {
    let mut numbers = text.split(':').map(str::parse::<u32>);
    let range = IdRange {
        inside: numbers.next()?.ok()?,
        outside: numbers.next()?.ok()?,
        count: numbers.next()?.ok()?,
    };
    (numbers.next().is_none() && range.count > 0).then_some(range)
}

/// Root inside is the caller; the others are the caller's subordinate ids, if there are any.
fn own_and_subordinate(own: u32, range: Subordinate) -> Vec<IdRange> {
    let mut ranges = vec![IdRange {
        inside: 0,
        outside: own,
        count: 1,
    }];
    if let Some((outside, count)) = range {
        ranges.push(IdRange {
            inside: 1,
            outside,
            count,
        });
    }
    ranges
}

/// The caller has the same id inside.
fn keep(own: u32, range: Subordinate) -> Vec<IdRange> {
    let same = IdRange {
        inside: own,
        outside: own,
        count: 1,
    };
    let Some((outside, count)) = range else {
        return vec![same];
    };
    let below = own.min(count);
    let mut ranges = vec![
        IdRange {
            inside: 0,
            outside,
            count: below,
        },
        same,
    ];
    if count > below {
        ranges.push(IdRange {
            inside: own + 1,
            outside: outside + below,
            count: count - below,
        });
    }
    ranges.retain(|range| range.count > 0);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\nbad:x\n"
                .to_owned(),
            group: "root:x:0:\nusers:x:100:\nwheel:x:10:ann,bob\ndisk:x:6:ann\n".to_owned(),
        }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        for (text, uid, gid, groups, home) in [
            ("ann", 1000, 100, vec![6, 10], Some("/home/ann")),
            ("1000", 1000, 100, vec![6, 10], Some("/home/ann")),
            ("ann:wheel", 1000, 10, vec![], Some("/home/ann")),
            ("4242", 4242, 0, vec![], None),
            ("4242:7", 4242, 7, vec![], None),
            ("root", 0, 0, vec![], Some("/root")),
        ] {
            let user = accounts().user(text, &[]).unwrap();
            let home = home.map(str::to_owned);
            assert_eq!(
                user,
                User {
                    uid,
                    gid,
                    groups,
                    home
                },
                "{text}"
            );
        }
        assert_eq!(
            accounts().user("ann", &["root".to_owned()]).unwrap().groups,
            [0, 6, 10]
        );
        for wrong in ["eve", "ann:none", "", "bad", "4294967295", "99999999999"] {
            assert!(accounts().user(wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn subordinate_ranges_belong_to_names_or_numbers() {
        let text = "bob:100000:65536\nann:165536:65536\n7:300000:10\n";
        assert_eq!(subordinate(text, "ann", 1000), Some((165_536, 65_536)));
        assert_eq!(subordinate(text, "seven", 7), Some((300_000, 10)));
        assert_eq!(subordinate(text, "eve", 9), None);
    }

    fn ranges(ranges: &[IdRange]) -> Vec<(u32, u32, u32)> {
        ranges
            .iter()
            .map(|range| (range.inside, range.outside, range.count))
            .collect()
    }

    #[test]
    fn maps_follow_mode_and_caller() {
        let ann = Caller {
            uid: 1000,
            gid: 100,
            subuids: Some((200_000, 5000)),
            subgids: None,
        };
        let maps = id_maps(None, &ann).unwrap().unwrap();
        assert_eq!(ranges(&maps.uids), [(0, 1000, 1), (1, 200_000, 5000)]);
        assert_eq!(ranges(&maps.gids), [(0, 100, 1)]);
        let kept = id_maps(Some("keep-id"), &ann).unwrap().unwrap();
        assert_eq!(
            ranges(&kept.uids),
            [(0, 200_000, 1000), (1000, 1000, 1), (1001, 201_000, 4000)]
        );
        assert_eq!(ranges(&kept.gids), [(100, 100, 1)]);
        assert!(id_maps(Some("host"), &ann).is_err());
        let root = Caller {
            uid: 0,
            gid: 0,
            subuids: None,
            subgids: None,
        };
        assert_eq!(id_maps(None, &root).unwrap(), None);
        let private = id_maps(Some("private"), &root).unwrap().unwrap();
        assert_eq!(private.root(), Some((0x7000_0000, 0x7000_0000)));
        let given = id_maps(Some("0:5000:10"), &root).unwrap().unwrap();
        assert_eq!(ranges(&given.uids), [(0, 5000, 10)]);
        for wrong in ["odd", "1:2", "1:2:0", "1:2:3:4"] {
            assert!(id_maps(Some(wrong), &root).is_err(), "{wrong}");
        }
    }
}
