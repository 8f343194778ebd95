//! The container's log on disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use monitor::clock::Moment;
use monitor::log::{Stream, format};

/// An append-only log of bounded size: `log`, `log.1`, …
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    old_files: u32,
    /// Reused for each piece of output.
    text: Vec<u8>,
}

impl Log {
    pub(super) fn open(path: PathBuf, limit: u64, old_files: u32) -> io::Result<Self> {
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            size,
            limit,
            old_files,
            text: Vec::new(),
        })
    }

    /// Writes a piece of output. A full disk must not stop the container, so the caller may
    /// ignore the error.
    pub(super) fn write(&mut self, stream: Stream, data: &[u8]) -> io::Result<()> {
        let time = Moment::now().to_string();
        self.text.clear();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let before = self.text.len();
            format(&mut self.text, &time, stream, piece);
            if self.size + self.text.len() as u64 > self.limit && self.size + before as u64 > 0 {
                self.file.write_all(&self.text[..before])?;
                self.text.drain(..before);
                self.rotate()?;
            }
        }
        self.file.write_all(&self.text)?;
        self.size += self.text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.old_files).rev() {
            // Gaps are normal while the log is young.
            let _ = std::fs::rename(
                numbered(&self.path, number),
                numbered(&self.path, number + 1),
            );
        }
        if self.old_files == 0 {
            std::fs::remove_file(&self.path)?;
        } else {
            std::fs::rename(&self.path, numbered(&self.path, 1))?;
        }
        self.file = append(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_rotated_and_old_ones_are_dropped() {
        let directory = std::env::temp_dir().join(format!("floed-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        let mut log = Log::open(path.clone(), 100, 2).unwrap();
        for number in 0..8 {
            log.write(
                Stream::Output,
                format!("line {number} {}\n", "x".repeat(30)).as_bytes(),
            )
            .unwrap();
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert!(read(&path).contains("line 7"));
        assert!(read(&numbered(&path, 1)).contains("line 6"));
        assert!(read(&numbered(&path, 2)).contains("line 5"));
        assert!(!numbered(&path, 3).exists());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
