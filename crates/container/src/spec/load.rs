//! From bytes to types.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::strict::Strict;
use super::{Error, Process, Resources, Spec};

/// Bytes that a document may have. Engines' largest are under 200 KiB; the limit keeps a
/// hostile bundle from taking the host's memory.
pub const MAX_DOCUMENT: usize = 4 << 20;

/// The file name of a bundle's configuration, and its name in errors.
const CONFIG: &str = "config.json";

/// Reads `config.json` of the bundle directory `bundle`.
///
/// # Errors
/// The file cannot be read, is too large or is not a configuration.
pub fn load(bundle: impl AsFd) -> Result<Spec, Error> {
    // Not blocking: a fifo in its place must not hold the runtime.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(bundle, CONFIG, flags, Mode::empty())
        .map_err(|errno| Error::new(CONFIG, "", &sys::errno::describe(errno)))?;
    parse(&read_document(CONFIG, &mut File::from(file))?)
}

/// Reads a whole document of at most [`MAX_DOCUMENT`] bytes; `name` is its name in errors.
///
/// # Errors
/// The source cannot be read or is too large.
pub fn read_document(name: &str, source: &mut impl Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let limit = MAX_DOCUMENT as u64 + 1;
    source
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            let errno = sys::Errno::from_io_error(&error);
            Error::new(
                name,
                "",
                &errno.map_or_else(|| error.to_string(), sys::errno::describe),
            )
        })?;
    check_size(name, &bytes)?;
    Ok(bytes)
}

/// A bundle's `config.json`.
///
/// # Errors
/// The bytes are no such document; the error names the field.
pub fn parse(bytes: &[u8]) -> Result<Spec, Error> {
    document(CONFIG, bytes)
}

/// The `process` object alone, as `exec --process` is given it.
///
/// # Errors
/// The bytes are no such document; the error names the field.
pub fn parse_process(bytes: &[u8]) -> Result<Process, Error> {
    document("process.json", bytes)
}

/// The `linux.resources` object alone, as `update --resources` is given it.
///
/// # Errors
/// The bytes are no such document; the error names the field.
pub fn parse_resources(bytes: &[u8]) -> Result<Resources, Error> {
    document("resources", bytes)
}

/// A document of our own making that others may have changed since.
///
/// # Errors
/// The bytes are no such document; the error names the field.
pub(crate) fn document<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Error> {
    check_size(name, bytes)?;
    check_nul(name, bytes)?;
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Strict(&mut json))
        .map_err(|error| Error::new(name, &error.path().to_string(), &error.inner().to_string()))?;
    json.end()
        .map_err(|error| Error::new(name, "", &error.to_string()))?;
    Ok(value)
}

fn check_size(name: &str, bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(Error::new(
            name,
            "",
            &format!("larger than {MAX_DOCUMENT} bytes"),
        ));
    }
    Ok(())
}

/// Refuses a NUL in any text. Every text may end up in a system call, where a NUL would cut it
/// short: `/proc\u0000/x` would pass a check and then mount elsewhere.
fn check_nul(name: &str, bytes: &[u8]) -> Result<(), Error> {
    const ESCAPED: &[u8] = br"\u0000";
    // JSON can only spell it this way; the second parse is the rare case.
    if !bytes.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
        return Ok(());
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return Ok(()); // The typed parse says what is wrong, and where.
    };
    match path_of_nul(&value) {
        Some(path) => Err(Error::new(
            name,
            path.trim_start_matches('.'),
            "holds a NUL character",
        )),
        None => Ok(()),
    }
}

fn path_of_nul(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| Some(format!("[{index}]{}", path_of_nul(item)?))),
        Value::Object(members) => members.iter().find_map(|(key, member)| {
            let inner = if key.contains('\0') {
                String::new()
            } else {
                path_of_nul(member)?
            };
            Some(format!(".{key}{inner}"))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::State;

    /// Every field of the specification once, as an engine would write it.
    const EVERYTHING: &str = include_str!("../../../../fuzz/corpus/config/everything.json");

    #[test]
    fn a_document_with_every_field_survives_reading_and_writing() {
        let spec = parse(EVERYTHING.as_bytes()).unwrap();
        let written = serde_json::to_value(&spec).unwrap();
        let given: Value = serde_json::from_str(EVERYTHING).unwrap();
        assert_eq!(written, given);
    }

    #[test]
    fn nothing_is_written_for_what_is_absent() {
        let spec = parse(br#"{"ociVersion":"1.3.0"}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&spec).unwrap(),
            r#"{"ociVersion":"1.3.0"}"#
        );
    }

    #[test]
    fn null_and_empty_text_mean_absent_as_in_go() {
        let rows = [
            r#"{"process":null,"root":null,"mounts":null,"hooks":null,"annotations":null}"#,
            r#"{"hostname":null,"linux":null}"#,
            r#"{"hostname":"","domainname":"","hooks":{"prestart":null}}"#,
        ];
        for row in rows {
            assert_eq!(parse(row.as_bytes()).unwrap(), Spec::default(), "{row}");
        }
        let linux = parse(
            br#"{"linux":{"namespaces":null,"sysctl":null,"resources":null,"seccomp":null,
                "rootfsPropagation":"","cgroupsPath":"","timeOffsets":null,"netDevices":null}}"#,
        );
        assert_eq!(linux.unwrap().linux, Some(crate::spec::Linux::default()));
        let process = parse_process(br#"{"args":null,"env":null,"user":null,"cwd":null}"#);
        assert_eq!(process.unwrap(), Process::default());
    }

    #[test]
    fn fields_outside_the_specification_are_ignored() {
        let spec = parse(br#"{"windows":{"x":[1,{}]},"linux":{"hugetlb":7},"zzz":null}"#).unwrap();
        assert_eq!(spec.linux, Some(crate::spec::Linux::default()));
    }

    /// The error that `json` gives is one line, short, and holds `wanted`.
    #[track_caller]
    fn check_refused(json: &str, wanted: &str) {
        let error = parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("config.json: "), "{error}");
        assert!(error.contains(wanted), "{error} lacks {wanted}");
        assert!(
            !error.chars().any(char::is_control) && error.len() < 800,
            "{error}"
        );
    }

    #[test]
    fn a_wrong_type_is_one_line_that_names_the_field() {
        for (json, wanted) in [
            (
                r#"{"process":{"rlimits":[{},{},{"hard":"x"}]}}"#,
                "process.rlimits[2].hard: invalid type: string",
            ),
            (
                r#"{"process":{"user":{"uid":4294967296}}}"#,
                "process.user.uid: invalid value: integer",
            ),
            (
                r#"{"process":{"user":{"uid":-1}}}"#,
                "process.user.uid: invalid value: integer `-1`",
            ),
            (
                r#"{"process":{"oomScoreAdj":1e400}}"#,
                "process.oomScoreAdj: number out of range",
            ),
            (
                r#"{"process":{"oomScoreAdj":1.5}}"#,
                "process.oomScoreAdj: invalid type: floating",
            ),
            (
                r#"{"process":{"oomScoreAdj":99999999999999999999}}"#,
                "process.oomScoreAdj: invalid type",
            ),
            (
                r#"{"process":{"terminal":1}}"#,
                "process.terminal: invalid type: integer `1`",
            ),
            (
                r#"{"mounts":{}}"#,
                "mounts: invalid type: map, expected a sequence",
            ),
            (
                r#"{"mounts":[{"options":["a",null]}]}"#,
                "mounts[0].options[1]: invalid type: null",
            ),
            (
                r#"{"root":["/",false]}"#,
                "root: invalid type: sequence, expected struct Root",
            ),
            (
                r#"{"mounts":[[]]}"#,
                "mounts[0]: invalid type: sequence, expected struct Mount",
            ),
            (
                r#"{"linux":{"seccomp":[]}}"#,
                "linux.seccomp: invalid type: sequence",
            ),
        ] {
            check_refused(json, wanted);
        }
    }

    #[test]
    fn an_unknown_or_missing_word_is_one_line_that_names_the_field() {
        for (json, wanted) in [
            (
                r#"{"linux":{"namespaces":[{"type":"moon"}]}}"#,
                "linux.namespaces[0].type: unknown variant `moon`",
            ),
            (
                r#"{"linux":{"namespaces":[{}]}}"#,
                "linux.namespaces[0]: missing field `type`",
            ),
            (
                r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_FOO"}}}"#,
                "linux.seccomp.defaultAction: unknown variant",
            ),
            (
                r#"{"linux":{"seccomp":{"defaultAction":"\n\u001b[31m"}}}"#,
                "linux.seccomp.defaultAction: unknown variant",
            ),
            (
                r#"{"annotations":{"a\nb":7}}"#,
                r"annotations.a\nb: invalid type",
            ),
        ] {
            check_refused(json, wanted);
        }
    }

    #[test]
    fn a_nul_anywhere_is_refused() {
        for (json, wanted) in [
            (
                r#"{"annotations":{"a":"x\u0000y"}}"#,
                "annotations.a: holds a NUL character",
            ),
            (
                r#"{"mounts":[{},{"destination":"/proc\u0000/x"}]}"#,
                "mounts[1].destination: holds a NUL character",
            ),
            (
                r#"{"linux":{"sysctl":{"kernel\u0000.x":"1"}}}"#,
                "holds a NUL character",
            ),
        ] {
            check_refused(json, wanted);
        }
    }

    #[test]
    fn what_is_no_such_document_is_refused() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for (json, wanted) in [
            (r#"{"process":{"args":["\ud800"]}}"#, "process.args[0]: "),
            ("{} x", "trailing characters"),
            ("{", "EOF while parsing"),
            ("", "EOF while parsing"),
            ("[]", "invalid type: sequence, expected struct Spec"),
            (deep.as_str(), "invalid type: sequence"),
        ] {
            check_refused(json, wanted);
        }
    }

    #[test]
    fn deep_nesting_is_refused_or_skipped_without_recursion() {
        for field in ["hooks", "unknown"] {
            let nest = format!("{}{}", r#"{"a":["#.repeat(200_000), "]}".repeat(200_000));
            // An unknown field is skipped whatever it holds; what counts is that nothing overflows.
            let _ = parse(format!(r#"{{"{field}":{nest}}}"#).as_bytes());
        }
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_no_nul() {
        let spec = parse(br#"{"hostname":"a\\u0000"}"#).unwrap();
        assert_eq!(spec.hostname.as_deref(), Some(r"a\u0000"));
    }

    #[test]
    fn an_oversized_document_is_refused_before_it_is_all_read() {
        let error = read_document("config.json", &mut std::io::repeat(b' ')).unwrap_err();
        assert_eq!(error.to_string(), "config.json: larger than 4194304 bytes");
        assert!(parse(&vec![b' '; MAX_DOCUMENT + 1]).is_err());
    }

    #[test]
    fn state_is_written_as_hooks_expect() {
        let json = r#"{"ociVersion":"1.3.0","id":"a","status":"created","pid":7,"bundle":"/b"}"#;
        let state: State = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&state).unwrap(), json);
    }
}
