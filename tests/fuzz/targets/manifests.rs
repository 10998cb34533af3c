//! Runs [`fuzz::manifests`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::manifests::run(input));
