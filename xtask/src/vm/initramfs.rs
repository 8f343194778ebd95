//! The guest's first file system: a cpio archive in the `newc` format.
//!
//! Format: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o40_755;
const EXECUTABLE: u32 = 0o100_755;

/// Writes the entries in their order; `None` is a directory.
pub(crate) fn write(mut to: impl Write, entries: &[(String, Option<Vec<u8>>)]) -> io::Result<()> {
    for (name, content) in entries {
        let mode = if content.is_some() {
            EXECUTABLE
        } else {
            DIRECTORY
        };
        entry(&mut to, name, mode, content.as_deref().unwrap_or_default())?;
    }
    entry(&mut to, "TRAILER!!!", 0, &[])
}

/// One header of thirteen numbers, the name with its NUL, the content; each padded to four bytes.
fn entry(to: &mut impl Write, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let too_big = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let size = u32::try_from(content.len()).map_err(too_big)?;
    let name_size = u32::try_from(name.len() + 1).map_err(too_big)?;
    let mut head = String::from("070701");
    // inode, mode, uid, gid, links, mtime, size, device (2), rdev (2), length of the name, checksum
    for number in [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        head += &format!("{number:08x}");
    }
    head += name;
    head.push('\0');
    padded(to, head.as_bytes())?;
    padded(to, content)
}

fn padded(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])
}

#[cfg(test)]
mod tests {
    use super::write;

    #[test]
    fn entries_are_padded_to_four_bytes() {
        let mut archive = Vec::new();
        let entries = [
            ("bin".to_owned(), None),
            ("bin/a".to_owned(), Some(b"hello".to_vec())),
        ];
        write(&mut archive, &entries).expect("writing to memory");
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        // 110 bytes of header and `bin` with its NUL make 114, padded to 116.
        assert_eq!(&text[116..122], "070701");
        assert!(text.contains("bin/a\0hello\x00\x00\x00070701"));
    }
}
