//! OCI image layouts: `index.json` → manifest → configuration and layers.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::{digest_of, layer};
use crate::plan::identity::IdMaps;
use crate::plan::process::ImageProcess;
use crate::store::Store;

/// An image made ready: its layers, the uppermost first, and what it says about its process.
pub(crate) type Image = (Vec<PathBuf>, ImageProcess);

/// Whether a directory is an image layout.
pub(crate) fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file() && path.join("index.json").is_file()
}

/// Opens an image of a layout and extracts those of its layers that are not there yet.
///
/// # Errors
/// No such image, a blob that is not what its digest says, or a layer that cannot be extracted.
pub(crate) fn open(
    store: &Store,
    path: &Path,
    tag: Option<&str>,
    maps: Option<&IdMaps>,
) -> Result<Image> {
    let index: Index = serde_json::from_slice(&small_file(&path.join("index.json"))?)
        .with_context(|| format!("read `{}`", path.join("index.json").display()))?;
    let mut chosen = choose(&index, tag)?.clone();
    // An index may name further indexes, one per platform.
    for _ in 0..4 {
        if !chosen.media_type.ends_with("index.v1+json")
            && !chosen.media_type.ends_with("manifest.list.v2+json")
        {
            break;
        }
        let nested: Index = read_blob(path, &chosen.digest)?;
        chosen = for_this_machine(&nested)?.clone();
    }
    let manifest: Manifest = read_blob(path, &chosen.digest)?;
    let config: Config = read_blob(path, &manifest.config.digest)?;
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for descriptor in manifest.layers.iter().rev() {
        let (file, digest) = open_blob(path, &descriptor.digest)?;
        layers.push(
            layer(store, file, &digest, maps)
                .with_context(|| format!("layer `{}`", descriptor.digest))?,
        );
    }
    if layers.is_empty() {
        bail!("the image has no layers");
    }
    Ok((layers, config.config.unwrap_or_default().into()))
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Config {
    config: Option<ProcessConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ProcessConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

impl From<ProcessConfig> for ImageProcess {
    fn from(config: ProcessConfig) -> Self {
        Self {
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            environment: config.env.unwrap_or_default(),
            directory: config.working_dir,
            user: config.user,
            stop_signal: config.stop_signal,
        }
    }
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The image of a tag; without one, the only one there is (for this machine).
fn choose<'a>(index: &'a Index, tag: Option<&str>) -> Result<&'a Descriptor> {
    let name = |descriptor: &'a Descriptor| descriptor.annotations.get(REF_NAME);
    if let Some(tag) = tag {
        let mut manifests = index.manifests.iter();
        return manifests
            .find(|descriptor| {
                name(descriptor)
                    .is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")))
            })
            .ok_or_else(|| anyhow!("--tag `{tag}`: the layout has {}", tags(index)));
    }
    match index.manifests.as_slice() {
        [] => bail!("the layout has no image"),
        [only] => Ok(only),
        several
            if several
                .iter()
                .all(|descriptor| descriptor.platform.is_some()) =>
        {
            for_this_machine(index)
        }
        _ => bail!(
            "the layout has several images\nchoose with --tag: {}",
            tags(index)
        ),
    }
}

fn tags(index: &Index) -> String {
    let names = index
        .manifests
        .iter()
        .filter_map(|entry| entry.annotations.get(REF_NAME));
    let names: Vec<String> = names.map(|name| crate::text::plain(name)).collect();
    if names.is_empty() {
        "no tags".to_owned()
    } else {
        names.join(", ")
    }
}

fn for_this_machine(index: &Index) -> Result<&Descriptor> {
    let own = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let fits = |descriptor: &&Descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_none_or(|p| p.os == "linux" && p.architecture == own)
    };
    index
        .manifests
        .iter()
        .find(fits)
        .ok_or_else(|| anyhow!("no image for linux/{own}"))
}

fn read_blob<T: serde::de::DeserializeOwned>(layout: &Path, digest: &str) -> Result<T> {
    let (file, _) = open_blob(layout, digest)?;
    let text = small(file).with_context(|| format!("read blob `{digest}`"))?;
    serde_json::from_slice(&text).with_context(|| format!("read blob `{digest}`"))
}

/// Opens a blob whose bytes are what its digest says; the digest's hexadecimal part.
fn open_blob(layout: &Path, digest: &str) -> Result<(File, String)> {
    let hex = digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| anyhow!("`{}` is not a sha256 digest", crate::text::plain(digest)))?;
    let path = layout.join("blobs/sha256").join(hex);
    let told = || format!("read `{}`", path.display());
    let mut file = File::open(&path).with_context(told)?;
    if digest_of(&mut file).with_context(told)? != hex.to_ascii_lowercase() {
        bail!("`{}` is not what its digest says", path.display());
    }
    Ok((file, hex.to_ascii_lowercase()))
}

fn small_file(path: &Path) -> Result<Vec<u8>> {
    let told = || format!("read `{}`", path.display());
    small(File::open(path).with_context(told)?).with_context(told)
}

/// Manifests are small; one that is not is no manifest.
fn small(file: File) -> Result<Vec<u8>> {
    use std::io::Read;
    const LIMIT: u64 = 4 << 20;
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LIMIT {
        bail!("larger than 4 MiB");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &[(&str, Option<&str>)]) -> Index {
        let manifests = entries.iter().map(|(tag, architecture)| Descriptor {
            media_type: String::new(),
            digest: (*tag).to_owned(),
            annotations: [(REF_NAME.to_owned(), (*tag).to_owned())].into(),
            platform: architecture.map(|a| Platform {
                architecture: a.to_owned(),
                os: "linux".to_owned(),
            }),
        });
        Index {
            manifests: manifests.collect(),
        }
    }

    #[test]
    fn images_are_chosen_by_tag_or_machine() {
        let two = index(&[("a:1", None), ("b:2", None)]);
        assert_eq!(choose(&two, Some("b:2")).unwrap().digest, "b:2");
        assert_eq!(choose(&two, Some("1")).unwrap().digest, "a:1");
        assert!(
            choose(&two, Some("3"))
                .unwrap_err()
                .to_string()
                .contains("a:1, b:2")
        );
        assert!(choose(&two, None).is_err());
        assert!(choose(&index(&[]), None).is_err());
        let own = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        let machines = index(&[("x", Some("s390x")), ("y", Some(own))]);
        assert_eq!(choose(&machines, None).unwrap().digest, "y");
    }

    #[test]
    fn digests_cannot_name_paths() {
        for digest in ["sha256:../../etc/passwd", "sha256:", "md5:00", "sha256:zz"] {
            assert!(open_blob(Path::new("/nowhere"), digest).is_err());
        }
    }
}
