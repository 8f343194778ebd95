//! What of a process's own program stays in memory.

use crate::{Errno, Result, result};

/// Lets go of the pages of the calling program's own file that it only reads: its code and
/// constants (madvise(2), `MADV_DONTNEED`). Those it still needs come back from the page cache one
/// by one; a resident program that was busy at its start is small while it waits.
///
/// # Errors
/// `ENOENT`: no `/proc`. Those of madvise(2).
pub fn drop_clean_pages() -> Result<()> {
    let maps = std::fs::read_to_string("/proc/self/smaps")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    for (start, end) in clean_file_mappings(&maps) {
        // SAFETY: the range is a mapping of a file, not writable and without a page of its own (so
        // not the one that was relocated): each page read again is the same bytes of the file. The
        // program is single-threaded, so no mapping has changed since it was read.
        result(libc::c_long::from(unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED)
        }))?;
    }
    Ok(())
}

/// Address ranges of file mappings that cannot be written to and hold no page of their own.
fn clean_file_mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(mapping) = header(line) {
            current = mapping;
        } else if let Some(amount) = line.strip_prefix("Anonymous:")
            && amount.trim() == "0 kB"
        {
            found.extend(current.take());
        }
    }
    found
}

/// Of the first line of a mapping: its range, `None` within if it is not a file's or is writable.
fn header(line: &str) -> Option<Option<(usize, usize)>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let access = fields.next()?;
    let file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    Some((file && !access.contains('w')).then_some((start, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unwritten_file_mappings_are_dropped() {
        let smaps = "\
1000-2000 r--p 00000000 fe:00 7 /bin/x\nRss: 4 kB\nAnonymous:             0 kB\n\
2000-3000 r-xp 00001000 fe:00 7 /bin/x\nAnonymous:             0 kB\n\
3000-4000 r--p 00002000 fe:00 7 /bin/x\nAnonymous:             4 kB\n\
4000-5000 rw-p 00003000 fe:00 7 /bin/x\nAnonymous:             0 kB\n\
5000-6000 rw-p 00000000 00:00 0 [heap]\nAnonymous:             0 kB\n\
6000-7000 r-xp 00000000 00:00 0 [vdso]\nAnonymous:             0 kB\n";
        assert_eq!(
            clean_file_mappings(smaps),
            [(0x1000, 0x2000), (0x2000, 0x3000)]
        );
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        drop_clean_pages().unwrap();
        assert_eq!([3, 1, 2].iter().max(), Some(&3));
    }
}
