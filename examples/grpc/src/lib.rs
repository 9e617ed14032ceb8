//! What the examples of a server and of its client have in common: the code that was generated, and the data.

/// Greetings: `proto/helloworld.proto`.
#[allow(missing_docs, reason = "the .proto file doesn't say more")]
pub mod helloworld {
    tower_grpc::include_proto!("helloworld");
}

/// Places and ways: `proto/route_guide.proto`.
#[allow(missing_docs, reason = "the .proto file doesn't say more")]
pub mod routeguide {
    tower_grpc::include_proto!("routeguide");

    /// What the file says, for reflection.
    pub const DESCRIPTOR: &[u8] =
        tower_grpc::include_file_descriptor_set!("route_guide_descriptor");
}
