//! Runs [`fuzz::layers`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::layers::run(input));
