//! Running on from another file with the same content, without executing it.
//!
//! `/proc/PID/exe` shows one field of the address space, and `PR_SET_MM_MAP` (prctl(2), Linux 3.18)
//! sets it once nothing of the old file is mapped. So every segment of the running program is
//! mapped anew from the other file, at the address where it is: code and constants are the same
//! bytes, and what the program wrote since it started is moved over as memory of no file.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Errno, Result, result};

/// Makes the calling process run on from `file`, which holds the bytes of the program that it runs.
/// Only for a process of one thread.
///
/// # Errors
/// The kernel or the caller's rights do not allow it (CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE in
/// the user namespace), or the program's layout is unusual. Whatever was mapped anew by then
/// changes nothing for the program.
pub fn move_to(file: BorrowedFd<'_>) -> Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat");
    let stat = stat.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let layout = Layout::parse(&stat, file.as_raw_fd()).ok_or(Errno::PROTO)?;
    let program = Program::running().ok_or(Errno::NOEXEC)?;
    for segment in &program.segments {
        if segment.flags & libc::PF_W == 0 {
            map_again(file, segment)?;
        } else {
            detach(segment, program.sealed)?;
        }
    }
    // SAFETY: the kernel reads the structure and checks each address in it.
    let returned = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            PR_SET_MM_MAP,
            &raw const layout,
            size_of::<Layout>(),
            0,
        )
    };
    result(i64::from(returned)).map(drop)
}

const PR_SET_MM_MAP: u64 = 14;
const PAGE: usize = 4096;

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    code: [u64; 2],
    data: [u64; 2],
    heap: [u64; 2],
    stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
    /// None: it stays as it is.
    auxiliary_vector: u64,
    auxiliary_vector_size: u32,
    program: i32,
}

impl Layout {
    /// The layout as it is, from `/proc/self/stat` (proc_pid_stat(5)), but for the program's file.
    fn parse(stat: &str, program: i32) -> Option<Layout> {
        let (_, fields) = stat.rsplit_once(')')?;
        // The first of these is field 3.
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let start = field(47)?;
        Some(Layout {
            code: [field(26)?, field(27)?],
            data: [field(45)?, field(46)?],
            heap: [start, heap_end().max(start)],
            stack: field(28)?,
            arguments: [field(48)?, field(49)?],
            environment: [field(50)?, field(51)?],
            auxiliary_vector: 0,
            auxiliary_vector_size: 0,
            program,
        })
    }
}

fn heap_end() -> u64 {
    // SAFETY: an increment of nothing moves nothing.
    let end = unsafe { libc::sbrk(0) };
    end as u64
}

/// A `PT_LOAD` of the program: whole pages in memory.
#[derive(Debug)]
struct Segment {
    start: usize,
    /// How much of it comes from the file.
    length: usize,
    offset: i64,
    /// `PF_R`, `PF_W`, `PF_X`.
    flags: u32,
}

#[derive(Debug)]
struct Program {
    segments: Vec<Segment>,
    /// What the linker made read-only after it had written there (`PT_GNU_RELRO`), whole pages.
    sealed: (usize, usize),
}

impl Program {
    /// Reads the headers of the running program (elf(5)); `None` if they are not as linkers make
    /// them, right behind the header of the file.
    fn running() -> Option<Program> {
        let table = auxiliary(libc::AT_PHDR);
        let (count, size) = (auxiliary(libc::AT_PHNUM), auxiliary(libc::AT_PHENT));
        if table == 0 || size != size_of::<libc::Elf64_Phdr>() {
            return None;
        }
        // SAFETY: the kernel mapped the table there, and nothing unmaps or writes it.
        let headers =
            unsafe { std::slice::from_raw_parts(table as *const libc::Elf64_Phdr, count) };
        let first = headers
            .iter()
            .find(|header| header.p_type == libc::PT_LOAD && header.p_offset == 0)?;
        let base = table.checked_sub(size_of::<libc::Elf64_Ehdr>())?;
        let bias = base.wrapping_sub(usize::try_from(first.p_vaddr).ok()?);
        if bias % PAGE != 0 {
            return None;
        }
        let bounds = |header: &libc::Elf64_Phdr, length: u64| {
            let start = bias.wrapping_add(header.p_vaddr as usize);
            (start & !(PAGE - 1), start.wrapping_add(length as usize))
        };
        let load = headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD);
        let segments = load.map(|header| {
            let (start, end) = bounds(header, header.p_filesz);
            Some(Segment {
                start,
                length: end.checked_next_multiple_of(PAGE)?.checked_sub(start)?,
                offset: i64::try_from(header.p_offset).ok()? & !(PAGE as i64 - 1),
                flags: header.p_flags,
            })
        });
        let sealed = headers
            .iter()
            .find(|header| header.p_type == libc::PT_GNU_RELRO);
        // Its last page stays writable if other data begin in it.
        let sealed = sealed.map_or((0, 0), |header| {
            let (start, end) = bounds(header, header.p_memsz);
            (start, end & !(PAGE - 1))
        });
        Some(Program {
            segments: segments.collect::<Option<_>>()?,
            sealed,
        })
    }
}

fn auxiliary(kind: u64) -> usize {
    // SAFETY: reads the vector that the kernel gave the process; unknown kinds are 0.
    let value = unsafe { libc::getauxval(kind) };
    value as usize
}

/// Maps what nobody has written from the other file, in one step: there is no moment without.
fn map_again(file: BorrowedFd<'_>, segment: &Segment) -> Result<()> {
    let bits = [(libc::PF_R, libc::PROT_READ), (libc::PF_X, libc::PROT_EXEC)];
    let protection = bits
        .iter()
        .filter(|(flag, _)| segment.flags & flag != 0)
        .fold(libc::PROT_NONE, |all, (_, bit)| all | bit);
    // SAFETY: the same bytes are there before and after, with the same protection.
    let mapped = unsafe {
        libc::mmap(
            segment.start as *mut libc::c_void,
            segment.length,
            protection,
            libc::MAP_PRIVATE | libc::MAP_FIXED,
            file.as_raw_fd(),
            segment.offset,
        )
    };
    check(mapped)
}

/// Moves what the program may have written to memory of no file. Nothing may be written between the
/// copy and the move, so there is no allocation and no call of others in between.
fn detach(segment: &Segment, sealed: (usize, usize)) -> Result<()> {
    let (place, length) = (segment.start as *mut libc::c_void, segment.length);
    // SAFETY: new memory, at an address of the kernel's choice.
    let copy = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    check(copy)?;
    // SAFETY: both are whole, readable mappings of this length and do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(place.cast_const().cast::<u8>(), copy.cast(), length) };
    // SAFETY: what is replaced holds the same bytes.
    let moved = unsafe {
        libc::mremap(
            copy,
            length,
            length,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            place,
        )
    };
    check(moved)?;
    let (start, end) = (
        sealed.0.max(segment.start),
        sealed.1.min(segment.start + length),
    );
    if start >= end {
        return Ok(());
    }
    // SAFETY: takes back a right that these pages did not have before the move either.
    let returned =
        unsafe { libc::mprotect(start as *mut libc::c_void, end - start, libc::PROT_READ) };
    result(i64::from(returned)).map(drop)
}

fn check(mapped: *mut libc::c_void) -> Result<()> {
    if mapped == libc::MAP_FAILED {
        let error = std::io::Error::last_os_error();
        Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_read_from_the_status_line() {
        let numbers: Vec<String> = (4..=52).map(|number| (number * 100).to_string()).collect();
        let line = format!("7 (a) b) S {}", numbers.join(" "));
        let layout = Layout::parse(&line, 5).unwrap();
        assert_eq!((layout.code, layout.data), ([2600, 2700], [4500, 4600]));
        assert_eq!((layout.heap[0], layout.stack), (4700, 2800));
        assert_eq!(
            (layout.arguments, layout.environment),
            ([4800, 4900], [5000, 5100])
        );
        assert_eq!(Layout::parse("7 (a) S 1 2", 5), None);
    }

    #[test]
    fn the_running_programs_segments_hold_its_code() {
        let program = Program::running().unwrap();
        let code = Program::running as fn() -> Option<Program> as usize;
        let holds = |segment: &&Segment| {
            segment.flags & libc::PF_X != 0
                && (segment.start..segment.start + segment.length).contains(&code)
        };
        assert!(
            program.segments.iter().any(|segment| holds(&segment)),
            "{program:?}"
        );
    }
}
