//! Generates the clients and servers of gRPC's test services.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tower_grpc_build::configure()
        .bytes(".grpc.testing.Payload.body")
        .file_descriptor_set("interop")
        .compile(
            &[
                "grpc/testing/test.proto",
                "grpc/testing/benchmark_service.proto",
            ],
            &["proto"],
        )?;
    Ok(())
}
