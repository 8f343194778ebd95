//! Texts that a v2 group keeps and the kernel does not understand: extended attributes, which go
//! with the group and which nobody below it can write. A value has at most 64 KiB, so a long text
//! is in several.

use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use sys::Errno;

use crate::error::{Error, Result};

const PIECE: usize = 60_000;
const MOST_PIECES: usize = 1000;

/// The text of a key; `None` if the group keeps none, or the caller may not see it.
pub(super) fn read(group: &Path, key: &str) -> Option<String> {
    let mut text = Vec::new();
    let mut piece = vec![0; PIECE];
    for number in 0..MOST_PIECES {
        let Ok(length) = getxattr(group, &*name(key, number), &mut piece[..]) else {
            break;
        };
        text.extend_from_slice(piece.get(..length)?);
        if length < PIECE {
            break;
        }
    }
    String::from_utf8(text).ok().filter(|text| !text.is_empty())
}

/// Keeps a text in the place of an earlier one. While this runs, and if it is cut short, the group
/// keeps a text that is neither: its maker has the former one in its journal.
pub(super) fn write(group: &Path, key: &str, text: &str) -> Result<()> {
    let fails = |errno| Error::kernel("keep text with", group, errno);
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(PIECE).collect();
    if pieces.len() > MOST_PIECES {
        return Err(fails(Errno::TOOBIG));
    }
    for (number, piece) in pieces.iter().enumerate() {
        setxattr(group, &*name(key, number), piece, XattrFlags::empty()).map_err(fails)?;
    }
    for number in pieces.len()..MOST_PIECES {
        match removexattr(group, &*name(key, number)) {
            Ok(()) => {}
            Err(Errno::NODATA) => break,
            Err(errno) => return Err(fails(errno)),
        }
    }
    Ok(())
}

fn name(key: &str, number: usize) -> String {
    format!("trusted.floe.{key}.{number}")
}
