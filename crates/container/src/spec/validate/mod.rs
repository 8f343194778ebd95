//! What a document means, as far as it can be judged without looking at the host.
//!
//! Every check is pure. The first fault found is the error; what peers let pass with a warning
//! becomes a warning here. Where the specification is silent the rule is runc's, as bundles are
//! written to be accepted by it.

mod idmap;
mod linux;
mod list;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;
mod sysctl;

use std::fmt::Display;

use super::{Error, Hook, Hooks, Linux, Process, Resources, Spec};

pub use list::ranges;
pub use sysctl::sysctl_path;

/// Checks a configuration. Returns warnings, one line each: things that will be ignored.
///
/// # Errors
/// The configuration makes no sense; the error names the field.
pub fn validate(spec: &Spec) -> Result<Vec<String>, Error> {
    let mut check = Check {
        document: "config.json",
        prefix: "",
        warnings: Vec::new(),
    };
    version(&check, &spec.oci_version)?;
    if spec
        .root
        .as_ref()
        .is_none_or(|root| root.path.as_os_str().is_empty())
    {
        return check.refuse("root.path", "required");
    }
    match &spec.process {
        Some(process) => {
            check.prefix = "process.";
            process::check(&mut check, process)?;
            check.prefix = "";
        }
        // `create` does not need one (config.md), and peers let `start` of nothing succeed.
        None => check.warn("process", "missing, so nothing will run"),
    }
    let nothing = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&nothing);
    namespaces::check(&check, spec, linux)?;
    mounts::check(&mut check, &spec.mounts, linux)?;
    hooks(&check, &spec.hooks)?;
    linux::check(&mut check, linux)?;
    sysctl::check(&check, linux)?;
    if let Some(resources) = &linux.resources {
        check.prefix = "linux.resources.";
        resources::check(&check, resources)?;
    }
    if let Some(seccomp) = &linux.seccomp {
        check.prefix = "linux.seccomp.";
        seccomp::check(&check, seccomp)?;
    }
    Ok(check.warnings)
}

/// Checks a process document, as `exec --process` is given it. Returns warnings.
///
/// # Errors
/// The document makes no sense; the error names the field.
pub fn validate_process(process: &Process) -> Result<Vec<String>, Error> {
    let mut check = Check {
        document: "process.json",
        prefix: "",
        warnings: Vec::new(),
    };
    process::check(&mut check, process)?;
    Ok(check.warnings)
}

/// Checks a resources document, as `update --resources` is given it.
///
/// # Errors
/// The document makes no sense; the error names the field.
pub fn validate_resources(resources: &Resources) -> Result<(), Error> {
    let check = Check {
        document: "resources",
        prefix: "",
        warnings: Vec::new(),
    };
    resources::check(&check, resources)
}

/// Where the checks are, and what they have found so far.
struct Check {
    document: &'static str,
    /// What comes before a field's name in messages: `process.`.
    prefix: &'static str,
    warnings: Vec<String>,
}

impl Check {
    fn refuse<T>(&self, field: impl Display, cause: impl Display) -> Result<T, Error> {
        Err(self.error(field, cause))
    }

    fn warn(&mut self, field: impl Display, cause: impl Display) {
        self.warnings.push(self.error(field, cause).to_string());
    }

    fn error(&self, field: impl Display, cause: impl Display) -> Error {
        Error::new(
            self.document,
            &format!("{}{field}", self.prefix),
            &cause.to_string(),
        )
    }
}

/// Any version 1: later ones only add fields, which are ignored.
fn version(check: &Check, version: &str) -> Result<(), Error> {
    if version.is_empty() {
        return check.refuse("ociVersion", "required");
    }
    match version.split('.').next() {
        Some("1") => Ok(()),
        _ => check.refuse(
            "ociVersion",
            format!("`{version}`: only version 1 is supported"),
        ),
    }
}

fn hooks(check: &Check, hooks: &Hooks) -> Result<(), Error> {
    for (kind, hooks) in [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ] {
        for (index, hook) in hooks.iter().enumerate() {
            one_hook(check, &format!("hooks.{kind}[{index}]"), hook)?;
        }
    }
    Ok(())
}

fn one_hook(check: &Check, field: &str, hook: &Hook) -> Result<(), Error> {
    if !hook.path.is_absolute() {
        return check.refuse(format!("{field}.path"), "must be an absolute path");
    }
    match hook.timeout {
        Some(..=0) => check.refuse(format!("{field}.timeout"), "must be more than 0"),
        Some(1..) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
