//! Resources: what would be a wrong file name or is out of every kernel's range.

use super::super::{DeviceRule, Error, Resources};
use super::Check;

pub(super) fn check(check: &Check, resources: &Resources) -> Result<(), Error> {
    for (index, rule) in resources.devices.iter().enumerate() {
        device_rule(check, index, rule)?;
    }
    if let Some(memory) = &resources.memory {
        if memory.swappiness.is_some_and(|swappiness| swappiness > 100) {
            return check.refuse("memory.swappiness", "must be 0 to 100");
        }
        for (field, value) in [
            ("limit", memory.limit),
            ("reservation", memory.reservation),
            ("swap", memory.swap),
            ("kernel", memory.kernel),
            ("kernelTCP", memory.kernel_tcp),
        ] {
            if value.is_some_and(|value| value < -1) {
                return check.refuse(format!("memory.{field}"), "must be -1 or more");
            }
        }
    }
    names(check, resources)
}

fn device_rule(check: &Check, index: usize, rule: &DeviceRule) -> Result<(), Error> {
    let access = rule.access.as_deref().unwrap_or_default();
    if !access
        .chars()
        .all(|letter| matches!(letter, 'r' | 'w' | 'm'))
    {
        return check.refuse(
            format!("devices[{index}].access"),
            "only the letters r, w, m",
        );
    }
    for (field, number) in [("major", rule.major), ("minor", rule.minor)] {
        if number.is_some_and(|number| !(-1..=i64::from(u32::MAX)).contains(&number)) {
            return check.refuse(format!("devices[{index}].{field}"), "no device number");
        }
    }
    Ok(())
}

/// Names that become part of a file's name, or of a line written to one.
fn names(check: &Check, resources: &Resources) -> Result<(), Error> {
    for (index, limit) in resources.hugepage_limits.iter().enumerate() {
        if !is_page_size(&limit.page_size) {
            let cause = format!("`{}` is no page size such as 2MB", limit.page_size);
            return check.refuse(format!("hugepageLimits[{index}].pageSize"), cause);
        }
    }
    for key in resources.unified.keys() {
        // Not a path: it would be written to below the group.
        let plain = key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !plain || !key.trim_matches('.').contains('.') || key.starts_with('.') {
            return check.refuse(
                format!("unified.{key}"),
                "must be a name CONTROLLER.PARAMETER",
            );
        }
    }
    for device in resources.rdma.keys() {
        if !is_word(device) {
            return check.refuse(format!("rdma.{device}"), "no device name");
        }
    }
    let priorities = resources
        .network
        .iter()
        .flat_map(|network| &network.priorities);
    for (index, priority) in priorities.enumerate() {
        if !is_word(&priority.name) {
            return check.refuse(
                format!("network.priorities[{index}].name"),
                "no device name",
            );
        }
    }
    Ok(())
}

fn is_page_size(text: &str) -> bool {
    let digits = text.trim_end_matches("B").trim_end_matches(['K', 'M', 'G']);
    let unit = &text[digits.len()..];
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(unit, "KB" | "MB" | "GB")
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
}
