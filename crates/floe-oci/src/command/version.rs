//! `--version`, in the form that go-runc and dockerd parse.

/// The commit that was built from, where the build was told.
pub(crate) const COMMIT: &str = match option_env!("FLOE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The first line must begin with `runc version` where the program stands in for runc by name.
pub(crate) fn text() -> String {
    let program = std::env::args().next().unwrap_or_default();
    let name = if program.rsplit('/').next() == Some("runc") {
        "runc"
    } else {
        "floe-oci"
    };
    format!(
        "{name} version {}\ncommit: {}\nspec: {}",
        env!("CARGO_PKG_VERSION"),
        COMMIT,
        container::spec::VERSION,
    )
}
