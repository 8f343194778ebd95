//! Which pages of a process hold data: `ioctl(PAGEMAP_SCAN)` on `/proc/pid/pagemap` (since Linux 6.7),
//! or the words that are read from that file.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use crate::{Errno, Result};

/// The page was written while write tracking was on.
pub const IS_WRITTEN: u64 = 1 << 1;
/// The page belongs to a file or to shared memory.
pub const IS_FILE: u64 = 1 << 2;
/// The page is in memory.
pub const IS_PRESENT: u64 = 1 << 3;
/// The page is in swap.
pub const IS_SWAPPED: u64 = 1 << 4;
/// The page is the kernel's page of zeros.
pub const IS_PFN_ZERO: u64 = 1 << 5;
/// The page is a guard page (since Linux 6.14).
pub const IS_GUARD: u64 = 1 << 8;

/// A run of pages with the same categories.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// The `IS_*` bits that were asked for and hold.
    pub categories: u64,
}

/// What [`scan`] looks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query {
    /// Bits to invert before matching.
    pub inverted: u64,
    /// All of these must hold.
    pub all_of: u64,
    /// One of these must hold, unless 0.
    pub any_of: u64,
    /// The bits to report.
    pub report: u64,
}

#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

// _IOWR('f', 16, struct pm_scan_arg)
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// The runs of pages between `start` and `end` that match, in address order.
///
/// # Errors
/// ENOTTY: the kernel is older than 6.7. EINVAL: it does not know a category.
pub fn scan(pagemap: impl AsFd, start: u64, end: u64, query: Query) -> Result<Vec<Region>> {
    let mut all = Vec::new();
    let mut batch = vec![Region::default(); 512];
    let mut from = start;
    while from < end {
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            flags: 0,
            start: from,
            end,
            walk_end: 0,
            vec: batch.as_mut_ptr() as u64,
            vec_len: batch.len() as u64,
            max_pages: 0,
            category_inverted: query.inverted,
            category_mask: query.all_of,
            category_anyof_mask: query.any_of,
            return_mask: query.report,
        };
        // SAFETY: the kernel writes `walk_end` and at most `vec_len` regions into `batch`.
        let got = unsafe {
            libc::ioctl(
                pagemap.as_fd().as_raw_fd(),
                PAGEMAP_SCAN,
                &raw mut arguments,
            )
        };
        if got < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
        }
        all.extend_from_slice(&batch[..got as usize]);
        if arguments.walk_end <= from {
            break;
        }
        from = arguments.walk_end;
    }
    Ok(all)
}

/// How the pages of a process are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The ioctl, with all categories (Linux 6.15).
    Scan,
    /// The ioctl of a kernel that does not know [`IS_GUARD`].
    ScanWithoutGuards,
    /// A word per page, and the frame of the kernel's page of zeros, if it may be known.
    Words(Option<u64>),
}

impl Search {
    /// The best way that this kernel knows.
    #[must_use]
    pub fn probe() -> Self {
        let Ok(own) = File::open("/proc/self/pagemap") else {
            return Self::words();
        };
        let guards = Query {
            any_of: IS_GUARD,
            report: IS_GUARD,
            ..Query::default()
        };
        match scan(&own, 0, PAGE, guards) {
            Ok(_) => Self::Scan,
            Err(Errno::INVAL) => Self::ScanWithoutGuards,
            Err(_) => Self::words(),
        }
    }

    /// The way of every kernel. Without CAP_SYS_ADMIN pages of zeros look like any others.
    #[must_use]
    pub fn words() -> Self {
        Self::Words(zero_frame().filter(|frame| *frame != 0))
    }

    /// The runs of pages between `start` and `end` that match, in address order.
    ///
    /// # Errors
    /// What reading the file or the request answers.
    pub fn find(self, pagemap: &File, start: u64, end: u64, query: Query) -> Result<Vec<Region>> {
        match self {
            Self::Scan => scan(pagemap, start, end, query),
            Self::ScanWithoutGuards => {
                let known = |bits: u64| bits & !IS_GUARD;
                let query = Query {
                    inverted: known(query.inverted),
                    all_of: known(query.all_of),
                    any_of: known(query.any_of),
                    report: known(query.report),
                };
                scan(pagemap, start, end, query)
            }
            Self::Words(zero) => read_words(pagemap, start, end, query, zero),
        }
    }
}

const PAGE: u64 = 4096;
const WORDS: usize = 64 << 10;
const WORD_PRESENT: u64 = 1 << 63;
const WORD_SWAPPED: u64 = 1 << 62;
const WORD_FILE: u64 = 1 << 61;
/// Since Linux 6.15.
const WORD_GUARD: u64 = 1 << 58;
const WORD_FRAME: u64 = (1 << 55) - 1;

fn categories(word: u64, zero: Option<u64>) -> u64 {
    let pairs = [
        (WORD_PRESENT, IS_PRESENT),
        (WORD_SWAPPED, IS_SWAPPED),
        (WORD_FILE, IS_FILE),
        (WORD_GUARD, IS_GUARD),
    ];
    let set = pairs.iter().filter(|(bit, _)| word & bit != 0);
    let found = set.fold(0, |sum, (_, category)| sum | category);
    let is_zero = word & WORD_PRESENT != 0 && zero == Some(word & WORD_FRAME);
    found | if is_zero { IS_PFN_ZERO } else { 0 }
}

fn matches(categories: u64, query: Query) -> bool {
    let seen = categories ^ query.inverted;
    seen & query.all_of == query.all_of && (query.any_of == 0 || seen & query.any_of != 0)
}

fn read_words(
    pagemap: &File,
    start: u64,
    end: u64,
    query: Query,
    zero: Option<u64>,
) -> Result<Vec<Region>> {
    let mut all: Vec<Region> = Vec::new();
    let mut bytes = vec![0; WORDS * 8];
    let mut at = start;
    while at < end {
        let wanted = (((end - at) / PAGE) as usize).min(WORDS) * 8;
        let got = pagemap
            .read_at(&mut bytes[..wanted], at / PAGE * 8)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if got < 8 {
            break;
        }
        for word in bytes[..got].chunks_exact(8) {
            let word = word
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let found = categories(word, zero);
            if matches(found, query) {
                let categories = found & query.report;
                match all.last_mut() {
                    Some(last) if last.end == at && last.categories == categories => {
                        last.end += PAGE;
                    }
                    _ => all.push(Region {
                        start: at,
                        end: at + PAGE,
                        categories,
                    }),
                }
            }
            at += PAGE;
        }
    }
    Ok(all)
}

/// The frame number of the page of zeros: that of a page which was only ever read. 0: the kernel
/// does not tell us (no CAP_SYS_ADMIN).
fn zero_frame() -> Option<u64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let length = PAGE as usize;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: mapped readable above, and aligned.
    let _ = unsafe { address.cast::<u64>().read_volatile() };
    let mut word = [0; 8];
    let read = File::open("/proc/self/pagemap")
        .and_then(|own| own.read_exact_at(&mut word, address.addr() as u64 / PAGE * 8));
    // SAFETY: mapped above; nothing points into it.
    unsafe { libc::munmap(address, length) };
    read.ok().map(|()| u64::from_ne_bytes(word) & WORD_FRAME)
}

/// Whether the kernel can scan and reset page states in one call (PAGEMAP_SCAN, since Linux 6.7).
#[must_use]
pub fn has_scan() -> bool {
    let Ok(pagemap) = std::fs::File::open("/proc/self/pagemap") else {
        return false;
    };
    // An argument of size 0 is refused with EINVAL by a kernel that knows the request, and the
    // request itself with ENOTTY by one that does not.
    let mut argument = [0_u64; 12];
    // SAFETY: the argument has the size that the request's number tells and outlives the call.
    let answer = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, argument.as_mut_ptr()) };
    crate::result(answer.into()) != Err(crate::Errno::NOTTY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_of_words() {
        for (word, expected) in [
            (0, 0),
            (WORD_PRESENT | 5, IS_PRESENT),
            (WORD_PRESENT | 7, IS_PRESENT | IS_PFN_ZERO),
            (7, 0),
            (WORD_SWAPPED | 7, IS_SWAPPED),
            (WORD_PRESENT | WORD_FILE | 5, IS_PRESENT | IS_FILE),
            (WORD_GUARD, IS_GUARD),
        ] {
            assert_eq!(categories(word, Some(7)), expected, "{word:x}");
        }
    }

    #[test]
    fn words_show_what_the_scan_shows() {
        let probed = Search::probe();
        if matches!(probed, Search::Words(_)) {
            println!("SKIP: the kernel has no PAGEMAP_SCAN");
            return;
        }
        let memory: Vec<u8> = (0..64 * PAGE).map(|at| at as u8 | 1).collect();
        let start = (memory.as_ptr().addr() as u64).next_multiple_of(PAGE);
        let own = File::open("/proc/self/pagemap").unwrap();
        let not = IS_FILE | IS_PFN_ZERO | IS_GUARD;
        let query = Query {
            inverted: not,
            all_of: not,
            any_of: IS_PRESENT | IS_SWAPPED,
            report: 0,
        };
        let bytes = |search: Search| -> u64 {
            let found = search.find(&own, start, start + 60 * PAGE, query).unwrap();
            found.iter().map(|region| region.end - region.start).sum()
        };
        assert_eq!(bytes(probed), 60 * PAGE);
        assert_eq!(bytes(Search::words()), 60 * PAGE);
        let empty = start + (1 << 38);
        assert_eq!(Search::words().find(&own, empty, empty, query), Ok(vec![]));
    }
}
