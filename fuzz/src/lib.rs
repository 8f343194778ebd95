//! What each fuzz target does with its bytes: every reader of a document from outside.
//!
//! A target holds if it neither panics nor takes long, if an error is one short line, and if what
//! was accepted means the same after it was written and read again.

use std::fmt::{Debug, Display};

use container::spec::{self, Seccomp, SeccompArch, Spec};

/// A bundle's `config.json`: read, judged, its filter compiled.
pub fn config(data: &[u8]) {
    let Some(spec) = accepted(spec::parse(data)) else {
        return;
    };
    same(&spec, &spec::parse(&json(&spec)));
    if accepted(spec::validate(&spec)).is_none() {
        return;
    }
    if let Some(seccomp) = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) {
        compile(seccomp);
    }
}

/// The document of `exec --process`.
pub fn process(data: &[u8]) {
    let Some(process) = accepted(spec::parse_process(data)) else {
        return;
    };
    same(&process, &spec::parse_process(&json(&process)));
    accepted(spec::validate_process(&process));
}

/// The document of `update --resources`.
pub fn resources(data: &[u8]) {
    let Some(resources) = accepted(spec::parse_resources(data)) else {
        return;
    };
    same(&resources, &spec::parse_resources(&json(&resources)));
    accepted(spec::validate_resources(&resources));
}

/// A filter's rules alone, in an otherwise good configuration.
pub fn seccomp(data: &[u8]) {
    let Ok(seccomp) = serde_json::from_slice::<Seccomp>(data) else {
        return;
    };
    let mut config: Spec = spec::sample(true);
    config.linux.get_or_insert_default().seccomp = Some(seccomp.clone());
    if spec::validate(&config).is_ok() {
        compile(&seccomp);
    }
}

/// A container's `state.json`, damaged or planted.
pub fn state(data: &[u8]) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let directory = root.path().join("one");
    std::fs::create_dir(&directory).expect("the container's directory");
    std::fs::write(directory.join("state.json"), data).expect("the state file");
    for state in accepted(container::list(root.path())).unwrap_or_default() {
        assert!(!json(&state).is_empty());
    }
}

fn compile(seccomp: &Seccomp) {
    for native in [SeccompArch::X86_64, SeccompArch::Aarch64] {
        let Some(filter) = accepted(container::seccomp::compile(seccomp, native)) else {
            return;
        };
        let last = filter.program.len() - 1;
        for (at, instruction) in filter.program.iter().enumerate() {
            // The kernel refuses a jump past the end; BPF_RET is 6, BPF_JMP|BPF_JA is 5.
            let skip = match instruction.code {
                5 => instruction.k as usize,
                _ => usize::from(instruction.jt.max(instruction.jf)),
            };
            assert!(at + skip < last || skip == 0, "{at}: {instruction:?}");
        }
        assert_eq!(filter.program[last].code, 6);
    }
}

fn accepted<T, E: Display>(result: Result<T, E>) -> Option<T> {
    result
        .map_err(|error| {
            let text = error.to_string();
            assert!(
                !text.chars().any(char::is_control),
                "more than a line: {text:?}"
            );
            assert!(text.len() < 2000, "{} bytes", text.len());
        })
        .ok()
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("what was read can be written")
}

fn same<T: PartialEq + Debug, E: Debug>(first: &T, again: &Result<T, E>) {
    assert_eq!(Some(first), again.as_ref().ok(), "{again:?}");
}
