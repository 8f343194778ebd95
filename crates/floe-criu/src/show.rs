//! `show`: what is in images, as JSON for `floe checkpoint show`.

use anyhow::Result;
use checkpoint::image::core::CoreEntry;
use checkpoint::image::file::{FdTypes, FileEntry};
use checkpoint::image::memory::{PagemapEntry, PagemapHead};
use checkpoint::image::socket::InetSkEntry;
use checkpoint::image::tree::{PstreeEntry, StatsEntry};
use checkpoint::image::{Directory, Kind};
use serde_json::{Value, json};

const PAGE: u64 = 4096;

/// Everything that is told of the images.
pub(crate) fn summary(images: &Directory) -> Result<Value> {
    let tree: Vec<PstreeEntry> = images.read("pstree.img", Kind::Pstree)?;
    let processes = tree.iter().map(|entry| process(images, entry));
    let processes = processes.collect::<Result<Vec<Value>>>()?;
    let files: Vec<FileEntry> = images.read("files.img", Kind::Files)?;
    let stats: Vec<StatsEntry> = images.read("stats-dump", Kind::Stats)?;
    let stats = stats.into_iter().find_map(|entry| entry.dump);
    Ok(json!({
        "processes": processes,
        "files": files.iter().map(file).collect::<Vec<Value>>(),
        "freezingMicroseconds": stats.as_ref().map(|stats| stats.freezing_time),
        "frozenMicroseconds": stats.as_ref().map(|stats| stats.frozen_time),
        "pages": stats.as_ref().map(|stats| stats.pages_written),
    }))
}

fn process(images: &Directory, entry: &PstreeEntry) -> Result<Value> {
    let cores: Vec<CoreEntry> = images.read(&format!("core-{}.img", entry.pid), Kind::Core)?;
    let name = cores.first().and_then(|core| core.tc.as_ref());
    Ok(json!({
        "pid": entry.pid,
        "ppid": entry.ppid,
        "session": entry.sid,
        "group": entry.pgid,
        "threads": entry.threads.len(),
        "name": name.map_or("", |task| task.comm.as_str()),
        "memoryBytes": memory(images, entry.pid)?,
    }))
}

/// The bytes of memory that are in the images; a process that was dead has none.
fn memory(images: &Directory, pid: u32) -> Result<u64> {
    let Some(mut reader) = images.reader(&format!("pagemap-{pid}.img"), Kind::Pagemap)? else {
        return Ok(0);
    };
    let _head: Option<PagemapHead> = reader.entry()?;
    let mut pages: u64 = 0;
    while let Some(entry) = reader.entry::<PagemapEntry>()? {
        let count = entry.nr_pages.unwrap_or(entry.compat_nr_pages.into());
        pages = pages.saturating_add(count);
    }
    Ok(pages.saturating_mul(PAGE))
}

fn file(entry: &FileEntry) -> Value {
    let kind = FdTypes::try_from(entry.r#type).unwrap_or(FdTypes::Und);
    let (kind, name) = match kind {
        FdTypes::Reg => ("file", entry.reg.as_ref().map(|file| file.name.clone())),
        FdTypes::Pipe => (
            "pipe",
            entry.pipe.as_ref().map(|pipe| pipe.pipe_id.to_string()),
        ),
        FdTypes::Fifo => ("fifo", None),
        FdTypes::Inetsk => ("socket", entry.isk.as_ref().map(addresses)),
        FdTypes::Unixsk => (
            "unix socket",
            entry.usk.as_ref().map(|socket| path(&socket.name)),
        ),
        FdTypes::Netlinksk => ("netlink socket", None),
        FdTypes::Packetsk => ("packet socket", None),
        FdTypes::Eventfd => ("eventfd", None),
        FdTypes::Eventpoll => ("epoll", None),
        FdTypes::Inotify => ("inotify", None),
        FdTypes::Fanotify => ("fanotify", None),
        FdTypes::Signalfd => ("signalfd", None),
        FdTypes::Timerfd => ("timerfd", None),
        FdTypes::Tty | FdTypes::CtlTty => ("terminal", None),
        FdTypes::Memfd => ("memfd", None),
        FdTypes::Pidfd => ("pidfd", None),
        FdTypes::Ns => ("namespace", None),
        FdTypes::Tunf => ("tun", None),
        FdTypes::Und | FdTypes::Ext | FdTypes::Bpfmap | FdTypes::AutofsPipe => ("other", None),
    };
    json!({"id": entry.id, "kind": kind, "name": name.unwrap_or_default()})
}

/// A path, or `@` and a name without one.
fn path(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name).replace('\0', "@");
    text.strip_suffix('@').map_or(text.clone(), str::to_owned)
}

fn addresses(socket: &InetSkEntry) -> String {
    let one = |words: &[u32], port: u32| format!("{}:{port}", address(words));
    let local = one(&socket.src_addr, socket.src_port);
    if socket.dst_port == 0 {
        return local;
    }
    format!("{local} -> {}", one(&socket.dst_addr, socket.dst_port))
}

/// One word is IPv4, four are IPv6; each as it lies in memory.
fn address(words: &[u32]) -> String {
    match words {
        [word] => std::net::Ipv4Addr::from(word.to_ne_bytes()).to_string(),
        [first, second, third, fourth] => {
            let mut bytes = [0; 16];
            for (place, word) in bytes
                .chunks_exact_mut(4)
                .zip([first, second, third, fourth])
            {
                place.copy_from_slice(&word.to_ne_bytes());
            }
            format!("[{}]", std::net::Ipv6Addr::from(bytes))
        }
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_people_write_them() {
        assert_eq!(address(&[u32::from_ne_bytes([127, 0, 0, 1])]), "127.0.0.1");
        let mut words = [0; 4];
        words[3] = u32::from_ne_bytes([0, 0, 0, 1]);
        assert_eq!(address(&words), "[::1]");
        assert_eq!(address(&[]), "?");
        assert_eq!(path(b"/run/x\0"), "/run/x");
        assert_eq!(path(b"\0abstract"), "@abstract");
    }
}
