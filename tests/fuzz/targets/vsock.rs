//! Runs [`fuzz::vsock`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::vsock::run(input));
