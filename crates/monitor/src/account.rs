//! What containers and groups used, kept after their end: a file of JSON lines in the durable
//! directory, to which every command and monitor appends.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::clock::Moment;
use crate::events::quote;

/// The file's name in the durable directory; `account.1` is the one before it.
pub const ACCOUNT: &str = "account";

/// The file is begun anew when it has this size; the old one is kept, and the one before that is
/// not: 16 MiB are some sixty thousand entries.
const LIMIT: u64 = 8 * 1024 * 1024;

/// One run of a container, or one group from its making to its removal.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// `container` or `group`.
    pub kind: &'a str,
    pub name: &'a str,
    pub id: &'a str,
    /// The group's path from the root of the hierarchies: what is below it is counted in it.
    pub path: &'a str,
    pub user: u32,
    /// RFC 3339.
    pub started: &'a str,
    /// What was used of each.
    pub numbers: &'a [(&'static str, u64)],
}

/// Appends an entry that ends now.
///
/// # Errors
/// Those of opening, locking and writing the file.
pub fn append(path: &Path, entry: &Entry<'_>) -> io::Result<()> {
    let mut file = open_locked(path)?;
    if file.metadata()?.len() > LIMIT {
        std::fs::rename(path, path.with_extension("1"))?;
        file = open_locked(path)?;
    }
    file.write_all(line(entry, &Moment::now().to_string()).as_bytes())
}

/// The file, locked. Somebody else may have begun a new one before we had the lock.
fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        if std::fs::metadata(path)
            .is_ok_and(|named| file.metadata().is_ok_and(|ours| ours.ino() == named.ino()))
        {
            return Ok(file);
        }
    }
}

fn line(entry: &Entry<'_>, ended: &str) -> String {
    let mut line = String::from("{");
    for (key, value) in [
        ("kind", entry.kind),
        ("name", entry.name),
        ("id", entry.id),
        ("path", entry.path),
        ("started", entry.started),
        ("ended", ended),
    ] {
        quote(&mut line, key);
        line.push(':');
        quote(&mut line, value);
        line.push(',');
    }
    line.push_str(&format!("\"user\":{}", entry.user));
    for (key, number) in entry.numbers {
        line.push_str(&format!(",\"{key}\":{number}"));
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line() {
        let entry = Entry {
            kind: "container",
            name: "a\"b\n",
            id: "7",
            path: "/floe/7",
            user: 1000,
            started: "s",
            numbers: &[("cpuNanoseconds", 5), ("readBytes", 0)],
        };
        let expected = "{\"kind\":\"container\",\"name\":\"a\\\"b\\u000a\",\"id\":\"7\",\
                        \"path\":\"/floe/7\",\"started\":\"s\",\"ended\":\"e\",\"user\":1000,\
                        \"cpuNanoseconds\":5,\"readBytes\":0}\n";
        assert_eq!(line(&entry, "e"), expected);
    }

    #[test]
    fn a_full_file_is_kept_once() {
        let directory = std::env::temp_dir().join(format!("floe-account-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(ACCOUNT);
        let full = vec![b'x'; usize::try_from(LIMIT).unwrap() + 1];
        std::fs::write(&path, full).unwrap();
        let entry = Entry {
            kind: "group",
            name: "g",
            id: "1",
            path: "/g",
            user: 0,
            started: "",
            numbers: &[],
        };
        append(&path, &entry).unwrap();
        append(&path, &entry).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert!(directory.join("account.1").exists());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
