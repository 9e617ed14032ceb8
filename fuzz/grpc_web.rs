#![no_main]

#[allow(dead_code, reason = "another target is there too")]
#[path = "../tower-grpc/tests/it/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::web(data));
