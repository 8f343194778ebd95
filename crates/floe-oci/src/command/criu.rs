//! The program that checkpoints and restores.

use std::path::PathBuf;

use crate::flags::Global;

/// The one that is named, floe's own beside this program, or criu wherever PATH has it.
pub(crate) fn program(global: &Global) -> PathBuf {
    if let Some(path) = &global.criu {
        return path.clone();
    }
    beside().unwrap_or_else(|| PathBuf::from("criu"))
}

/// The link leads to the file as long as this program is not sealed, which `checkpoint` and
/// `restore` do without.
fn beside() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let found = own.parent()?.join("floe-criu");
    found.is_file().then_some(found)
}

/// Whether there is one.
pub(crate) fn is_there(global: &Global) -> bool {
    let program = program(global);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let somewhere = || std::env::split_paths(&path).any(|place| place.join(&program).is_file());
    program.is_file() || somewhere()
}
