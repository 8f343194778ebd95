//! Makes every file of `root/` a module of the test target `root`: a new test file needs no list.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=root");
    let mut names: Vec<String> = fs::read_dir(package.join("root"))
        .expect("the directory of root tests")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "main")
        .collect();
    names.sort();
    let mut modules = String::new();
    for name in names {
        let path = package.join("root").join(format!("{name}.rs"));
        writeln!(modules, "#[cfg(test)]\n#[path = {path:?}]\nmod {name};")
            .expect("writing to a String");
    }
    fs::write(out.join("root_modules.rs"), modules).expect("write the module list");
}
