//! `--version`, in the form that go-runc and dockerd parse.

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
        option_env!("FLOE_COMMIT").unwrap_or("unknown"),
        container::spec::VERSION,
    )
}
