//! Values of flags, as users write them.

use anyhow::{Result, anyhow, bail};

/// Bytes: `512m`, `2GiB`, `1.5g`, `4096`. Units are powers of 1024; `-1` is no limit.
///
/// # Errors
/// A text that names the value.
pub(crate) fn bytes(text: &str) -> Result<i64> {
    if text == "-1" || text == "unlimited" {
        return Ok(-1);
    }
    let wrong = || anyhow!("`{text}` is not a size such as 512m or 2g");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = digits.parse::<i64>() {
        return whole
            .checked_mul(1 << shift)
            .filter(|n| *n >= 0)
            .ok_or_else(wrong);
    }
    let value: f64 = digits.parse().map_err(|_| wrong())?;
    let scaled = value * f64::from(1 << (shift / 2)) * f64::from(1 << (shift / 2));
    if !scaled.is_finite() || !(0.0..9e18).contains(&scaled) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be within range"
    )]
    Ok(scaled as i64)
}

/// The period of a cpu quota, in microseconds.
pub(crate) const CPU_PERIOD: u64 = 100_000;

/// `--cpus`: a number of cpus as a quota in microseconds per [`CPU_PERIOD`].
///
/// # Errors
/// A text that names the value.
pub(crate) fn cpus(text: &str) -> Result<i64> {
    let value: f64 = text
        .parse()
        .map_err(|_| anyhow!("`{text}` is not a number of cpus"))?;
    if !(0.01..=100_000.0).contains(&value) {
        bail!("`{text}` cpus: the least is 0.01");
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be within range"
    )]
    Ok((value * 100_000.0).round() as i64)
}

/// `90`, `90s`, `1m30s`, `2h`, `100ms`, `-1d`: nanoseconds.
///
/// # Errors
/// A text that names the value.
pub(crate) fn nanoseconds(text: &str) -> Result<i64> {
    let wrong = || anyhow!("`{text}` is not a time such as 90s or 1h30m");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut total: i64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let count: i64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit: i64 = match &rest[..end] {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "" | "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return Err(wrong()),
        };
        rest = &rest[end..];
        total = count
            .checked_mul(unit)
            .and_then(|n| total.checked_add(n))
            .ok_or_else(wrong)?;
    }
    Ok(if negative { -total } else { total })
}

/// A signal by number or name, with or without `SIG`: `9`, `KILL`, `SIGRTMIN+3`.
///
/// # Errors
/// A text that names the value.
pub(crate) fn signal(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (1..=sys::signal::MAX).contains(&number) {
            return Ok(number);
        }
        bail!("signal `{text}`: numbers are 1 to {}", sys::signal::MAX);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    sys::signal::number(name)
        .filter(|number| (1..=sys::signal::MAX).contains(number))
        .ok_or_else(|| anyhow!("no signal is called `{text}`"))
}

/// `--detach-keys`: `ctrl-p,ctrl-q` or plain letters, as the bytes a terminal sends.
///
/// # Errors
/// A text that names the wrong key.
pub(crate) fn detach_keys(text: &str) -> Result<Vec<u8>> {
    text.split(',')
        .filter(|key| !key.is_empty())
        .map(|key| {
            let lower = key.to_ascii_lowercase();
            match (
                lower.strip_prefix("ctrl-").map(str::as_bytes),
                key.as_bytes(),
            ) {
                (Some([letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => {
                    Ok(letter.to_ascii_uppercase() & 0x1f)
                }
                (None, [letter]) if letter.is_ascii_graphic() => Ok(*letter),
                _ => Err(anyhow!(
                    "detach key `{key}` is neither ctrl-<letter> nor one letter"
                )),
            }
        })
        .collect()
}

/// `KEY=VALUE`; a missing `=` is an empty value.
#[must_use]
pub(crate) fn key_value(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// A name of a container: a letter or digit, then letters, digits, `_`, `.`, `-`.
///
/// # Errors
/// A text that names the value and the rule.
pub(crate) fn name(text: &str) -> Result<String> {
    let mut letters = text.bytes();
    let first = letters
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = letters.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && text.len() <= 128 {
        return Ok(text.to_owned());
    }
    bail!(
        "name {text:?}: a letter or digit first, then letters, digits, `_`, `.`, `-`; at most 128"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, value) in [
            ("4096", 4096),
            ("512k", 512 << 10),
            ("512M", 512 << 20),
            ("2GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("-1", -1),
            ("0", 0),
        ] {
            assert_eq!(bytes(text).unwrap(), value, "{text}");
        }
        for wrong in ["", "m", "5x", "-5", "9999999999g", "1e400", "nan"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_add_up() {
        for (text, value) in [
            ("90", 90_000_000_000),
            ("1m30s", 90_000_000_000),
            ("-1d", -86_400_000_000_000),
        ] {
            assert_eq!(nanoseconds(text).unwrap(), value, "{text}");
        }
        for wrong in ["", "s", "5x", "99999999999d", "-"] {
            assert!(nanoseconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGSYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for wrong in ["0", "65", "SIGNOPE", "RTMIN+31", "RTMIN3"] {
            assert!(signal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cpus_become_quota() {
        assert_eq!(cpus("1.5").unwrap(), 150_000);
        for wrong in ["0", "-1", "x", "inf", "NaN"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_become_control_bytes() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q").unwrap(), [16, 17]);
        assert_eq!(detach_keys("a,ctrl-[").unwrap(), [b'a', 27]);
        assert_eq!(detach_keys("").unwrap(), [0_u8; 0]);
        assert!(detach_keys("ctrl-1").is_err());
        assert!(detach_keys("alt-x").is_err());
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        assert!(name("web-1.a_b").is_ok());
        for wrong in ["", ".", "..", "-x", "a/b", "a\n", "a b", "ä", "\u{1b}[2J"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
