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
    // Root's containers in user namespaces see ids shifted; their files are shifted on disk, in a
    // directory of their own.
    let shift = maps.filter(|_| !store.rootless).and_then(IdMaps::root);
    let (layers, name) = match shift {
        None => (store.state.join("layers"), digest.to_owned()),
        Some((uid, gid)) => (
            store.state.join("layers-shifted"),
            format!("{digest}-{uid}-{gid}"),
        ),
    };
    let directory = layers.join(&name);
    if directory.is_dir() {
        return Ok(directory);
    }
    if shift.is_some() {
        store::make_passable(&layers)?;
    } else {
        store::make_private(&layers)?;
    }
    let temporary = layers.join(format!("new-{}", &store::new_id()?[..16]));
    store::make_private(&temporary)?;
    let extracted = open_archive(archive).and_then(|reader| {
        let owner = match (store.rootless, shift) {
            (true, _) => extract::Owner::Caller,
            (false, shift) => extract::Owner::Archive(shift.unwrap_or((0, 0))),
        };
        extract::extract(reader, &temporary, &owner)
    });
    // Another command may have extracted the same layer meanwhile: then that one is used.
    let placed = extracted.and_then(|()| match std::fs::rename(&temporary, &directory) {
        Err(_) if directory.is_dir() => crate::command::rm::remove_tree(&temporary),
        other => other.with_context(|| format!("make `{}`", directory.display())),
    });
    if placed.is_err() {
        // The first error is the one to tell.
        let _ = crate::command::rm::remove_tree(&temporary);
    }
    placed.map(|()| directory)
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
