//! Generates the clients and servers from the `.proto` files.

use tower_grpc_build::Error;

fn main() -> Result<(), Error> {
    tower_grpc_build::compile("proto/helloworld.proto")?;
    tower_grpc_build::configure()
        .file_descriptor_set("route_guide_descriptor")
        .compile(&["proto/route_guide.proto"], &["proto"])
}
