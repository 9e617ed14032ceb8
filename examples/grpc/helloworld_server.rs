//! A server with one method.
//!
//! ```sh
//! cargo run --example helloworld-server
//! ```
//!
//! Ask it with `cargo run --example helloworld-client`.

use std::error::Error;

use examples_grpc::helloworld::server::{Greeter, GreeterServer};
use examples_grpc::helloworld::{HelloReply, HelloRequest};
use tower_grpc::server::Server;
use tower_grpc::{Request, Response, Status};

struct Greet;

impl Greeter for Greet {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let name = request.into_inner().name;
        if name.is_empty() {
            return Err(Status::invalid_argument("whom shall I greet?"));
        }
        let message = format!("Hello, {name}!");
        Ok(Response::new(HelloReply { message }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = "[::1]:50051";
    println!("listening on {address}");
    Server::builder()
        .add_service(GreeterServer::new(Greet))
        .serve(address)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use examples_grpc::helloworld::client::GreeterClient;
    use tower_grpc::Code;
    use tower_grpc::test::in_memory;

    use super::*;

    async fn greet(name: &str) -> Result<String, Status> {
        let mut client = GreeterClient::new(in_memory(GreeterServer::new(Greet)));
        let name = name.to_owned();
        let reply = client.say_hello(HelloRequest { name }).await?;
        Ok(reply.into_inner().message)
    }

    #[tokio::test]
    async fn greets_by_name() {
        assert_eq!(greet("Ferris").await.unwrap(), "Hello, Ferris!");
    }

    #[tokio::test]
    async fn nobody_is_not_greeted() {
        let status = greet("").await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
