//! What lies outside of the tree: mounts, namespaces and descriptors of the caller.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use checkpoint::{External, NamespaceKind, Place};

use crate::options::Options;

/// Everything that `--external` and `--ext-mount-map` name at a dump.
pub(crate) fn external(options: &Options) -> Result<Vec<External>> {
    let mut all = Vec::new();
    for text in options.values("external") {
        let parsed = External::parse(text)
            .with_context(|| format!("read options: `--external {text}`: unknown form"))?;
        all.push(parsed);
    }
    for text in options.values("ext-mount-map") {
        all.push(match text.split_once(':') {
            _ if text == "auto" => External::AnyMount,
            Some((path, key)) => External::Mount {
                path: path.to_owned(),
                key: key.to_owned(),
            },
            None => bail!("read options: `--ext-mount-map {text}`: unknown form"),
        });
    }
    Ok(all)
}

/// What a restore mounts for each key.
pub(crate) fn mounts(options: &Options) -> Vec<(String, Place)> {
    let named = options.values("external").filter_map(|text| {
        let (key, path) = text.strip_prefix("mnt[")?.split_once("]:")?;
        Some((key, path))
    });
    let mapped = options
        .values("ext-mount-map")
        .filter_map(|text| text.split_once(':'));
    named
        .chain(mapped)
        .map(|(key, path)| (key.to_owned(), Place::Path(PathBuf::from(path))))
        .collect()
}

/// Network devices whose other end is the caller's.
pub(crate) fn devices(options: &Options) -> Vec<External> {
    let named = options.values("external").filter_map(External::parse);
    named
        .filter(|external| matches!(external, External::NetworkDevice { .. }))
        .collect()
}

/// `--empty-ns net`.
pub(crate) fn empty_network(options: &Options) -> bool {
    options.values("empty-ns").any(|kind| kind == "net")
}

/// `--join-ns KIND:PID` or `KIND:FILE`.
pub(crate) fn join(options: &Options) -> Result<Vec<(NamespaceKind, OwnedFd)>> {
    let mut all = Vec::new();
    for text in options.values("join-ns") {
        let (name, place) = text
            .split_once(':')
            .with_context(|| format!("read options: `--join-ns {text}`: unknown form"))?;
        let kind = NamespaceKind::ALL
            .into_iter()
            .find(|kind| kind.file() == name)
            .with_context(|| format!("read options: `--join-ns {text}`: unknown kind"))?;
        let place = place.split(',').next().unwrap_or_default();
        let path = if place.chars().all(|c| c.is_ascii_digit()) {
            format!("/proc/{place}/ns/{name}")
        } else {
            place.to_owned()
        };
        let file = File::open(&path).with_context(|| format!("open `{path}`"))?;
        all.push((kind, file.into()));
    }
    Ok(all)
}

/// `--inherit-fd fd[N]:KEY`.
pub(crate) fn inherit(options: &Options) -> Result<Vec<(String, OwnedFd)>> {
    let mut all = Vec::new();
    // One descriptor may stand in for several files.
    let mut adopted: HashMap<i32, OwnedFd> = HashMap::new();
    for text in options.values("inherit-fd") {
        let parsed = text
            .strip_prefix("fd[")
            .and_then(|rest| rest.split_once("]:"))
            .and_then(|(number, key)| Some((number.parse::<i32>().ok()?, key)));
        let (number, key) =
            parsed.with_context(|| format!("read options: `--inherit-fd {text}`: unknown form"))?;
        let path = format!("/proc/self/fd/{number}");
        if std::fs::symlink_metadata(&path).is_err() {
            bail!("read options: `--inherit-fd {text}`: no such descriptor is open");
        }
        let known = match adopted.entry(number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(
                sys::fd::adopt(number).with_context(|| format!("take descriptor {number}"))?,
            ),
        };
        let fd = known
            .try_clone()
            .with_context(|| format!("duplicate descriptor {number}"))?;
        all.push((key.to_owned(), fd));
    }
    Ok(all)
}
