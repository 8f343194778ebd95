//! criu's command line: one table of options, from which parsing and help follow.
//!
//! criu takes long options after one dash as well, `--name value` and `--name=value`.

use std::fmt::Write as _;

use anyhow::{Result, bail};

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// Only as `--name=value` or `-vN`.
    Optional,
}

struct Flag {
    long: &'static str,
    short: Option<char>,
    takes: Takes,
    help: &'static str,
}

const fn flag(long: &'static str, short: Option<char>, takes: Takes, help: &'static str) -> Flag {
    Flag {
        long,
        short,
        takes,
        help,
    }
}

/// Options with a meaning in floe, then those that are taken and have none.
const FLAGS: &[Flag] = &[
    flag(
        "tree",
        Some('t'),
        Takes::Value,
        "process id of the tree's root",
    ),
    flag(
        "images-dir",
        Some('D'),
        Takes::Value,
        "directory of the images",
    ),
    flag(
        "work-dir",
        Some('W'),
        Takes::Value,
        "directory of log, pidfile and statistics",
    ),
    flag("log-file", Some('o'), Takes::Value, "file for messages"),
    flag(
        "verbosity",
        Some('v'),
        Takes::Optional,
        "how much to log, 0 to 4",
    ),
    flag(
        "pidfile",
        None,
        Takes::Value,
        "file for the root's process id",
    ),
    flag(
        "leave-running",
        Some('R'),
        Takes::Nothing,
        "the tree runs on after a dump",
    ),
    flag(
        "leave-stopped",
        Some('s'),
        Takes::Nothing,
        "the tree stays stopped after a dump",
    ),
    flag(
        "restore-detached",
        Some('d'),
        Takes::Nothing,
        "return as soon as the tree runs",
    ),
    flag(
        "restore-sibling",
        Some('S'),
        Takes::Nothing,
        "restore as a sibling",
    ),
    flag(
        "shell-job",
        Some('j'),
        Takes::Nothing,
        "the root belongs to a shell's session",
    ),
    flag(
        "file-locks",
        Some('l'),
        Takes::Nothing,
        "dump and restore file locks",
    ),
    flag(
        "link-remap",
        None,
        Takes::Nothing,
        "give unlinked files temporary names",
    ),
    flag(
        "tcp-established",
        None,
        Takes::Nothing,
        "dump and restore TCP connections",
    ),
    flag(
        "ext-unix-sk",
        Some('x'),
        Takes::Optional,
        "allow unix sockets with a peer outside",
    ),
    flag("feature", None, Takes::Value, "check for one feature"),
    flag(
        "timeout",
        None,
        Takes::Value,
        "seconds for stopping the tree",
    ),
    flag("version", Some('V'), Takes::Nothing, "print the version"),
    flag("help", Some('h'), Takes::Nothing, "print this help"),
    flag(
        "no-default-config",
        None,
        Takes::Nothing,
        "ignored: there is no configuration file",
    ),
    flag(
        "config",
        None,
        Takes::Value,
        "ignored: there is no configuration file",
    ),
    flag(
        "libdir",
        Some('L'),
        Takes::Value,
        "ignored: there are no plugins",
    ),
    flag("pre-dump-mode", None, Takes::Value, "ignored"),
    flag(
        "ghost-limit",
        None,
        Takes::Value,
        "largest unlinked file that is dumped",
    ),
    flag(
        "ghost-fiemap",
        None,
        Takes::Nothing,
        "ignored: holes are always kept",
    ),
    flag(
        "no-ghost-fiemap",
        None,
        Takes::Nothing,
        "ignored: holes are always kept",
    ),
    flag("force-irmap", None, Takes::Nothing, "ignored"),
    flag("irmap-scan-path", None, Takes::Value, "ignored"),
    flag(
        "manage-cgroups",
        None,
        Takes::Optional,
        "ignored: plain processes stay in their groups",
    ),
    flag("cgroup-root", None, Takes::Value, "ignored"),
    flag("cgroup-props", None, Takes::Value, "ignored"),
    flag("cgroup-yard", None, Takes::Value, "ignored"),
    flag(
        "freeze-cgroup",
        None,
        Takes::Value,
        "group of the tree, by which it is stopped",
    ),
    flag(
        "network-lock",
        None,
        Takes::Value,
        "keep packets away with nftables, iptables or not at all (skip)",
    ),
    flag(
        "skip-in-flight",
        None,
        Takes::Nothing,
        "drop connections that nobody has accepted",
    ),
    flag(
        "tcp-close",
        None,
        Takes::Nothing,
        "TCP connections come back closed",
    ),
    flag("auto-dedup", None, Takes::Nothing, "ignored"),
    flag("allow-uprobes", None, Takes::Nothing, "ignored"),
    flag("evasive-devices", None, Takes::Nothing, "ignored"),
    flag("enable-external-masters", None, Takes::Nothing, "ignored"),
    flag("enable-external-sharing", None, Takes::Nothing, "ignored"),
    flag(
        "external",
        None,
        Takes::Value,
        "name something outside the tree",
    ),
    flag(
        "ext-mount-map",
        Some('M'),
        Takes::Value,
        "name a mount outside the tree",
    ),
    flag(
        "inherit-fd",
        None,
        Takes::Value,
        "give the tree a descriptor of the caller",
    ),
    flag(
        "root",
        Some('r'),
        Takes::Value,
        "root directory of the tree",
    ),
    flag(
        "empty-ns",
        None,
        Takes::Value,
        "net: leave the network namespace empty",
    ),
    flag(
        "join-ns",
        None,
        Takes::Value,
        "join a namespace (KIND:PID or KIND:FILE) instead of making it",
    ),
    flag(
        "action-script",
        None,
        Takes::Value,
        "program to run at each stage",
    ),
    flag(
        "status-fd",
        None,
        Takes::Value,
        "descriptor that gets a byte when a service is ready",
    ),
    flag(
        "file-validation",
        None,
        Takes::Value,
        "ignored: sizes are compared",
    ),
    flag("display-stats", None, Takes::Nothing, "ignored"),
    flag("log-pid", None, Takes::Nothing, "ignored"),
    flag(
        "unprivileged",
        None,
        Takes::Nothing,
        "ignored: rights are tried, not assumed",
    ),
    flag("mntns-compat-mode", None, Takes::Nothing, "ignored"),
    flag("no-mntns-compat-mode", None, Takes::Nothing, "ignored"),
    flag("cpu-cap", None, Takes::Optional, "ignored"),
];

/// A parsed command line.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) action: String,
    /// Plain arguments after the action.
    pub(crate) rest: Vec<String>,
    given: Vec<(&'static str, String)>,
}

impl Options {
    /// Parses what follows the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument.len() < 2 || !argument.starts_with('-') {
                if options.action.is_empty() {
                    options.action = argument;
                } else {
                    options.rest.push(argument);
                }
                continue;
            }
            options.parse_one(&argument, &mut arguments)?;
        }
        Ok(options)
    }

    fn parse_one(&mut self, argument: &str, more: &mut impl Iterator<Item = String>) -> Result<()> {
        let bare = argument.trim_start_matches('-');
        let (name, attached) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (bare, None),
        };
        let (flag, attached) = match FLAGS.iter().find(|flag| flag.long == name) {
            Some(flag) => (flag, attached),
            None => short(argument)?,
        };
        let value = match (flag.takes, attached) {
            (Takes::Nothing, _) => String::new(),
            (_, Some(value)) => value,
            (Takes::Optional, None) => String::new(),
            (Takes::Value, None) => match more.next() {
                Some(value) => value,
                None => bail!("read options: `--{}`: it needs a value", flag.long),
            },
        };
        self.given.push((flag.long, value));
        Ok(())
    }

    /// The last value of an option.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        debug_assert!(
            FLAGS.iter().any(|flag| flag.long == name),
            "{name} is in the table"
        );
        self.given
            .iter()
            .rev()
            .find(|(given, _)| *given == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of an option, in order.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.given
            .iter()
            .filter(move |(given, _)| *given == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether an option is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }
}

/// `-t 5`, `-t5`, `-v4`.
fn short(argument: &str) -> Result<(&'static Flag, Option<String>)> {
    let mut letters = argument.chars().skip(1);
    let letter = letters.next();
    let rest: String = letters.collect();
    let flag = FLAGS
        .iter()
        .find(|flag| flag.short.is_some() && flag.short == letter);
    match flag {
        Some(flag) if !argument.starts_with("--") => {
            Ok((flag, Some(rest).filter(|rest| !rest.is_empty())))
        }
        _ => bail!("read options: `{argument}`: no such option"),
    }
}

/// What can be done.
const ACTIONS: &[(&str, &str)] = &[
    ("dump", "write a process tree to images"),
    ("restore", "make a process tree from images"),
    ("check", "tell whether the kernel has what it takes"),
];

/// What `--help` prints.
pub(crate) fn help() -> String {
    let actions: Vec<&str> = ACTIONS.iter().map(|(name, _)| *name).collect();
    let mut text = format!("usage: floe-criu {} [OPTIONS]\n\n", actions.join("|"));
    for flag in FLAGS {
        let short = flag
            .short
            .map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let _ = writeln!(text, "  {short}--{:<24} {}", flag.long, flag.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        Options::parse(line.split_whitespace().map(str::to_owned)).unwrap()
    }

    /// The table in the form that pages are made from. An action has all options: criu takes them
    /// before and after it.
    fn command() -> clap::Command {
        let arguments = FLAGS.iter().map(|flag| {
            let argument = clap::Arg::new(flag.long).long(flag.long).help(flag.help);
            let argument = match flag.takes {
                Takes::Nothing => argument.action(clap::ArgAction::SetTrue),
                Takes::Value => argument.value_name("VALUE"),
                Takes::Optional => argument
                    .value_name("VALUE")
                    .num_args(0..=1)
                    .require_equals(true),
            };
            match flag.short {
                Some(letter) => argument.short(letter),
                None => argument,
            }
        });
        let arguments: Vec<_> = arguments.collect();
        let actions = ACTIONS
            .iter()
            .map(|(name, about)| clap::Command::new(name).about(*about).args(&arguments));
        clap::Command::new("floe-criu")
            .about("Checkpoint and restore with the command line of criu")
            .disable_help_flag(true)
            .disable_help_subcommand(true)
            .args(&arguments)
            .subcommands(actions.map(|action| action.disable_help_flag(true)))
    }

    #[test]
    fn man_pages_and_completions() {
        ::tests::pages::check(command());
    }

    #[test]
    fn every_way_to_write_an_option() {
        for line in [
            "dump --tree 5",
            "dump -tree 5",
            "dump --tree=5",
            "-t 5 dump",
            "dump -t5",
        ] {
            let options = parse(line);
            assert_eq!(
                (options.action.as_str(), options.value("tree")),
                ("dump", Some("5")),
                "{line}"
            );
        }
        assert_eq!(
            parse("check -verbosity=0 --no-default-config").value("verbosity"),
            Some("0")
        );
        assert_eq!(parse("dump -v4 -R").value("verbosity"), Some("4"));
        assert_eq!(
            parse("dump --manage-cgroups --tree 7").value("tree"),
            Some("7")
        );
    }

    #[test]
    fn unknown_options_and_missing_values_are_errors() {
        for line in ["dump --nonsense", "dump --tree", "dump -?"] {
            assert!(
                Options::parse(line.split_whitespace().map(str::to_owned)).is_err(),
                "{line}"
            );
        }
    }
}
