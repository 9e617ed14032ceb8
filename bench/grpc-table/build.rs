//! Generates the same services for each side.

use std::path::PathBuf;

const PROTO: &str = "grpc/testing/benchmark_service.proto";
const INCLUDE: &str = "../../interop/proto";
const BYTES: &str = ".grpc.testing.Payload.body";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tower_grpc_build::configure()
        .bytes(BYTES)
        .compile(&[PROTO], &[INCLUDE])?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("tonic");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .bytes(BYTES)
        .out_dir(&out)
        .compile_fds(protox::compile([PROTO], [INCLUDE])?)?;
    Ok(())
}
