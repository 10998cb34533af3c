//! Runs [`fuzz::signatures`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::signatures::run(input));
