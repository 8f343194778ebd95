//! Which devices a group may open or make.

pub(crate) mod program;

use crate::error::{Error, Result};

/// One rule; of all rules that fit a device, the last decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    /// `None` = every number.
    pub major: Option<u32>,
    /// `None` = every number.
    pub minor: Option<u32>,
    pub access: DeviceAccess,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    All,
    Block,
    Char,
}

/// A set of: read, write, make (mknod).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess(u8);

impl DeviceAccess {
    pub const MAKE: Self = Self(1);
    pub const READ: Self = Self(2);
    pub const WRITE: Self = Self(4);
    pub const ALL: Self = Self(7);

    /// From letters (`rwm`); `None` if there is another one, or none.
    #[must_use]
    pub fn parse(letters: &str) -> Option<Self> {
        let bit = |letter| match letter {
            'm' => Some(Self::MAKE.0),
            'r' => Some(Self::READ.0),
            'w' => Some(Self::WRITE.0),
            _ => None,
        };
        let bits = letters
            .chars()
            .try_fold(0, |all, letter| Some(all | bit(letter)?));
        bits.filter(|bits| *bits != 0).map(Self)
    }

    /// As the kernel's BPF context numbers them: 1 make, 2 read, 4 write.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }
}

impl std::fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (bit, letter) in [(2, "r"), (4, "w"), (1, "m")] {
            if self.0 & bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl DeviceRule {
    /// Whether the rule is about every access to every device, so that none before it counts.
    pub(crate) fn is_total(&self) -> bool {
        self.kind == DeviceKind::All
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == DeviceAccess::ALL
    }
}

/// A policy that v1 can hold: a default, and exceptions from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) allow: bool,
    pub(crate) exceptions: Vec<Exception>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exception {
    kind: DeviceKind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// A line for `devices.allow` (true) or `devices.deny`.
pub(crate) type Line = (bool, String);

impl Policy {
    pub(crate) fn everything() -> Self {
        Self {
            allow: true,
            exceptions: Vec::new(),
        }
    }

    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::everything()
    }

    /// The policy of a rule list.
    ///
    /// # Errors
    /// v1 cannot punch a hole into an exception (`c *:* m` without `c 1:3 m`).
    pub(crate) fn of(rules: &[DeviceRule]) -> Result<Self> {
        let last_total = rules.iter().rposition(DeviceRule::is_total);
        let allow = last_total
            .and_then(|index| rules.get(index))
            .is_none_or(|rule| rule.allow);
        let mut policy = Self {
            allow,
            exceptions: Vec::new(),
        };
        let relevant = rules
            .get(last_total.map_or(0, |index| index + 1)..)
            .unwrap_or_default();
        for rule in relevant {
            let kinds: &[DeviceKind] = match &rule.kind {
                DeviceKind::All => &[DeviceKind::Block, DeviceKind::Char],
                kind => std::slice::from_ref(kind),
            };
            for kind in kinds {
                let exception = Exception {
                    kind: *kind,
                    major: rule.major,
                    minor: rule.minor,
                    access: rule.access.0,
                };
                policy.take(exception, rule.allow)?;
            }
        }
        Ok(policy)
    }

    fn take(&mut self, new: Exception, allow: bool) -> Result<()> {
        if allow != self.allow {
            match self
                .exceptions
                .iter_mut()
                .find(|known| known.same_devices(&new))
            {
                Some(known) => known.access |= new.access,
                None => self.exceptions.push(new),
            }
            return Ok(());
        }
        for known in &mut self.exceptions {
            if known.access & new.access == 0 || !known.overlaps(&new) {
                continue;
            }
            if !new.covers(known) {
                let cause = format!("v1 cannot except it from `{known}`");
                return Err(Error::text("set device rule", new.to_string(), &cause));
            }
            known.access &= !new.access;
        }
        self.exceptions.retain(|known| known.access != 0);
        Ok(())
    }

    /// What `devices.list` shows. A group that allows by default does not list its exceptions.
    pub(crate) fn parse(list: &str) -> Self {
        let mut policy = Self {
            allow: false,
            exceptions: Vec::new(),
        };
        for line in list.lines() {
            let mut words = line.split_ascii_whitespace();
            let kind = match words.next() {
                Some("a") => {
                    return Self {
                        allow: true,
                        exceptions: Vec::new(),
                    };
                }
                Some("b") => DeviceKind::Block,
                Some("c") => DeviceKind::Char,
                _ => continue,
            };
            let Some((major, minor)) = words.next().and_then(|word| word.split_once(':')) else {
                continue;
            };
            let access = words
                .next()
                .and_then(DeviceAccess::parse)
                .map_or(0, DeviceAccess::bits);
            let (major, minor) = (major.parse().ok(), minor.parse().ok());
            policy.exceptions.push(Exception {
                kind,
                major,
                minor,
                access,
            });
        }
        policy
    }

    /// The lines that turn `current` into this policy. What is allowed before and after stays
    /// allowed in between wherever v1 lets us see it.
    pub(crate) fn lines_from(&self, current: &Self) -> Vec<Line> {
        let everything = "a".to_owned();
        let lines = |allow: bool, list: &[Exception]| -> Vec<Line> {
            list.iter()
                .map(|exception| (allow, exception.to_string()))
                .collect()
        };
        match (self.allow, current.allow) {
            // Exceptions that `current` does not show may be there: "a" forgets them.
            (true, _) => {
                let mut all = vec![(true, everything)];
                all.extend(lines(false, &self.exceptions));
                all
            }
            (false, true) => {
                let mut all = vec![(false, everything)];
                all.extend(lines(true, &self.exceptions));
                all
            }
            (false, false) => {
                let mut all = lines(true, &Self::surplus(&self.exceptions, &current.exceptions));
                let gone = Self::surplus(&current.exceptions, &self.exceptions);
                all.extend(lines(false, &gone));
                all
            }
        }
    }

    /// What of `own` is not in `other`, comparing rules for the same devices.
    fn surplus(own: &[Exception], other: &[Exception]) -> Vec<Exception> {
        let less = |exception: &Exception| {
            let same = other.iter().filter(|known| known.same_devices(exception));
            let access = same.fold(exception.access, |access, known| access & !known.access);
            (access != 0).then_some(Exception {
                access,
                ..*exception
            })
        };
        own.iter().filter_map(less).collect()
    }
}

impl Exception {
    pub(crate) fn kind(&self) -> DeviceKind {
        self.kind
    }

    pub(crate) fn numbers(&self) -> (Option<u32>, Option<u32>) {
        (self.major, self.minor)
    }

    pub(crate) fn access(&self) -> String {
        DeviceAccess(self.access).to_string()
    }

    fn same_devices(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let meets = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meets(self.major, other.major) && meets(self.minor, other.minor)
    }

    fn covers(&self, other: &Self) -> bool {
        let covers = |a: Option<u32>, b: Option<u32>| a.is_none() || a == b;
        self.kind == other.kind
            && covers(self.major, other.major)
            && covers(self.minor, other.minor)
    }
}

impl std::fmt::Display for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let (major, minor) = (number(self.major), number(self.minor));
        write!(f, "{kind} {major}:{minor} {}", DeviceAccess(self.access))
    }
}

#[cfg(test)]
#[path = "devices_tests.rs"]
pub(crate) mod tests;
