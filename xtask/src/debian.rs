//! Packages of Debian's archive, unpacked into a cache of ours; the host's system is not touched.
//!
//! apt runs with a state directory, a list of suites and a cache of its own, so that packages newer than
//! the host's can be had without their dependencies. Needs apt and a Debian host.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A directory under `~/.cache` that outlives builds.
pub(crate) fn cache(name: &str) -> Result<PathBuf> {
    let home = std::env::home_dir().context("no home directory")?;
    let directory = home.join(".cache").join(name);
    fs::create_dir_all(&directory).with_context(|| format!("create `{}`", directory.display()))?;
    Ok(directory)
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let output = output.with_context(|| format!("execute {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The mirror that the host's own apt uses for Debian's main archive.
pub(crate) fn mirror() -> Result<String> {
    let format = "$(REPO_URI) $(ORIGIN)";
    let text = output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let mut archives = text.lines().filter_map(|line| line.strip_suffix(" Debian"));
    let main = archives.find(|archive| archive.trim_end_matches('/').ends_with("/debian"));
    Ok(main
        .context("apt knows no mirror of Debian (apt-get update?)")?
        .to_owned())
}

/// An apt of our own over several suites.
#[derive(Debug)]
pub(crate) struct Archive {
    cache: PathBuf,
}

impl Archive {
    /// The archive whose state lies in `cache`, over these suites.
    pub(crate) fn open(cache: &Path, suites: &[&str]) -> Result<Self> {
        let apt = cache.join("apt");
        fs::create_dir_all(apt.join("lists/partial"))?;
        fs::create_dir_all(apt.join("archives/partial"))?;
        fs::write(apt.join("status"), "")?;
        let mirror = mirror()?;
        let line = |suite: &&str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(
            apt.join("sources.list"),
            suites.iter().map(line).collect::<String>(),
        )?;
        Ok(Self {
            cache: cache.to_owned(),
        })
    }

    /// What an apt command prints.
    pub(crate) fn apt(&self, tool: &str, args: &[&str], directory: &Path) -> Result<String> {
        let apt = self.cache.join("apt");
        let mut command = Command::new(tool);
        for (name, file) in [
            ("State", apt.clone()),
            ("State::status", apt.join("status")),
            ("Cache", apt.clone()),
            ("Etc::SourceList", apt.join("sources.list")),
            ("Etc::SourceParts", "/dev/null".into()),
            ("Etc::Preferences", "/dev/null".into()),
            ("Etc::PreferencesParts", "/dev/null".into()),
        ] {
            command.arg(format!("-oDir::{name}={}", file.display()));
        }
        output(
            command
                .arg("-oAPT::Sandbox::User=root")
                .args(args)
                .current_dir(directory),
        )
    }

    /// The directory NAME of the cache with the packages that `choose` names, as `finish` left it.
    ///
    /// It is made under a temporary name and renamed, so that what exists is whole.
    pub(crate) fn unpacked(
        &self,
        name: &str,
        choose: impl FnOnce(&Self) -> Result<Vec<String>>,
        finish: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let lock = File::create(self.cache.join("lock")).context("lock the cache")?;
        flock(&lock, FlockOperation::LockExclusive).context("lock the cache")?;
        let directory = self.cache.join(name);
        if directory.is_dir() {
            return Ok(directory);
        }
        eprintln!("xtask: fetching {name} into {}", self.cache.display());
        let temporary = self.cache.join(format!("{name}.tmp"));
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary)?;
        self.apt("apt-get", &["-qq", "update"], &temporary)?;
        let packages = choose(self)?;
        ensure!(!packages.is_empty(), "no package for {name}");
        let mut args = vec!["-qq", "download"];
        args.extend(packages.iter().map(String::as_str));
        self.apt("apt-get", &args, &temporary)?;
        for file in files(&temporary)?
            .iter()
            .filter(|file| file.extension().is_some_and(|end| end == "deb"))
        {
            output(Command::new("dpkg-deb").arg("-x").arg(file).arg(&temporary))?;
            fs::remove_file(file)?;
        }
        finish(&temporary)?;
        fs::rename(&temporary, &directory).context("rename into the cache")?;
        Ok(directory)
    }
}

/// The entries of a directory, sorted.
pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("read `{}`", directory.display()))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    files.sort();
    Ok(files)
}
