//! The fuzz target of images on the stable toolchain: over its corpus, and over simple damage to it.

#[path = "../../../fuzz/src/images.rs"]
#[expect(
    unreachable_pub,
    reason = "the fuzz package is a library of its own, too"
)]
mod target;

use std::path::Path;

#[test]
fn image_directories() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/images");
    let mut files = 0;
    for entry in std::fs::read_dir(&directory).expect("the corpus") {
        let content = std::fs::read(entry.expect("an entry").path()).expect("a file of the corpus");
        target::images(&content);
        for round in 1..=400 {
            target::images(&damaged(&content, round));
        }
        files += 1;
    }
    assert!(files > 0, "no corpus in {}", directory.display());
}

/// The content with a few bytes changed, cut out or repeated; the same on every run.
fn damaged(content: &[u8], seed: u64) -> Vec<u8> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % (limit as u64 + 1)).expect("small")
    };
    let mut bytes = content.to_vec();
    for _ in 0..=below(3) {
        let (at, length) = (below(bytes.len() - 1), below(9));
        let end = (at + length).min(bytes.len());
        let piece = match below(3) {
            0 => vec![0xff; end - at],
            1 => vec![below(255) as u8; end - at],
            2 => bytes[at..end].repeat(2),
            _ => Vec::new(),
        };
        bytes.splice(at..end, piece);
    }
    bytes
}
