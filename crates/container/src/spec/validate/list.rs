//! Lists of CPUs and memory nodes: `0-3,7`.

use std::ops::RangeInclusive;

/// No kernel has more CPUs or nodes; a larger number is a mistake or an attack on memory.
const MAX: u32 = 1 << 16;

/// The ranges of a list such as `0-3,7`; `None` where it is none. The empty text has no ranges.
#[must_use]
pub fn ranges(list: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let list = list.trim();
    if list.is_empty() {
        return Some(Vec::new());
    }
    list.split(',')
        .map(|range| one_range(range.trim()))
        .collect()
}

fn one_range(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < MAX).then_some(first..=last)
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_reads_them() {
        for (list, wanted) in [
            ("", Some(vec![])),
            ("0", Some(vec![0..=0])),
            ("0-3,7\n", Some(vec![0..=3, 7..=7])),
            ("0, 2", Some(vec![0..=0, 2..=2])),
            ("3-1", None),
            ("a", None),
            ("-1", None),
            ("+1", None),
            ("1,", None),
            ("1--2", None),
            ("65535", Some(vec![65535..=65535])),
            ("65536", None),
            ("99999999999", None),
        ] {
            assert_eq!(ranges(list), wanted, "{list}");
        }
    }
}
