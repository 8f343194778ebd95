//! The rules of the house that a compiler does not check.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of the workspace each crate may depend on: the arrows of `ARCHITECTURE.md`.
const EDGES: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("cgroup", &["sys"]),
    ("checkpoint", &["sys", "cgroup"]),
    ("criu-rpc", &["sys"]),
    ("container", &["sys", "cgroup", "criu-rpc"]),
    ("floe-oci", &["sys", "cgroup", "container", "tests"]),
    (
        "floe-criu",
        &["sys", "cgroup", "checkpoint", "criu-rpc", "tests"],
    ),
    ("monitor", &["sys"]),
    ("floe", &["sys", "cgroup", "monitor", "tests"]),
    ("floed", &["sys", "cgroup", "monitor"]),
    ("tests", &["sys", "criu-rpc"]),
    ("xtask", &[]),
];

#[test]
fn crates_depend_in_one_direction_only() {
    let metadata = cargo(&[
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--offline",
    ]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON from cargo");
    let packages = metadata["packages"].as_array().expect("packages");
    let names: Vec<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    assert!(
        names.contains(&"floe-oci"),
        "cargo lists the workspace: {names:?}"
    );
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| *crate_name == name) else {
            wrong.push(format!("`{name}` has no row here"));
            continue;
        };
        // Development dependencies count too: a test of `sys` that needs `container` is in the wrong place.
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("a name");
            assert!(
                on != "tests" || dependency["kind"] == "dev",
                "`tests` is for tests only"
            );
            if names.contains(&on) && !allowed.contains(&on) {
                wrong.push(format!("`{name}` must not depend on `{on}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn architecture_is_short_and_its_paths_exist() {
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    assert!(
        text.lines().count() <= 250,
        "ARCHITECTURE.md has more than 250 lines"
    );
    let words = text.split(|c: char| c.is_whitespace() || "`()[],;:".contains(c));
    let roots = ["crates/", "xtask/", "tests/", "docs/", "fuzz/", ".ci/"];
    let paths: Vec<&str> = words
        .filter(|word| roots.iter().any(|root| word.starts_with(root)))
        .collect();
    assert!(!paths.is_empty(), "no path found in ARCHITECTURE.md");
    let missing: Vec<&&str> = paths
        .iter()
        .filter(|path| !workspace().join(path.trim_end_matches('.')).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what is not there: {missing:?}"
    );
}

#[test]
fn roadmap_has_every_row_and_a_test_for_each_claim() {
    let text = fs::read_to_string(workspace().join("docs/roadmap.md")).expect("docs/roadmap.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| id "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let ids: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    for (letter, last) in [('N', 19), ('T', 10), ('C', 5)] {
        for number in 1..=last {
            assert!(
                ids.contains(&format!("{letter}{number}").as_str()),
                "no row {letter}{number}"
            );
        }
    }
    for row in rows {
        let [id, _, state, _, tests] = row.as_slice() else {
            panic!("a row of five cells: {row:?}")
        };
        assert_eq!(
            ["done", "part"].contains(state),
            !named_tests(tests).is_empty(),
            "{id}: a state needs its test"
        );
    }
}

#[test]
fn tests_that_documents_name_exist() {
    for document in ["docs/roadmap.md", "docs/conformance.md", "SECURITY.md"] {
        let text = fs::read_to_string(workspace().join(document)).expect("a document");
        for test in named_tests(&text) {
            let (file, name) = test.split_once("::").expect("file::test");
            let places = [
                "tests/root",
                "crates/checkpoint/tests/live",
                "crates/cgroup/tests",
                "crates/container/tests",
            ];
            let sources = places.map(|place| {
                fs::read_to_string(workspace().join(format!("{place}/{file}.rs")))
                    .unwrap_or_default()
            });
            let wanted = format!("fn {name}(");
            assert!(
                sources.iter().any(|source| source.contains(&wanted)),
                "{document}: no `{file}.rs` has a test `{name}`"
            );
        }
    }
}

/// What is written `file::test` in backticks, but for the words of that very rule.
fn named_tests(text: &str) -> Vec<&str> {
    let words = text.split('`').skip(1).step_by(2);
    words
        .filter(|word| word.contains("::") && !word.contains([' ', '=']) && *word != "file::test")
        .collect()
}

#[test]
fn unsafe_code_stays_in_sys() {
    let mut found = Vec::new();
    for file in sources(&workspace()) {
        let relative = file
            .strip_prefix(workspace())
            .expect("below the workspace")
            .to_owned();
        if relative.starts_with("crates/sys") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let lines = text.lines().enumerate().filter(|(_, line)| {
            let code = line.split("//").next().unwrap_or_default();
            let word = concat!("uns", "afe");
            [" {", " fn", " impl", " extern", "("]
                .iter()
                .any(|next| code.contains(&format!("{word}{next}")))
        });
        found.extend(lines.map(|(number, _)| format!("{}:{}", relative.display(), number + 1)));
    }
    assert!(
        found.is_empty(),
        "the lint's exception is for crates/sys: {found:#?}"
    );
}

#[test]
fn files_are_at_most_800_lines() {
    let long = sources(&workspace()).into_iter().filter_map(|file| {
        let lines = fs::read_to_string(&file)
            .expect("a source file")
            .lines()
            .count();
        (lines > 800).then(|| format!("{}: {lines}", file.display()))
    });
    let long: Vec<String> = long.collect();
    assert!(long.is_empty(), "one file, one subject: {long:#?}");
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(args)
        .current_dir(workspace())
        .output()
        .expect("cargo");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8 from cargo")
}

/// Every Rust file of the workspace but what cargo made.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory of the workspace") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files.extend(sources(&path));
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files
}
