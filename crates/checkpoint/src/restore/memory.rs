//! Rebuilds an address space at its addresses, from inside: one tape wipes and maps everything,
//! reads the pages, and sets protections.

use std::os::fd::AsRawFd;

use super::files::Files;
use super::load::Task;
use super::tree::Stub;
use crate::arch;
use crate::error::{Error, Result};
use crate::image::ipc::IpcShmEntry;
use crate::image::memory::{MmEntry, VmaEntry};
use crate::image::{Directory, Kind};
use crate::inject;
use crate::memory::{MAP_DROPPABLE, PAGE, status};
use crate::pages::{PageSource, Run};
use crate::procfs;
use crate::tape::Tape;

const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;
/// preadv(2) takes no more.
const MAX_VECTORS: usize = 1024;
const MAX_BYTES: u64 = 1 << 30;
const MADV_GUARD_INSTALL: u64 = 102;

/// Rebuilds the memory of one process.
pub(crate) fn rebuild(
    images: &Directory,
    task: &Task,
    stub: &mut Stub,
    files: &mut Files<'_>,
) -> Result<()> {
    if task.is_dead() {
        return Ok(());
    }
    let source = PageSource::open(images, &task.pid.to_string())?;
    let all: &[Run] = source.as_ref().map_or(&[], |source| &source.runs);
    check_runs(task, all)?;
    let runs = &without_vdso(task, all)[..];
    let mut tape = Tape::new(stub.arena);
    wipe(stub, &mut tape);
    map_vdso(&task.mm, &mut tape);
    // First, because an attachment brings the whole segment, and parts of it go again.
    attach(images, task, &mut tape)?;
    let mapped = |vma: &&VmaEntry| is_ordinary(vma) && vma.status & status::SYSV == 0;
    for vma in task.mm.vmas.iter().filter(mapped) {
        map(vma, holds_pages(vma, runs), files, &mut tape)?;
    }
    let mut reads = Vec::new();
    if let Some(source) = &source {
        read_pages(source, runs, &mut tape, &mut reads);
    }
    for vma in task.mm.vmas.iter().filter(|vma| is_ordinary(vma)) {
        finish_mapping(vma, holds_pages(vma, runs), &mut tape);
    }
    for guard in task.mm.vmas.iter().filter(|vma| is_guard(vma)) {
        let arguments = [guard.start, guard.end - guard.start, MADV_GUARD_INSTALL];
        let object = format_args!("pages at {:x} (needs Linux 6.13)", guard.start);
        tape.call("guard", object, libc::SYS_madvise, &arguments);
    }
    set_layout(task, files, &mut tape)?;
    let results = tape.play(&stub.injector)?;
    for (at, expected) in reads {
        if results[at] != expected {
            let cause = format!("{} of {expected} bytes", results[at]);
            return Err(Error::because("read pages of process", task.pid, cause));
        }
    }
    // The vdso has moved.
    let mappings = procfs::plain_mappings(stub.pid)?;
    stub.injector.gadget = inject::find_gadget(stub.pid, &mappings)?;
    Ok(())
}

fn is_ordinary(vma: &VmaEntry) -> bool {
    vma.status & (status::VDSO | status::VVAR | status::VSYSCALL | status::GUARD) == 0
}

fn is_guard(vma: &VmaEntry) -> bool {
    vma.status & status::GUARD != 0
}

fn holds_pages(vma: &VmaEntry, runs: &[Run]) -> bool {
    let after = runs.partition_point(|run| run.address + run.length <= vma.start);
    runs.get(after).is_some_and(|run| run.address < vma.end)
}

/// Every run must lie inside private mappings that the tape makes writable.
fn check_runs(task: &Task, runs: &[Run]) -> Result<()> {
    let mut last_end = 0;
    for run in runs {
        let (mut at, end) = (run.address, run.address + run.length);
        let name = format!("pagemap-{}.img", task.pid);
        let vmas = task
            .mm
            .vmas
            .iter()
            .filter(|vma| vma.status & (status::VVAR | status::VSYSCALL | status::GUARD) == 0);
        for vma in vmas.filter(|vma| vma.flags & libc::MAP_PRIVATE as u32 != 0) {
            if vma.start <= at && at < vma.end {
                at = vma.end.min(end);
            }
        }
        if at != end || run.address < last_end {
            let cause = format!("pages at {:x} belong to no private mapping", run.address);
            return Err(Error::because("read image", name, cause));
        }
        last_end = end;
    }
    Ok(())
}

fn wipe(stub: &Stub, tape: &mut Tape) {
    let arena = stub.arena;
    tape.call("unmap", "low memory", libc::SYS_munmap, &[0, arena.code()]);
    let rest = arch::TASK_SIZE - arena.end();
    tape.call(
        "unmap",
        "high memory",
        libc::SYS_munmap,
        &[arena.end(), rest],
    );
}

fn map_vdso(mm: &MmEntry, tape: &mut Tape) {
    let special = |vma: &&VmaEntry| vma.status & (status::VDSO | status::VVAR) != 0;
    if let Some(first) = mm.vmas.iter().filter(special).map(|vma| vma.start).min() {
        let (number, arguments) = arch::map_vdso(first);
        tape.call("map", format!("vdso at {first:x}"), number, &arguments);
    }
}

fn map(vma: &VmaEntry, holds_pages: bool, files: &mut Files<'_>, tape: &mut Tape) -> Result<()> {
    let mut flags = vma.flags & !(libc::MAP_LOCKED as u32) | libc::MAP_FIXED_NOREPLACE as u32;
    if flags & MAP_DROPPABLE as u32 != 0 {
        flags &= !(libc::MAP_PRIVATE as u32);
    }
    let mut fd = u64::MAX;
    let mut offset = 0;
    if vma.status & status::ANON_PRIVATE == 0 {
        fd = files.for_mapping(vma)?;
        offset = vma.pgoff;
        flags &= !(libc::MAP_ANONYMOUS as u32);
    }
    let mut protection = vma.prot;
    if holds_pages {
        protection |= libc::PROT_WRITE as u32;
    }
    let arguments = [
        vma.start,
        vma.end - vma.start,
        u64::from(protection),
        u64::from(flags),
        fd,
        offset,
    ];
    tape.call(
        "map",
        format_args!("{:x}-{:x}", vma.start, vma.end),
        libc::SYS_mmap,
        &arguments,
    );
    Ok(())
}

/// Attaches System V shared memory, and unmaps what the process had unmapped of it.
fn attach(images: &Directory, task: &Task, tape: &mut Tape) -> Result<()> {
    let sysv = |vma: &&VmaEntry| vma.status & status::SYSV != 0;
    let vmas: Vec<&VmaEntry> = task.mm.vmas.iter().filter(sysv).collect();
    let base = |vma: &VmaEntry| vma.start.wrapping_sub(vma.pgoff);
    let name = format!("ipcns-shm-{}.img", task.ids.ipc_ns_id.unwrap_or(0));
    let segments: Vec<IpcShmEntry> = if vmas.is_empty() {
        Vec::new()
    } else {
        images.read(&name, Kind::IpcnsShm)?
    };
    for parts in vmas.chunk_by(|a, b| (a.shmid, base(a)) == (b.shmid, base(b))) {
        let (id, at) = (parts[0].shmid, base(parts[0]));
        let segment = segments.iter().find(|entry| u64::from(entry.desc.id) == id);
        let missing = || Error::because("read image", &name, format!("no segment {id}"));
        let size = segment.ok_or_else(missing)?.size.next_multiple_of(PAGE);
        let writable = |vma: &&VmaEntry| vma.prot & libc::PROT_WRITE as u32 != 0;
        let flags = if parts.iter().any(writable) {
            0
        } else {
            libc::SHM_RDONLY
        };
        let object = format!("shared memory {id} at {at:x}");
        tape.call("attach", &object, libc::SYS_shmat, &[id, at, flags as u64]);
        let mut free = at;
        for vma in parts {
            if vma.start > free {
                tape.call("cut", &object, libc::SYS_munmap, &[free, vma.start - free]);
            }
            let arguments = [vma.start, vma.end - vma.start, u64::from(vma.prot)];
            tape.call("protect", &object, libc::SYS_mprotect, &arguments);
            free = vma.end;
        }
        if free < at.saturating_add(size) {
            tape.call("cut", &object, libc::SYS_munmap, &[free, at + size - free]);
        }
    }
    Ok(())
}

fn finish_mapping(vma: &VmaEntry, holds_pages: bool, tape: &mut Tape) {
    let (start, length) = (vma.start, vma.end - vma.start);
    if holds_pages && vma.prot & libc::PROT_WRITE as u32 == 0 {
        let arguments = [start, length, u64::from(vma.prot)];
        tape.call(
            "protect",
            format_args!("{start:x}"),
            libc::SYS_mprotect,
            &arguments,
        );
    }
    let advice = vma.madv.unwrap_or(0);
    for value in (0..64).filter(|value| advice & (1 << value) != 0) {
        tape.call(
            "advise",
            format_args!("{start:x}"),
            libc::SYS_madvise,
            &[start, length, value],
        );
    }
    if vma.flags & libc::MAP_LOCKED as u32 != 0 {
        tape.call(
            "lock",
            format_args!("{start:x}"),
            libc::SYS_mlock,
            &[start, length],
        );
    }
}

/// The kernel brings its own vdso.
fn without_vdso(task: &Task, runs: &[Run]) -> Vec<Run> {
    let vdso = |run: &&Run| {
        let vmas = task.mm.vmas.iter().filter(|vma| !is_ordinary(vma));
        !vmas
            .into_iter()
            .any(|vma| vma.start <= run.address && run.address < vma.end)
    };
    runs.iter().filter(vdso).copied().collect()
}

fn read_pages(source: &PageSource, runs: &[Run], tape: &mut Tape, reads: &mut Vec<(usize, i64)>) {
    let fd = source.file.as_raw_fd() as u64;
    let mut at = 0;
    while at < runs.len() {
        let first = runs[at];
        let mut vectors = Vec::new();
        let mut bytes = 0;
        while let Some(run) = runs.get(at) {
            let full = vectors.len() == MAX_VECTORS * 16 || bytes + run.length > MAX_BYTES;
            if bytes > 0 && (full || run.offset != first.offset + bytes) {
                break;
            }
            vectors.extend_from_slice(&run.address.to_le_bytes());
            vectors.extend_from_slice(&run.length.to_le_bytes());
            bytes += run.length;
            at += 1;
        }
        let count = vectors.len() as u64 / 16;
        let vectors = tape.data(&vectors);
        let arguments = [fd, vectors, count, first.offset, 0];
        reads.push((tape.attempt(libc::SYS_preadv, &arguments), bytes as i64));
    }
}

/// `prctl(PR_SET_MM, PR_SET_MM_MAP)`: code, data, heap, stack, arguments, and the program's file.
fn set_layout(task: &Task, files: &mut Files<'_>, tape: &mut Tape) -> Result<()> {
    let mm = &task.mm;
    let vector: Vec<u8> = mm
        .mm_saved_auxv
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let vector_size = vector.len() as u32;
    let vector = tape.data(&vector);
    let exe = files.for_program(mm.exe_file_id)?;
    let mut map = Vec::new();
    for word in [
        mm.mm_start_code,
        mm.mm_end_code,
        mm.mm_start_data,
        mm.mm_end_data,
        mm.mm_start_brk,
        mm.mm_brk,
        mm.mm_start_stack,
        mm.mm_arg_start,
        mm.mm_arg_end,
        mm.mm_env_start,
        mm.mm_env_end,
        vector,
    ] {
        map.extend_from_slice(&word.to_le_bytes());
    }
    map.extend_from_slice(&vector_size.to_le_bytes());
    map.extend_from_slice(&(exe as u32).to_le_bytes());
    let size = map.len() as u64;
    let map = tape.data(&map);
    let arguments = [PR_SET_MM, PR_SET_MM_MAP, map, size, 0];
    tape.call(
        "set memory layout of process",
        task.pid,
        libc::SYS_prctl,
        &arguments,
    );
    if mm.thp_disabled.unwrap_or(false) {
        let arguments = [libc::PR_SET_THP_DISABLE as u64, 1, 0, 0, 0];
        tape.call(
            "disable huge pages of process",
            task.pid,
            libc::SYS_prctl,
            &arguments,
        );
    }
    Ok(())
}
