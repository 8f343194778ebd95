//! The monitor's command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use monitor::restart::Policy;

/// What the monitor is told about its container.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) id: String,
    /// The OCI runtime's program and its `--root`.
    pub(crate) runtime: PathBuf,
    pub(crate) runtime_root: PathBuf,
    pub(crate) bundle: PathBuf,
    /// The container's runtime directory: lock, socket, status.
    pub(crate) run_dir: PathBuf,
    /// The container's durable directory: log, exit.
    pub(crate) state_dir: PathBuf,
    pub(crate) events: PathBuf,
    /// Images that the first life goes on from.
    pub(crate) restore: Option<PathBuf>,
    pub(crate) restart: Policy,
    pub(crate) terminal: bool,
    pub(crate) interactive: bool,
    /// systemd makes the container's group.
    pub(crate) systemd_cgroup: bool,
    /// Bytes of log kept before it is rotated, and how many old logs are kept.
    pub(crate) log_size: u64,
    pub(crate) log_files: u32,
    /// What SIGTERM to the monitor does: this signal, and SIGKILL after this time.
    pub(crate) stop_signal: i32,
    pub(crate) stop_timeout: Duration,
    /// `floe`, which is executed to remove the container after its exit.
    pub(crate) remove_with: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// A text that names the wrong or missing one.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut options = Self {
            id: String::new(),
            runtime: PathBuf::new(),
            runtime_root: PathBuf::new(),
            bundle: PathBuf::new(),
            run_dir: PathBuf::new(),
            state_dir: PathBuf::new(),
            events: PathBuf::new(),
            restore: None,
            restart: Policy::No,
            terminal: false,
            interactive: false,
            systemd_cgroup: false,
            log_size: 10 * 1024 * 1024,
            log_files: 1,
            stop_signal: 15,
            stop_timeout: Duration::from_secs(10),
            remove_with: None,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            match name.to_str() {
                Some("--terminal") => options.terminal = true,
                Some("--interactive") => options.interactive = true,
                Some("--systemd-cgroup") => options.systemd_cgroup = true,
                Some(name) => {
                    let value = arguments.next().ok_or(format!("{name} wants a value"))?;
                    options.set(name, value)?;
                }
                None => return Err(format!("unknown argument `{}`", name.display())),
            }
        }
        for (name, path) in [
            ("--runtime", &options.runtime),
            ("--root", &options.runtime_root),
            ("--bundle", &options.bundle),
            ("--run-dir", &options.run_dir),
            ("--state-dir", &options.state_dir),
            ("--events", &options.events),
        ] {
            if !path.is_absolute() {
                return Err(format!("{name} wants an absolute path"));
            }
        }
        if options.id.is_empty() {
            return Err("--id is missing".to_owned());
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &OsString) -> Result<(), String> {
        let wrong = || format!("{name}: wrong value `{}`", value.display());
        let text = value.to_str();
        match name {
            "--id" => text.ok_or_else(wrong)?.clone_into(&mut self.id),
            "--runtime" => self.runtime = value.into(),
            "--root" => self.runtime_root = value.into(),
            "--bundle" => self.bundle = value.into(),
            "--run-dir" => self.run_dir = value.into(),
            "--state-dir" => self.state_dir = value.into(),
            "--events" => self.events = value.into(),
            "--restore" => self.restore = Some(value.into()),
            "--remove-with" => self.remove_with = Some(value.into()),
            "--restart" => self.restart = text.and_then(Policy::parse).ok_or_else(wrong)?,
            "--log-size" => self.log_size = number(text).ok_or_else(wrong)?,
            "--log-files" => self.log_files = number(text).ok_or_else(wrong)?,
            "--stop-signal" => self.stop_signal = number(text).ok_or_else(wrong)?,
            "--stop-timeout" => {
                self.stop_timeout = Duration::from_secs(number(text).ok_or_else(wrong)?);
            }
            _ => return Err(format!("unknown argument `{name}`")),
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "--id a --runtime /r --root /o --bundle /b --run-dir /d --state-dir /s \
                         --events /e";

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(
            &text
                .split_whitespace()
                .map(OsString::from)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn arguments_reach_their_fields() {
        let text = format!("{LEAST} --terminal --restart on-failure:2 --stop-timeout 3");
        let options = parse(&text).unwrap();
        assert!(options.terminal && !options.interactive);
        assert_eq!(options.restart, Policy::OnFailure(Some(2)));
        assert_eq!(options.stop_timeout, Duration::from_secs(3));
        assert_eq!(options.bundle, PathBuf::from("/b"));
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (more, message) in [
            ("--log-size x", "--log-size: wrong value `x`"),
            ("--restart often", "--restart: wrong value `often`"),
            ("--bundle b", "--bundle wants an absolute path"),
            ("--id", "--id wants a value"),
            ("--odd 1", "unknown argument `--odd`"),
        ] {
            assert_eq!(parse(&format!("{LEAST} {more}")).unwrap_err(), message);
        }
    }
}
