//! `floe logs`

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use monitor::clock::Moment;
use monitor::log::{Line, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use crate::output::{self, Format};
use crate::store::Store;
use crate::store::container::Container;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    /// Only what is younger than a time (2026-11-22T03:04:05Z) or a span (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what is older
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Name or id; on a terminal, escape sequences other than colours are shown and not obeyed
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let container = store.find(&flags.container)?;
    let path = container.dir.join("log");
    let selection = Selection {
        since: flags.since.as_deref().map(moment).transpose()?,
        until: flags.until.as_deref().map(moment).transpose()?,
    };
    // Watched before it is read, so that nothing written in between is missed.
    let watch = flags.follow.then(|| watch(&container.dir)).transpose()?;
    let mut text = Vec::new();
    for old in old_logs(&path) {
        // It may have been rotated away just now.
        if let Ok(bytes) = std::fs::read(old) {
            text.extend_from_slice(&bytes);
        }
    }
    let mut file = match File::open(&path) {
        Ok(file) => file,
        // Nothing ever ran.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).context(format!("open `{}`", path.display())),
    };
    file.read_to_end(&mut text)
        .with_context(|| format!("read `{}`", path.display()))?;
    // A line that is being written is left for the next round.
    let whole = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let mut rest = text.split_off(whole);
    let lines: Vec<Line<'_>> = text
        .split(|byte| *byte == b'\n')
        .filter_map(Line::parse)
        .filter(|l| selection.has(l))
        .collect();
    let skip = flags.tail.map_or(0, |tail| skip_to_tail(&lines, tail));
    for line in &lines[skip..] {
        show(line, flags)?;
    }
    let Some(watch) = watch else { return Ok(0) };
    loop {
        let ended = !container.is_held() || has_ended(&container, &store);
        let length = file.read_to_end(&mut rest).context("read log")?;
        let whole = rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        for line in rest[..whole]
            .split(|byte| *byte == b'\n')
            .filter_map(Line::parse)
        {
            if selection.has(&line) {
                show(&line, flags)?;
            }
        }
        rest.drain(..whole);
        if length > 0 {
            continue;
        }
        if is_rotated(&file, &path) {
            if let Ok(new) = File::open(&path) {
                file = new;
            }
            continue;
        }
        if ended {
            return Ok(0);
        }
        wait(&watch)?;
    }
}

/// A point of time, or a span back from now.
pub(super) fn moment(text: &str) -> Result<Moment> {
    if let Some(moment) = Moment::parse(text) {
        return Ok(moment);
    }
    if let Ok(seconds) = text.parse::<i64>()
        && seconds > 1_000_000_000
    {
        return Ok(Moment(i128::from(seconds) * 1_000_000_000));
    }
    let back = crate::parse::nanoseconds(text)?;
    Ok(Moment(Moment::now().0 - i128::from(back)))
}

struct Selection {
    since: Option<Moment>,
    until: Option<Moment>,
}

impl Selection {
    fn has(&self, line: &Line<'_>) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        Moment::parse(line.time).is_some_and(|time| {
            self.since.is_none_or(|since| time >= since)
                && self.until.is_none_or(|until| time < until)
        })
    }
}

/// How many entries to leave out so that `tail` whole lines are left.
fn skip_to_tail(lines: &[Line<'_>], tail: usize) -> usize {
    let mut left = tail;
    let mut index = lines.len();
    while index > 0 {
        // A piece belongs to the line that ends after it; the last may have no end.
        if lines[index - 1].full || index == lines.len() {
            if left == 0 {
                break;
            }
            left -= 1;
        }
        index -= 1;
    }
    index
}

fn show(line: &Line<'_>, flags: &Flags) -> Result<()> {
    if flags.format == Format::Json {
        let stream = if line.stream == Stream::Output {
            "stdout"
        } else {
            "stderr"
        };
        let value = serde_json::json!({
            "time": line.time, "stream": stream, "log": String::from_utf8_lossy(line.data),
            "full": line.full,
        });
        return output::json_line(&value);
    }
    let mut bytes = Vec::with_capacity(line.data.len() + 40);
    if flags.timestamps {
        bytes.extend_from_slice(line.time.as_bytes());
        bytes.push(b' ');
    }
    // A program may colour what it writes; the reader's terminal is not its own, which it might
    // make to type or to lie.
    let is_terminal = match line.stream {
        Stream::Output => std::io::stdout().is_terminal(),
        Stream::Errors => std::io::stderr().is_terminal(),
    };
    if is_terminal {
        bytes.extend_from_slice(&monitor::text::shown(line.data));
    } else {
        bytes.extend_from_slice(line.data);
    }
    if line.full {
        bytes.push(b'\n');
    }
    match line.stream {
        Stream::Output => output::raw(&bytes),
        Stream::Errors => {
            let mut errors = std::io::stderr().lock();
            errors.write_all(&bytes).context("write output")
        }
    }
}

/// The rotated logs, the oldest first.
fn old_logs(path: &Path) -> Vec<PathBuf> {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let mut logs: Vec<PathBuf> = (1..).map(name).take_while(|path| path.exists()).collect();
    logs.reverse();
    logs
}

fn is_rotated(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() != named.ino(),
        _ => false,
    }
}

fn has_ended(container: &Container, store: &Store) -> bool {
    container
        .state(store)
        .map_or(true, |state| !state.word.is_live())
}

fn watch(directory: &Path) -> Result<std::os::fd::OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .context("watch log")?;
    let wanted =
        inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&fd, directory, wanted).context("watch log")?;
    Ok(fd)
}

/// Until the directory changes; a monitor that was killed changes nothing, hence the limit.
fn wait(watch: &std::os::fd::OwnedFd) -> Result<()> {
    let second = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(watch, PollFlags::IN)];
    match poll(&mut fds, Some(&second)) {
        Ok(_) | Err(sys::Errno::INTR) => {}
        Err(errno) => return Err(errno).context("wait for output"),
    }
    let mut events = [0_u8; 4096];
    // What exactly changed does not matter.
    while rustix::io::read(watch, &mut events).is_ok_and(|length| length > 0) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_counts_whole_lines() {
        let line = |full| Line {
            time: "t",
            stream: Stream::Output,
            full,
            data: b"x",
        };
        let lines = [line(true), line(false), line(true), line(true), line(false)];
        for (tail, skip) in [(0, 5), (1, 4), (2, 3), (3, 1), (4, 0), (9, 0)] {
            assert_eq!(skip_to_tail(&lines, tail), skip, "tail {tail}");
        }
    }
}
