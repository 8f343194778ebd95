//! The mount table as the kernel prints it: `/proc/PID/mountinfo`, proc_pid_mountinfo(5).

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// One line of the table. Paths are unescaped bytes; options are as printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount<'a> {
    pub id: u32,
    pub parent: u32,
    pub device: (u32, u32),
    /// The directory of the file system that is mounted here.
    pub root: Cow<'a, OsStr>,
    pub mount_point: Cow<'a, OsStr>,
    /// Options of this mount, comma separated (`rw,nosuid`).
    pub options: &'a [u8],
    /// Propagation: `shared:N`, `master:N`, `propagate_from:N`, `unbindable`, space separated.
    pub propagation: &'a [u8],
    pub fs_type: &'a [u8],
    pub source: Cow<'a, OsStr>,
    /// Options of the file system itself, comma separated.
    pub super_options: &'a [u8],
}

impl Mount<'_> {
    /// Whether the mount's own or the file system's options contain `option`.
    #[must_use]
    pub fn has_option(&self, option: &str) -> bool {
        let words = |list: &[u8]| {
            list.split(|b| *b == b',')
                .any(|word| word == option.as_bytes())
        };
        words(self.options) || words(self.super_options)
    }
}

/// The mounts of a table's text; lines that are not in its form are left out.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    text.split(|b| *b == b'\n').filter_map(parse_line)
}

/// One line of the table, `None` if it has another form.
#[must_use]
pub fn parse_line(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|b| *b == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = fields.next()?;
    let colon = device.iter().position(|b| *b == b':')?;
    let device = (
        number(device.get(..colon)?)?,
        number(device.get(colon + 1..)?)?,
    );
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    let options = fields.next()?;
    let propagation = propagation(line, options)?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = fields.next()?;
    let source = unescape(fields.next()?);
    let super_options = fields.next().unwrap_or_default();
    Some(Mount {
        id,
        parent,
        device,
        root,
        mount_point,
        options,
        propagation,
        fs_type,
        source,
        super_options,
    })
}

/// The optional fields: what lies between the options and the lone `-`.
fn propagation<'a>(line: &'a [u8], options: &[u8]) -> Option<&'a [u8]> {
    // `options` is a slice of `line`, so the distance of the two is its offset in it.
    let start = (options.as_ptr() as usize) - (line.as_ptr() as usize) + options.len();
    let rest = line.get(start..)?;
    let end = rest.windows(3).position(|window| window == b" - ")?;
    Some(rest.get(1..end).unwrap_or_default())
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Undoes the kernel's octal escapes of blank, tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> Cow<'_, OsStr> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(OsStr::from_bytes(field));
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escape = if *first == b'\\' { octal(tail) } else { None };
        plain.push(escape.unwrap_or(*first));
        rest = if escape.is_some() {
            tail.get(3..).unwrap_or_default()
        } else {
            tail
        };
    }
    Cow::Owned(OsStr::from_bytes(&plain).to_owned())
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_with_escapes_and_propagation() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
        let mount = parse_line(line).unwrap();
        assert_eq!((mount.id, mount.parent, mount.device), (36, 35, (98, 0)));
        assert_eq!(mount.root, OsStr::new("/mnt1"));
        assert_eq!(mount.mount_point, OsStr::new(r"/mnt 2\x"));
        assert_eq!(mount.propagation, b"master:1 shared:7");
        assert_eq!(mount.fs_type, b"ext3");
        assert!(mount.has_option("noatime") && mount.has_option("errors=continue"));
        assert!(!mount.has_option("ro"));
    }

    #[test]
    fn reads_a_line_without_propagation_or_source() {
        let mount = parse_line(b"1 2 0:3 / /x rw - tmpfs  rw").unwrap();
        assert_eq!(mount.propagation, b"");
        assert_eq!(mount.source, OsStr::new(""));
        assert_eq!(mount.super_options, b"rw");
    }

    #[test]
    fn leaves_out_what_is_no_mount() {
        for line in [
            "",
            "1",
            "1 2 0:3 / /x rw",
            "1 2 03 / /x rw - a b c",
            "x 2 0:3 / /x rw - a b",
        ] {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn cut_and_changed_lines_do_not_panic() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw";
        for at in 0..line.len() {
            let _ = parse_line(&line[..at]);
            for byte in [b' ', b'-', b'\\', b':', b'9', 0, 0xff] {
                let mut changed = line.to_vec();
                changed[at] = byte;
                let _ = parse_line(&changed);
            }
        }
    }
}
