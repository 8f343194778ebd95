//! `floe-checksums.img`: the size and a checksum of every image of a dump. CRIU does not look at it.
//!
//! It finds images that were cut or damaged, before anything is made of them. It is no signature:
//! whoever can write the images can write it, too.

use std::collections::BTreeMap;
use std::io::Read;

use super::{Directory, Kind};
use crate::error::{Context, Error, Result};

pub(crate) const NAME: &str = "floe-checksums.img";
const LANES: usize = 8;
const BLOCK: usize = LANES * 8;
const BUFFER: usize = 1 << 20;
/// Odd, so that a multiplication loses nothing; its bits are those of the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChecksumEntry {
    #[prost(string, required, tag = "1")]
    pub name: String,
    #[prost(uint64, required, tag = "2")]
    pub size: u64,
    #[prost(fixed64, required, tag = "3")]
    pub sum: u64,
}

/// How many entries follow, and the checksum of all their fields.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChecksumHead {
    #[prost(uint32, required, tag = "1")]
    pub count: u32,
    #[prost(fixed64, required, tag = "2")]
    pub sum: u64,
}

/// A checksum in the making: eight lanes that words are mixed into in turn.
///
/// Every step can be undone, so a single changed bit always changes the result.
#[derive(Clone, Debug)]
pub struct Checksum {
    lanes: [u64; LANES],
    rest: Vec<u8>,
    length: u64,
}

impl Default for Checksum {
    fn default() -> Self {
        Self {
            lanes: std::array::from_fn(|lane| (lane as u64 + 1).wrapping_mul(MULTIPLIER)),
            rest: Vec::with_capacity(BLOCK),
            length: 0,
        }
    }
}

fn mix(lane: u64, word: u64) -> u64 {
    (lane ^ word).wrapping_mul(MULTIPLIER).rotate_left(29)
}

impl Checksum {
    /// Adds the next bytes of the file.
    pub fn add(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.rest.is_empty() {
            let part = bytes.len().min(BLOCK - self.rest.len());
            self.rest.extend_from_slice(&bytes[..part]);
            bytes = &bytes[part..];
            if self.rest.len() < BLOCK {
                return;
            }
            let block = std::mem::take(&mut self.rest);
            self.blocks(&block);
        }
        let whole = bytes.len() / BLOCK * BLOCK;
        self.blocks(&bytes[..whole]);
        self.rest.extend_from_slice(&bytes[whole..]);
    }

    fn blocks(&mut self, bytes: &[u8]) {
        let mut lanes = self.lanes;
        for block in bytes.as_chunks::<BLOCK>().0 {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                *lane = mix(*lane, u64::from_le_bytes(*word));
            }
        }
        self.lanes = lanes;
    }

    /// The checksum of all that was added.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        self.rest.resize(self.rest.len().next_multiple_of(BLOCK), 0);
        let rest = std::mem::take(&mut self.rest);
        self.blocks(&rest);
        let sum = self
            .lanes
            .iter()
            .fold(self.length, |sum, lane| mix(sum, *lane));
        sum ^ (sum >> 32)
    }
}

/// What a dump has written so far.
pub(crate) type Written = BTreeMap<String, (u64, u64)>;

fn head_of(entries: &[ChecksumEntry]) -> ChecksumHead {
    let mut sum = Checksum::default();
    for entry in entries {
        sum.add(entry.name.as_bytes());
        sum.add(&entry.size.to_le_bytes());
        sum.add(&entry.sum.to_le_bytes());
    }
    ChecksumHead {
        count: entries.len() as u32,
        sum: sum.finish(),
    }
}

/// Writes the file for all images that `written` names.
pub(crate) fn save(images: &Directory, written: Written) -> Result<()> {
    let entry = |(name, (size, sum))| ChecksumEntry { name, size, sum };
    let entries: Vec<ChecksumEntry> = written.into_iter().map(entry).collect();
    let mut writer = super::Writer::new(NAME, Kind::Checksums);
    writer.entry(&head_of(&entries));
    entries.iter().for_each(|entry| writer.entry(entry));
    writer.save(images)
}

/// Compares all images with what their dump wrote; images without such a file are believed.
///
/// # Errors
/// The first image that is missing, shorter, longer or different.
pub fn verify(images: &Directory) -> Result<()> {
    for entry in load(images)? {
        let about = |cause: String| Error::because("read image", &entry.name, cause);
        let plain = !entry.name.contains('/');
        let file = images.open_raw(&entry.name)?.filter(|_| plain);
        let mut file = file.ok_or_else(|| about("it is missing".to_owned()))?;
        let size = file.metadata().during("read image", &entry.name)?.len();
        if size != entry.size {
            let cause = format!("it has {size} bytes, the dump wrote {}", entry.size);
            return Err(about(cause));
        }
        let mut sum = Checksum::default();
        let mut bytes = vec![0; BUFFER.min(size as usize)];
        let mut left = size;
        while left > 0 {
            let part = left.min(BUFFER as u64) as usize;
            file.read_exact(&mut bytes[..part])
                .during("read image", &entry.name)?;
            sum.add(&bytes[..part]);
            left -= part as u64;
        }
        if sum.finish() != entry.sum {
            return Err(about("it is not what the dump wrote".to_owned()));
        }
    }
    Ok(())
}

fn load(images: &Directory) -> Result<Vec<ChecksumEntry>> {
    let Some(mut reader) = images.reader(NAME, Kind::Checksums)? else {
        return Ok(Vec::new());
    };
    let damaged = || Error::because("read image", NAME, "it is damaged");
    let head: ChecksumHead = reader.entry()?.ok_or_else(damaged)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.entry()? {
        entries.push(entry);
    }
    if head_of(&entries) != head {
        return Err(damaged());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let mut sum = Checksum::default();
        sum.add(bytes);
        sum.finish()
    }

    #[test]
    fn pieces_do_not_matter() {
        let bytes: Vec<u8> = (0..1000_u32).map(|at| (at * 7) as u8).collect();
        for piece in [1, 3, 63, 64, 65, 200, 999] {
            let mut sum = Checksum::default();
            bytes.chunks(piece).for_each(|part| sum.add(part));
            assert_eq!(sum.finish(), of(&bytes), "pieces of {piece}");
        }
    }

    #[test]
    fn every_bit_and_every_length_matters() {
        let bytes = vec![0_u8; 200];
        let whole = of(&bytes);
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_ne!(of(&changed), whole, "bit {at}");
        }
        for length in 0..bytes.len() {
            assert_ne!(of(&bytes[..length]), whole, "{length} bytes");
        }
    }
}
