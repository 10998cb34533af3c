//! Runs [`fuzz::registry`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::registry::run(input));
