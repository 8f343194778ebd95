//! Id mappings, under the kernel's rules (user_namespaces(7)).

use super::super::{Error, IdMapping};
use super::Check;

/// The kernel's limit of lines in a map file, since Linux 4.15.
const MAX_MAPPINGS: usize = 340;

/// Checks that the kernel would take these mappings.
pub(super) fn check(check: &Check, field: &str, mappings: &[IdMapping]) -> Result<(), Error> {
    if mappings.len() > MAX_MAPPINGS {
        return check.refuse(field, format!("more than {MAX_MAPPINGS} mappings"));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        if mapping.size == 0 {
            return check.refuse(format!("{field}[{index}].size"), "must be more than 0");
        }
        // The last id, 4294967295, means "none" to the kernel: no range may hold it.
        for (name, first) in [
            ("containerID", mapping.container_id),
            ("hostID", mapping.host_id),
        ] {
            if first.checked_add(mapping.size).is_none() {
                return check.refuse(
                    format!("{field}[{index}].{name}"),
                    "range ends above 2^32-1",
                );
            }
        }
        let earlier = mappings[..index]
            .iter()
            .position(|other| overlap(mapping, other));
        if let Some(other) = earlier {
            let cause = format!("overlaps {field}[{other}]");
            return check.refuse(format!("{field}[{index}]"), cause);
        }
    }
    Ok(())
}

/// Whether an id of the container is mapped at all.
pub(super) fn maps(mappings: &[IdMapping], id: u32) -> bool {
    mappings.iter().any(|m| {
        id.checked_sub(m.container_id)
            .is_some_and(|offset| offset < m.size)
    })
}

/// The kernel refuses an overlap on either side.
fn overlap(one: &IdMapping, other: &IdMapping) -> bool {
    let meet = |a: u32, b: u32| {
        u64::from(a) < u64::from(b) + u64::from(other.size)
            && u64::from(b) < u64::from(a) + u64::from(one.size)
    };
    meet(one.container_id, other.container_id) || meet(one.host_id, other.host_id)
}
