//! Command lines as runc's callers write them, brought into one form.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Long flags may have one dash (`-no-subreaper`), as Go's flag parsers accept. What follows the
/// container's id in `exec`, and what follows `--`, is the program's.
pub(crate) fn normal(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut ended = false;
    arguments
        .map(|argument| {
            ended |= argument == "--";
            if ended || !is_single_dash_long(&argument) {
                return argument;
            }
            let mut longer = OsString::from("-");
            longer.push(argument);
            longer
        })
        .collect()
}

/// Long flags that engines are known to write with one dash. A list, for `-it` are two short ones.
const SINGLE_DASH: &[&str] = &[
    "no-subreaper",
    "no-pivot",
    "console-socket",
    "pid-file",
    "bundle",
];

fn is_single_dash_long(argument: &OsStr) -> bool {
    let name = argument.as_bytes().strip_prefix(b"-").unwrap_or_default();
    let name = name.split(|byte| *byte == b'=').next().unwrap_or_default();
    SINGLE_DASH.iter().any(|known| known.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_is_as_good_as_two() {
        for (given, wanted) in [
            (
                &["-no-subreaper", "-it", "-v"][..],
                &["--no-subreaper", "-it", "-v"][..],
            ),
            (&["-pid-file=/x"], &["--pid-file=/x"]),
            (&["--", "-no-pivot"], &["--", "-no-pivot"]),
        ] {
            let given = given.iter().map(OsString::from);
            assert_eq!(normal(given), wanted);
        }
    }
}
