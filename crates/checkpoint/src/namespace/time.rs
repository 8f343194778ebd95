//! The clocks of a time namespace, which run on from where they were.

use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags};
use rustix::time::ClockId;
use sys::namespace::Kind;

use crate::error::{Context, Result};
use crate::image::tree::{TimensEntry, Timespec};
use crate::image::{self, Directory};
use crate::inject::Injector;
use crate::procfs;

const NANOSECONDS: i128 = 1_000_000_000;

fn name(id: u32) -> String {
    format!("timens-{id}.img")
}

/// What the caller's clocks say.
pub(crate) fn dump(images: &Directory, id: u32) -> Result<()> {
    let clock = |id| {
        let now = rustix::time::clock_gettime(id);
        Timespec {
            tv_sec: now.tv_sec as u64,
            tv_nsec: now.tv_nsec as u64,
        }
    };
    let times = TimensEntry {
        monotonic: clock(ClockId::Monotonic),
        boottime: clock(ClockId::Boottime),
    };
    images.write(&name(id), image::Kind::Timens, &[times])
}

/// Moves a stub into a new time namespace whose clocks start where those of the image stopped.
pub(crate) fn restore(images: &Directory, id: u32, stub: &Injector) -> Result<()> {
    let times: TimensEntry = images.read_one(&name(id), image::Kind::Timens)?;
    let flag = Kind::Time.flag();
    stub.call(
        "make a time namespace for",
        libc::SYS_unshare,
        [flag, 0, 0, 0, 0, 0],
    )?;
    let own = std::fs::read_to_string(format!("{}/self/timens_offsets", procfs::root()));
    let own = own.unwrap_or_default();
    let mut offsets = String::new();
    for (key, clock, wanted) in [
        ("monotonic", ClockId::Monotonic, &times.monotonic),
        ("boottime", ClockId::Boottime, &times.boottime),
    ] {
        let now = rustix::time::clock_gettime(clock);
        let now = i128::from(now.tv_sec) * NANOSECONDS + i128::from(now.tv_nsec);
        let wanted = i128::from(wanted.tv_sec) * NANOSECONDS + i128::from(wanted.tv_nsec);
        let offset = wanted - now + own_offset(&own, key);
        let (seconds, rest) = (
            offset.div_euclid(NANOSECONDS),
            offset.rem_euclid(NANOSECONDS),
        );
        offsets.push_str(&format!("{key} {seconds} {rest}\n"));
    }
    let path = format!("{}/{}/timens_offsets", procfs::root(), stub.thread);
    std::fs::write(&path, offsets).during("write", &path)?;
    let path = format!("{}/{}/ns/time_for_children", procfs::root(), stub.thread);
    let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .during("open", &path)?;
    let fd = namespace.as_raw_fd() as u64;
    stub.call(
        "join the time namespace in",
        libc::SYS_setns,
        [fd, flag, 0, 0, 0, 0],
    )
    .map(drop)
}

/// `monotonic  SECONDS  NANOSECONDS`: how far the caller's own clock is from the machine's.
fn own_offset(text: &str, key: &str) -> i128 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let mut words = line.unwrap_or_default().split_whitespace();
    let mut number = || {
        words
            .next()
            .and_then(|word| word.parse::<i128>().ok())
            .unwrap_or(0)
    };
    number() * NANOSECONDS + number()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_offsets_as_the_kernel_prints_them() {
        let text = "monotonic         -2    500000000\nboottime        864000         0\n";
        assert_eq!(own_offset(text, "monotonic"), -1_500_000_000);
        assert_eq!(own_offset(text, "boottime"), 864_000 * NANOSECONDS);
        assert_eq!(own_offset("", "boottime"), 0);
    }
}
