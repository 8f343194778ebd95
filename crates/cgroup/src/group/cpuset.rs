//! Changing the processors or memory nodes of a v1 cpuset that has groups below it.
//!
//! v1 wants every group's set inside its parent's at every moment, and refuses the change of a
//! parent that would leave a child outside. So a group first gets old and new together, then its
//! children move, then it gives the old up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file;

pub(super) fn write_v1(group: &Path, name: &str, value: &str) -> Result<()> {
    let set = |at: &Path, value: &str| {
        let path = at.join(name);
        file::write(&path, value)
            .map_err(|errno| Error::kernel(&format!("write `{value}` to"), &path, errno))
    };
    let below = children(group)?;
    if below.is_empty() {
        return set(group, value);
    }
    let old = file::read(&group.join(name))?;
    let both = format!("{},{value}", old.trim_ascii());
    set(group, both.trim_start_matches(','))?;
    for child in below {
        let own = file::read(&child.join(name))?;
        let own = own.trim_ascii();
        if !own.is_empty() {
            write_v1(&child, name, &narrowed(own, old.trim_ascii(), value))?;
        }
    }
    set(group, value)
}

fn children(group: &Path) -> Result<Vec<PathBuf>> {
    let fails = |error: std::io::Error| {
        let errno = sys::Errno::from_io_error(&error).unwrap_or(sys::Errno::IO);
        Error::kernel("list groups below", group, errno)
    };
    let mut groups = Vec::new();
    for entry in std::fs::read_dir(group).map_err(fails)? {
        let entry = entry.map_err(fails)?;
        if entry.file_type().map_err(fails)?.is_dir() {
            groups.push(entry.path());
        }
    }
    Ok(groups)
}

/// What a child has afterwards: what its parent has, if it had all of it before; else what is
/// left of its own choice.
fn narrowed(own: &str, old: &str, new: &str) -> String {
    let (own, old, allowed) = (numbers(own), numbers(old), numbers(new));
    let left: Vec<String> = own.intersection(&allowed).map(u32::to_string).collect();
    if own == old || left.is_empty() {
        new.to_owned()
    } else {
        left.join(",")
    }
}

fn numbers(list: &str) -> BTreeSet<u32> {
    crate::stats::numbers_in_list(list).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_follows_its_parent_or_keeps_its_choice() {
        for (own, old, new, expected) in [
            ("0-3", "0-3", "1", "1"),
            ("0-1", "0-1", "0-7", "0-7"),
            ("0,2", "0-3", "1-2", "2"),
            ("0", "0-3", "1-2", "1-2"),
        ] {
            assert_eq!(narrowed(own, old, new), expected, "{own} {old} {new}");
        }
    }
}
