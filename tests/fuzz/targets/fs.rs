//! Runs [`fuzz::fs`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::fs::run(input));
