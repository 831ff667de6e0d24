#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| predictgate_fuzz::headers::run(data));
