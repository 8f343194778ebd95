//! The process: program, environment, directory, limits.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::flags::ProcessFlags;
use crate::parse;

/// What an image says about its process; all empty for a plain directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageProcess {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) directory: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) stop_signal: Option<String>,
}

/// Where programs are looked for if nobody says.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program and its arguments.
///
/// # Errors
/// Neither the caller nor the image names a program.
pub(crate) fn arguments(
    image: &ImageProcess,
    entrypoint: Option<&str>,
    command: &[String],
) -> Result<Vec<String>> {
    let (mut arguments, own_entrypoint) = match entrypoint {
        Some("") => (Vec::new(), true),
        Some(program) => (vec![program.to_owned()], true),
        None => (image.entrypoint.clone(), false),
    };
    // The image's command belongs to its own entrypoint.
    match command {
        [] if !own_entrypoint => arguments.extend_from_slice(&image.command),
        _ => arguments.extend_from_slice(command),
    }
    if arguments.is_empty() {
        bail!("no program to run\ngive one: floe run … -- PROGRAM");
    }
    if let Some(argument) = arguments.iter().find(|argument| argument.contains('\0')) {
        bail!("argument {argument:?} holds a NUL");
    }
    Ok(arguments)
}

/// The environment, later settings winning over earlier: the image's, files', flags'.
///
/// # Errors
/// A file that cannot be read or a line without a name.
pub(crate) fn environment(
    base: Vec<(String, String)>,
    flags: &ProcessFlags,
    own: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&std::path::Path) -> Result<String>,
) -> Result<Vec<String>> {
    let mut variables = base;
    let mut set = |name: &str, value: String| {
        variables.retain(|(other, _)| other != name);
        variables.push((name.to_owned(), value));
    };
    let mut apply = |text: &str| -> Result<()> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, own(text)),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("environment `{text}` has no name");
        }
        if let Some(value) = value {
            set(name, value);
        }
        Ok(())
    };
    for file in &flags.env_file {
        let text = read(file)?;
        let lines = text.lines().map(str::trim_start);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            apply(line).with_context(|| format!("read `{}`", file.display()))?;
        }
    }
    for text in &flags.env {
        apply(text)?;
    }
    Ok(variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

/// `--ulimit` as OCI `process.rlimits`.
///
/// # Errors
/// An unknown name or a soft limit above the hard one.
pub(crate) fn rlimits(texts: &[String]) -> Result<Vec<Value>> {
    texts
        .iter()
        .map(|text| rlimit(text).with_context(|| format!("--ulimit `{text}`")))
        .collect()
}

fn rlimit(text: &str) -> Result<Value> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| anyhow!("NAME=SOFT[:HARD]"))?;
    if !NAMES.contains(&name) {
        bail!("`{name}`: one of {}", NAMES.join(", "));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => text
            .parse::<u64>()
            .map_err(|_| anyhow!("`{text}` is not a number")),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        bail!("the soft limit is above the hard one");
    }
    Ok(json!({ "type": format!("RLIMIT_{}", name.to_uppercase()), "soft": soft, "hard": hard }))
}

/// `--time-offset` as OCI `linux.timeOffsets`.
///
/// # Errors
/// A malformed time or an unknown clock.
pub(crate) fn time_offsets(text: &str) -> Result<Value> {
    let offset = |text: &str| -> Result<Value> {
        let nanos = parse::nanoseconds(text)?;
        Ok(json!({
            "secs": nanos.div_euclid(1_000_000_000),
            "nanosecs": nanos.rem_euclid(1_000_000_000),
        }))
    };
    if !text.contains('=') {
        let offset = offset(text)?;
        return Ok(json!({ "monotonic": offset, "boottime": offset }));
    }
    let mut offsets = serde_json::Map::new();
    for part in text.split(',') {
        match part.split_once('=') {
            Some((clock @ ("monotonic" | "boottime"), text)) => {
                offsets.insert(clock.to_owned(), offset(text)?);
            }
            _ => bail!("--time-offset `{part}`: monotonic=TIME or boottime=TIME"),
        }
    }
    Ok(offsets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entrypoint_and_command_combine_as_in_docker() {
        let image = ImageProcess {
            entrypoint: words("/entry -x"),
            command: words("serve now"),
            ..ImageProcess::default()
        };
        for (entrypoint, command, expected) in [
            (None, "", "/entry -x serve now"),
            (None, "stop", "/entry -x stop"),
            (Some("/sh"), "", "/sh"),
            (Some("/sh"), "-c true", "/sh -c true"),
            (Some(""), "true", "true"),
        ] {
            let got = arguments(&image, entrypoint, &words(command)).unwrap();
            assert_eq!(got, words(expected), "{entrypoint:?} {command}");
        }
        assert!(arguments(&image, Some(""), &[]).is_err());
        assert!(arguments(&ImageProcess::default(), None, &[]).is_err());
    }

    #[test]
    fn later_settings_win() {
        let flags = ProcessFlags {
            env: words("A=flag HOSTVAR MISSING"),
            env_file: vec!["/f".into()],
            ..ProcessFlags::default()
        };
        let got = environment(
            vec![("A".into(), "image".into()), ("P".into(), "x".into())],
            &flags,
            &|name| (name == "HOSTVAR").then(|| "host".to_owned()),
            &|_| Ok("# comment\n\nA=file\n B=with = sign\n".to_owned()),
        );
        assert_eq!(
            got.unwrap(),
            ["P=x", "B=with = sign", "A=flag", "HOSTVAR=host"]
        );
        let wrong = ProcessFlags {
            env: vec!["=x".into()],
            ..ProcessFlags::default()
        };
        assert!(environment(Vec::new(), &wrong, &|_| None, &|_| Ok(String::new())).is_err());
    }

    #[test]
    fn ulimits_have_two_bounds() {
        assert_eq!(
            rlimits(&words("nofile=10:20 core=0")).unwrap(),
            [
                json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}),
                json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0}),
            ]
        );
        for wrong in ["nofile", "odd=1", "nofile=2:1", "nofile=x"] {
            assert!(rlimits(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn clocks_move_both_ways() {
        let day = time_offsets("1d").unwrap();
        assert_eq!(day["monotonic"], json!({"secs": 86_400, "nanosecs": 0}));
        let back = time_offsets("boottime=-500ms").unwrap();
        assert_eq!(
            back,
            json!({"boottime": {"secs": -1, "nanosecs": 500_000_000}})
        );
        assert!(time_offsets("realtime=1s").is_err());
    }
}
