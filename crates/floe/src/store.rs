//! Where floe keeps its containers, and how they are found.
//!
//! Durable: `STATE/containers/ID/{config.json, bundle/, rootfs/, layer/, log, exit}` and
//! `STATE/names/NAME`, a link whose creation is what makes a name unique. Of the running machine:
//! `RUN/ID/` (see [`monitor::files`]) and `RUN/oci`, the runtime's. There is no lock over all of
//! it: each container's directory is locked on its own.

pub(crate) mod container;
pub(crate) mod record;

use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::parse;
use container::Container;

/// The two trees of the calling user.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
    /// Whether the caller is not root: containers then live in user namespaces.
    pub(crate) rootless: bool,
}

impl Store {
    /// Finds the trees and makes them where they are missing.
    ///
    /// # Errors
    /// A directory cannot be made, or the runtime directory belongs to somebody else.
    pub(crate) fn open() -> Result<Self> {
        let rootless = !rustix::process::geteuid().is_root();
        let (state, run) = directories(rootless, &|name| std::env::var_os(name).map(PathBuf::from));
        let store = Self {
            state,
            run,
            rootless,
        };
        make_passable(&store.state)?;
        for directory in [
            store.state.join("containers"),
            store.state.join("names"),
            store.run.clone(),
        ] {
            make_private(&directory)?;
        }
        for (directory, variable) in [
            (&store.run, "FLOE_RUN_DIR"),
            (&store.state, "FLOE_STATE_DIR"),
        ] {
            check_owner(directory, &[rustix::process::geteuid().as_raw()], variable)?;
            // Whoever owns the directory above can put another in its place.
            if let Some(above) = directory.parent() {
                check_owner(above, &[0, rustix::process::geteuid().as_raw()], variable)?;
            }
        }
        Ok(store)
    }

    /// The runtime's `--root`.
    #[must_use]
    pub(crate) fn runtime_root(&self) -> PathBuf {
        self.run.join("oci")
    }

    #[must_use]
    pub(crate) fn events(&self) -> PathBuf {
        self.run.join("events")
    }

    /// What was used and by whom, kept after its end.
    #[must_use]
    pub(crate) fn account(&self) -> PathBuf {
        self.state.join(monitor::account::ACCOUNT)
    }

    #[must_use]
    pub(crate) fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// The ids of all containers, in no order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let directory = self.containers();
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("list `{}`", directory.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| is_id(name)).collect())
    }

    /// Every container that can be read; one that is being made or removed is passed over.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn all(&self) -> Result<Vec<Container>> {
        Ok(self
            .ids()?
            .iter()
            .filter_map(|id| Container::load(self, id).ok())
            .collect())
    }

    /// Removes what a floe left that was killed while it made or removed a container.
    pub(crate) fn sweep(&self) {
        for id in self.ids().unwrap_or_default() {
            let dir = self.containers().join(&id);
            // One that is being made is younger than this.
            let old = || {
                let changed = std::fs::metadata(&dir).and_then(|metadata| metadata.modified());
                changed.is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() > 60))
            };
            if !dir.join("config.json").exists() && old() {
                // Best effort: the next sweep tries again.
                let _ = crate::command::rm::remove_tree(&dir);
                let _ = crate::command::rm::remove_tree(&self.run.join(&id));
            }
        }
    }

    /// The container of a name, an id, or the beginning of an id that only one has.
    ///
    /// # Errors
    /// There is none, or several.
    pub(crate) fn find(&self, text: &str) -> Result<Container> {
        if let Ok(name) = parse::name(text)
            && let Ok(target) = std::fs::read_link(self.state.join("names").join(name))
            && let Some(id) = target.to_str()
            && self.containers().join(id).is_dir()
        {
            return Container::load(self, id);
        }
        let mut ids = self.ids()?;
        ids.retain(|id| !text.is_empty() && id.starts_with(text));
        match ids.as_slice() {
            [] => bail!(
                "no container `{}`\n`floe ps -a` lists them",
                crate::text::plain(text)
            ),
            [id] => Container::load(self, id),
            _ => bail!("`{text}` begins the id of {} containers", ids.len()),
        }
    }

    /// Takes a name for a container.
    ///
    /// # Errors
    /// Another container has it.
    pub(crate) fn take_name(&self, name: &str, id: &str) -> Result<()> {
        let link = self.state.join("names").join(name);
        for _ in 0..2 {
            match symlink(id, &link) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context(format!("take name `{name}`")),
            }
            // Left by a floe that was killed between two steps of a removal.
            let holder = std::fs::read_link(&link).unwrap_or_default();
            if self.containers().join(&holder).exists() {
                break;
            }
            self.drop_name(name, &holder.to_string_lossy());
        }
        bail!("the name `{name}` is taken\n`floe rm {name}` frees it, `--name` takes another")
    }

    /// Gives a name up, if it is still this container's.
    pub(crate) fn drop_name(&self, name: &str, id: &str) {
        let link = self.state.join("names").join(name);
        if std::fs::read_link(&link).is_ok_and(|holder| holder == Path::new(id)) {
            // Somebody else may have been faster.
            let _ = std::fs::remove_file(link);
        }
    }
}

/// Refuses a directory that somebody else may have prepared: in `/tmp` anybody can be first.
fn check_owner(directory: &Path, allowed: &[u32], variable: &str) -> Result<()> {
    let owner = std::fs::metadata(directory)
        .with_context(|| format!("look at `{}`", directory.display()))?
        .uid();
    if !allowed.contains(&owner) {
        bail!(
            "`{}` belongs to user {owner}\nset {variable} to another",
            directory.display()
        );
    }
    Ok(())
}

/// The trees' paths, by the caller's rights and environment.
fn directories(rootless: bool, variable: &dyn Fn(&str) -> Option<PathBuf>) -> (PathBuf, PathBuf) {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let uid = rustix::process::geteuid().as_raw();
    let state = absolute("FLOE_STATE_DIR").unwrap_or_else(|| {
        if !rootless {
            return "/var/lib/floe".into();
        }
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        data.map_or_else(
            || format!("/tmp/floe-{uid}/data").into(),
            |data| data.join("floe"),
        )
    });
    let run = absolute("FLOE_RUN_DIR").unwrap_or_else(|| {
        if !rootless {
            return "/run/floe".into();
        }
        absolute("XDG_RUNTIME_DIR").map_or_else(
            || format!("/tmp/floe-{uid}/run").into(),
            |run| run.join("floe"),
        )
    });
    (state, run)
}

/// Makes a directory that is closed to others: below it lie set-id programs of containers, which
/// no user of the host may reach.
///
/// # Errors
/// Those of making directories.
pub(crate) fn make_private(directory: &Path) -> Result<()> {
    make(directory, 0o700)
}

/// Makes a directory through which others can pass, but not look: the root of a container in a
/// user namespace is another user of the host.
///
/// # Errors
/// Those of making directories.
pub(crate) fn make_passable(directory: &Path) -> Result<()> {
    make(directory, 0o711)
}

fn make(directory: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
        .with_context(|| format!("make `{}`", directory.display()))
}

/// A new random id: 64 hexadecimal digits.
///
/// # Errors
/// The kernel gives no random bytes.
pub(crate) fn new_id() -> Result<String> {
    let mut bytes = [0_u8; 32];
    random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A random name: an adjective and a noun.
///
/// # Errors
/// The kernel gives no random bytes.
pub(crate) fn random_name() -> Result<String> {
    let mut bytes = [0_u8; 4];
    random(&mut bytes)?;
    let adjective = ADJECTIVES[usize::from(bytes[0]) % ADJECTIVES.len()];
    let noun = NOUNS[usize::from(bytes[1]) % NOUNS.len()];
    Ok(format!(
        "{adjective}-{noun}-{:02x}{:02x}",
        bytes[2], bytes[3]
    ))
}

fn random(bytes: &mut [u8]) -> Result<()> {
    let length = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())
        .context("get random bytes")?;
    // Requests of up to 256 bytes are never cut short.
    debug_assert_eq!(length, bytes.len());
    Ok(())
}

fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

const ADJECTIVES: [&str; 32] = [
    "able", "blue", "bold", "brisk", "calm", "clear", "cold", "crisp", "deep", "drifting", "early",
    "fair", "firm", "free", "frosty", "gentle", "glad", "hardy", "keen", "late", "light", "mild",
    "northern", "pale", "polar", "quick", "quiet", "silver", "steady", "still", "white", "wide",
];

const NOUNS: [&str; 32] = [
    "auk", "beacon", "berg", "bight", "brine", "cod", "current", "eider", "fjord", "floe", "gale",
    "gull", "harbour", "ice", "kelp", "krill", "lagoon", "moon", "narwhal", "orca", "otter",
    "petrel", "puffin", "sail", "seal", "shoal", "skerry", "sound", "squall", "tern", "tide",
    "walrus",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_follow_the_user_and_the_environment() {
        let environment = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/home/ann")),
            "XDG_RUNTIME_DIR" => Some(PathBuf::from("/run/user/7")),
            _ => None,
        };
        let (state, run) = directories(true, &environment);
        assert_eq!(state, Path::new("/home/ann/.local/share/floe"));
        assert_eq!(run, Path::new("/run/user/7/floe"));
        let (state, run) = directories(false, &environment);
        assert_eq!((state, run), ("/var/lib/floe".into(), "/run/floe".into()));
        let own = |name: &str| (name == "FLOE_STATE_DIR").then(|| PathBuf::from("/x"));
        assert_eq!(directories(false, &own).0, Path::new("/x"));
    }

    #[test]
    fn names_and_ids_have_their_form() {
        assert!(is_id(&new_id().unwrap()));
        assert!(parse::name(&random_name().unwrap()).is_ok());
    }
}
