//! Host name and domain name.

use crate::error::{Context, Result};
use crate::image::namespace::UtsnsEntry;
use crate::image::{Directory, Kind};
use crate::procfs;

fn name(id: u32) -> String {
    format!("utsns-{id}.img")
}

/// The names of the caller's namespace.
pub(crate) fn dump(images: &Directory, id: u32) -> Result<()> {
    let read = |key: &str| -> Result<String> {
        let path = format!("{}/sys/kernel/{key}", procfs::root());
        let text = std::fs::read_to_string(&path).during("read", &path)?;
        Ok(text.trim_end_matches('\n').to_owned())
    };
    let entry = UtsnsEntry {
        nodename: read("hostname")?,
        domainname: read("domainname")?,
    };
    images.write(&name(id), Kind::Utsns, &[entry])
}

/// Names the caller's namespace.
pub(crate) fn restore(images: &Directory, id: u32) -> Result<()> {
    let entry: UtsnsEntry = images.read_one(&name(id), Kind::Utsns)?;
    for (key, value) in [
        ("hostname", &entry.nodename),
        ("domainname", &entry.domainname),
    ] {
        let path = format!("{}/sys/kernel/{key}", procfs::root());
        std::fs::write(&path, value).during("write", &path)?;
    }
    Ok(())
}
