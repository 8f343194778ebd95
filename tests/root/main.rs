//! Root tests: real containers, one process per test (`cargo xtask test`).
//!
//! Every other file in this directory is a module of this target; `build.rs` lists them.

include!(concat!(env!("OUT_DIR"), "/root_modules.rs"));
