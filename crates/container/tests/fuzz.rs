//! The fuzz targets on the stable toolchain: over their corpus, and over simple damage to it.

#[expect(
    unreachable_pub,
    reason = "the fuzz package is a library of its own, too"
)]
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

/// Runs a target over its corpus and `rounds` mutations of each file, the same on every run.
fn run(target: fn(&[u8]), name: &str, rounds: u64) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let mut files = 0;
    for entry in std::fs::read_dir(&directory).expect("the corpus") {
        let content = std::fs::read(entry.expect("an entry").path()).expect("a file of the corpus");
        target(&content);
        for round in 1..=rounds {
            target(&damaged(&content, round));
        }
        files += 1;
    }
    assert!(files > 0, "no corpus in {}", directory.display());
}

/// The content with a few pieces replaced, repeated or cut out.
fn damaged(content: &[u8], seed: u64) -> Vec<u8> {
    const PIECES: [&[u8]; 14] = [
        b"null",
        b"-1",
        b"18446744073709551616",
        b"1e999",
        b"\"\\u0000\"",
        b"[]",
        b"{}",
        b"[[[[[[",
        b"\xff",
        b"\"",
        b",",
        b"}",
        b"true",
        b"\"\\ud800\"",
    ];
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % (limit as u64 + 1)).expect("small")
    };
    let mut bytes = content.to_vec();
    for _ in 0..=below(2) {
        let (at, len) = (below(bytes.len()), below(12));
        let end = (at + len).min(bytes.len());
        let piece = match below(2) {
            0 => PIECES[below(PIECES.len() - 1)].to_vec(),
            1 => bytes[at..end].repeat(3),
            _ => Vec::new(),
        };
        bytes.splice(at..end, piece);
    }
    bytes
}

#[test]
fn config_documents() {
    run(targets::config, "config", 1500);
}

#[test]
fn process_documents() {
    run(targets::process, "process", 1500);
}

#[test]
fn resources_documents() {
    run(targets::resources, "resources", 1500);
}

#[test]
fn seccomp_rules() {
    run(targets::seccomp, "seccomp", 1000);
}

#[test]
fn state_files() {
    run(targets::state, "state", 300);
}
