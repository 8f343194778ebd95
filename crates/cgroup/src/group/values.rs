//! Values of the vocabulary in a group: thin application of [`crate::vocabulary`].

use std::path::Path;

use super::{Directory, Group, kept_text};
use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::file;
use crate::net::{Hook, Policy};
use crate::plan::{Place, Write};
use crate::vocabulary::{self, Assignment, Key, Reading, Step};

impl Group {
    /// Decides how to carry out assignments, and how to take them back.
    ///
    /// # Errors
    /// As [`vocabulary::plan`].
    pub fn plan_values(&self, assignments: &[Assignment]) -> Result<Vec<Step>> {
        let steps = vocabulary::plan(&self.places(), assignments, &|level, place, file| {
            self.text(level, place, file)
        });
        steps.map_err(|error| self.explain(error))
    }

    /// Carries out steps. One that the kernel refuses takes back those before it.
    ///
    /// # Errors
    /// The kernel refuses a value.
    pub fn carry_out_all(&self, steps: &[Step]) -> Result<()> {
        for (index, step) in steps.iter().enumerate() {
            if let Err(error) = self.carry_out_step(&step.write) {
                // The error that brought us here is the one to report.
                let _ = self.take_back(&steps[..index]);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes the former values, the last step's first. Goes on after an error and reports all.
    ///
    /// # Errors
    /// The kernel refuses a value that it had before.
    pub fn take_back(&self, steps: &[Step]) -> Result<()> {
        let back = |step: &Step| {
            let value = step.former.clone()?;
            let write = Write {
                value,
                ..step.write.clone()
            };
            // What is gone meanwhile has no former value.
            match self.carry_out_step(&write) {
                Err(error) if error.errno() != Some(sys::Errno::NOENT) => Some(error),
                _ => None,
            }
        };
        Error::all(steps.iter().rev().filter_map(back).collect())
    }

    fn carry_out_step(&self, write: &Write) -> Result<()> {
        match (&*write.file, &*write.value) {
            ("freezer.state", "FROZEN") | ("cgroup.freeze", "1") => self.freeze(),
            ("freezer.state", "THAWED") | ("cgroup.freeze", "0") => self.thaw(),
            (file, "\n") if file.starts_with("cpuset.") => match self.carry_out(write) {
                // Some kernels (seen on 6.1): a group with processes does not give up its list for nothing.
                Err(error) if error.errno() == Some(sys::Errno::NOSPC) => {
                    let all = self.text(1, write.place, &format!("{file}.effective"));
                    let value = all.unwrap_or_default().trim_ascii().to_owned();
                    self.carry_out(&Write {
                        value,
                        ..write.clone()
                    })
                }
                result => result,
            },
            (key, text) => match Hook::of_key(key) {
                Some(hook) => self.keep_policy(hook, key, text),
                None => self.carry_out(write),
            },
        }
    }

    /// Sets a policy and keeps its text, which the programs do not tell, with the group.
    fn keep_policy(&self, hook: Hook, key: &str, text: &str) -> Result<()> {
        let Some(group) = self.v2_path() else {
            return Err(self.describe_error("set network policy of", "no v2 group on this host"));
        };
        if kept_text::read(group, key).unwrap_or_else(open_policy) == text {
            return Ok(());
        }
        self.set_policy(hook, &Policy::parse(text)?)?;
        kept_text::write(group, key, text)
    }

    /// What the group has of a key.
    #[must_use]
    pub fn value(&self, key: &Key) -> Reading {
        vocabulary::read(&self.places(), key, &|level, place, file| {
            self.text(level, place, file)
        })
    }

    /// The page sizes (`2MB`) of which the group counts huge pages.
    #[must_use]
    pub fn page_sizes(&self) -> Vec<String> {
        let Some(directory) = self.directory(Controller::Hugetlb) else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let size = |name: String| {
            let rest = name.strip_prefix("hugetlb.")?;
            let size = rest
                .strip_suffix(".max")
                .or_else(|| rest.strip_suffix(".limit_in_bytes"))?;
            (!size.contains('.')).then(|| size.to_owned())
        };
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut sizes: Vec<String> = names.filter_map(size).collect();
        sizes.sort();
        sizes
    }

    /// A file of the group or of one above it, up to the mount point.
    fn text(&self, level: usize, place: Place, name: &str) -> Option<String> {
        let Directory { path, base, .. } = self.at(place)?;
        let directory = path.ancestors().nth(level)?;
        let inside = |directory: &Path| directory.starts_with(base);
        if !inside(directory) {
            return None;
        }
        if Hook::of_key(name).is_some() {
            return Some(kept_text::read(directory, name).unwrap_or_else(open_policy));
        }
        // What may not be read is not there for the caller.
        file::read_optional(&directory.join(name)).ok().flatten()
    }
}

/// The policy of a group that has none.
fn open_policy() -> String {
    "allow".to_owned()
}
