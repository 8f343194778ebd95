//! A directory of checkpoint images, in one file: name's length, name, content's length, content.
//!
//! The target holds if reading neither panics nor takes long, and an error is one short line.

use std::fmt::Display;

use checkpoint::image::Directory;
use checkpoint::image::Kind;
use checkpoint::image::file::{GhostChunkEntry, GhostFileEntry, PipeDataEntry};
use checkpoint::image::socket::{SkPacketEntry, TcpStreamEntry};

const MAX_FILES: usize = 64;

/// Unpacks the images and reads them all.
pub fn images(data: &[u8]) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut names = Vec::new();
    let mut rest = data;
    while let Some((name, content, tail)) = next(rest).filter(|_| names.len() < MAX_FILES) {
        rest = tail;
        let plain = name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte));
        let name = String::from_utf8_lossy(name).into_owned();
        if plain && !name.starts_with('.') && !name.is_empty() {
            std::fs::write(root.path().join(&name), content).expect("an image");
            names.push(name);
        }
    }
    let images = Directory::open(root.path().to_str().expect("a path")).expect("the directory");
    accepted(checkpoint::image::checksum::verify(&images));
    if let Some(summary) = accepted(checkpoint::summarize(&images)) {
        assert!(!summary.processes.is_empty());
    }
    for name in names {
        accepted(contents(&images, &name));
    }
}

/// One file: its name and content, and what follows.
fn next(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, rest) = data.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let (content, rest) = rest.split_at(length.min(rest.len()));
    Some((name, content, rest))
}

/// The images that a summary does not read: entries with raw bytes behind them.
fn contents(images: &Directory, name: &str) -> checkpoint::Result<()> {
    let stem = name.split(['-', '.']).next().unwrap_or_default();
    let kind = match stem {
        "ghost" => Kind::GhostFile,
        "tcp" => Kind::TcpStream,
        "sk" => Kind::SkQueues,
        "pipes" => Kind::PipesData,
        _ => return Ok(()),
    };
    let Some(mut reader) = images.reader(name, kind)? else {
        return Ok(());
    };
    if kind == Kind::GhostFile {
        reader.entry::<GhostFileEntry>()?;
    }
    loop {
        let length = match kind {
            Kind::GhostFile => reader.entry::<GhostChunkEntry>()?.map(|chunk| chunk.len),
            Kind::TcpStream => reader
                .entry::<TcpStreamEntry>()?
                .map(|stream| u64::from(stream.inq_len) + u64::from(stream.outq_len)),
            Kind::SkQueues => reader
                .entry::<SkPacketEntry>()?
                .map(|packet| packet.length.into()),
            _ => reader
                .entry::<PipeDataEntry>()?
                .map(|pipe| pipe.bytes.into()),
        };
        match length {
            Some(length) => reader.raw(length as usize)?,
            None => return Ok(()),
        };
    }
}

fn accepted<T, E: Display>(result: Result<T, E>) -> Option<T> {
    result
        .map_err(|error| {
            let text = error.to_string();
            assert!(
                !text.chars().any(char::is_control),
                "more than a line: {text:?}"
            );
            assert!(text.len() < 2000, "{} bytes", text.len());
        })
        .ok()
}
