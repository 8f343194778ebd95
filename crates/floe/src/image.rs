//! Root file systems that come as files: tar archives and OCI image layouts.
//!
//! Each layer is extracted once, into a directory named by the digest of its bytes, and shared by
//! all containers as a lower directory. It appears under its name only when it is whole.

mod digest;
mod extract;
mod layout;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::plan::identity::IdMaps;
use crate::store::{self, Store};
use digest::Sha256;
use extract::Owner;
pub(crate) use layout::{is_layout, open as open_layout};

/// Extracts a tar archive, compressed or not, unless that has been done before; the directory.
///
/// # Errors
/// It cannot be read or is no archive.
pub(crate) fn archive_layer(store: &Store, path: &Path, maps: Option<&IdMaps>) -> Result<PathBuf> {
    let told = || format!("--rootfs: read `{}`", path.display());
    let mut file = File::open(path).with_context(told)?;
    let digest = digest_of(&mut file).with_context(told)?;
    layer(store, file, &digest, maps).with_context(told)
}

/// The digest of a file's bytes; the file is rewound.
fn digest_of(file: &mut File) -> Result<String> {
    let mut hash = Sha256::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(hash.finish())
}

/// The directory of an archive's layer, extracted now if it is not there.
fn layer(store: &Store, archive: File, digest: &str, maps: Option<&IdMaps>) -> Result<PathBuf> {
    let place = Place::of(store, maps);
    let layers = match &place {
        Place::Shifted(..) => store.state.join("layers-shifted"),
        Place::Plain | Place::Caller | Place::Mapped(_) => store.state.join("layers"),
    };
    let directory = layers.join(format!("{digest}{}", place.suffix()));
    if directory.is_dir() {
        return Ok(directory);
    }
    if matches!(place, Place::Shifted(..)) {
        store::make_passable(&layers)?;
    } else {
        store::make_private(&layers)?;
    }
    let temporary = layers.join(format!("new-{}", &store::new_id()?[..16]));
    store::make_private(&temporary)?;
    let extract_as = |owner: &Owner| extract::extract(open_archive(archive)?, &temporary, owner);
    let extracted = match place {
        Place::Plain => extract_as(&Owner::Archive((0, 0))),
        Place::Shifted(uid, gid) => extract_as(&Owner::Archive((uid, gid))),
        Place::Caller => extract_as(&Owner::Caller),
        Place::Mapped(maps) => crate::userns::run(maps, || extract_as(&Owner::Archive((0, 0)))),
    };
    // Another command may have extracted the same layer meanwhile: then that one is used.
    let placed = extracted.and_then(|()| match std::fs::rename(&temporary, &directory) {
        Err(_) if directory.is_dir() => remove(&temporary, maps),
        other => other.with_context(|| format!("make `{}`", directory.display())),
    });
    if placed.is_err() {
        // The first error is the one to tell.
        let _ = remove(&temporary, maps);
    }
    placed.map(|()| directory)
}

/// To whom a layer's files belong on disk; containers with other ids have layers of their own.
enum Place<'a> {
    /// To whom the archive says.
    Plain,
    /// Root's containers in user namespaces see ids shifted: so are the files.
    Shifted(u32, u32),
    /// All to the caller, who has no other ids.
    Caller,
    /// An ordinary user's container sees these ids: the files are made with them.
    Mapped(&'a IdMaps),
}

impl<'a> Place<'a> {
    fn of(store: &Store, maps: Option<&'a IdMaps>) -> Self {
        match maps {
            Some(maps) if store.rootless && crate::userns::has_other_ids(maps) => {
                Self::Mapped(maps)
            }
            _ if store.rootless => Self::Caller,
            _ => match maps.and_then(IdMaps::root) {
                Some((uid, gid)) => Self::Shifted(uid, gid),
                None => Self::Plain,
            },
        }
    }

    fn suffix(&self) -> String {
        match self {
            Self::Plain | Self::Caller => String::new(),
            Self::Shifted(uid, gid) => format!("-{uid}-{gid}"),
            Self::Mapped(maps) => {
                let ranges = maps.uids.iter().chain(&maps.gids);
                ranges
                    .map(|r| format!("-{}.{}.{}", r.inside, r.outside, r.count))
                    .collect()
            }
        }
    }
}

fn remove(directory: &Path, maps: Option<&IdMaps>) -> Result<()> {
    match (crate::command::rm::remove_tree(directory), maps) {
        (Err(_), Some(maps)) if crate::userns::has_other_ids(maps) => {
            crate::userns::run(maps, || crate::command::rm::remove_tree(directory))
        }
        (removed, _) => removed,
    }
}

/// Unpacks by the first bytes: gzip, zstd or plain.
fn open_archive(mut file: File) -> Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let mut length = 0;
    while length < magic.len() {
        match file.read(&mut magic[length..])? {
            0 => break,
            more => length += more,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    let reader = BufReader::with_capacity(1 << 16, file);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(reader);
            Box::new(decoder.map_err(|error| anyhow::anyhow!("read zstd header: {error}"))?)
        }
        [0xfd, b'7', b'z', b'X'] => bail!("xz archives are not read\nunpack it: xz -d"),
        [b'B', b'Z', b'h', _] => bail!("bzip2 archives are not read\nunpack it: bzip2 -d"),
        _ => Box::new(reader),
    })
}
