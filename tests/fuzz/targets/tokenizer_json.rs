//! See the body of the same name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kindling_fuzz::tokenizer_json(bytes));
