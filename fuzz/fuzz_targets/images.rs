#![no_main]

#[path = "../src/images.rs"]
mod images;

libfuzzer_sys::fuzz_target!(|data: &[u8]| images::images(data));
