//! Generates the table's services, by volo's own compiler.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const INCLUDE: &str = "../../../interop/proto";

    volo_build::Builder::protobuf()
        .add_service(format!("{INCLUDE}/grpc/testing/benchmark_service.proto"))
        .include_dirs(vec![INCLUDE.into()])
        .filename("volo.rs".into())
        .write()?;
    Ok(())
}
