//! Generates the table's services.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const INCLUDE: &str = "../../../interop/proto";
    const SERVICE: &str = "grpc/testing/benchmark_service.proto";
    const MESSAGES: &str = "grpc/testing/messages.proto";

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = out.join("descriptors.bin");
    let mut compiler = protox::Compiler::new([INCLUDE])?;
    compiler.include_imports(true).open_file(SERVICE)?;
    std::fs::write(&descriptors, compiler.encode_file_descriptor_set())?;
    connectrpc_build::Config::new()
        .descriptor_set(&descriptors)
        .files(&[SERVICE, MESSAGES])
        .generate_json(false)
        .include_file("connectrpc.rs")
        .compile()?;
    Ok(())
}
