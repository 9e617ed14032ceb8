//! A client that calls one method.
//!
//! ```sh
//! cargo run --example helloworld-client -- Ferris
//! ```

use std::error::Error;
use std::time::Duration;

use examples_grpc::helloworld::HelloRequest;
use examples_grpc::helloworld::client::GreeterClient;
use tower_grpc::Request;
use tower_grpc::client::Channel;

fn request(name: Option<String>) -> Request<HelloRequest> {
    let name = name.unwrap_or_else(|| "world".to_owned());
    Request::new(HelloRequest { name }).with_timeout(Duration::from_secs(5))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let channel = Channel::connect("http://[::1]:50051").await?;
    let mut client = GreeterClient::new(channel);
    let reply = client.say_hello(request(std::env::args().nth(1))).await?;
    println!("{}", reply.into_inner().message);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_the_world_where_nobody_is_named() {
        assert_eq!(request(None).into_inner().name, "world");
        assert_eq!(
            request(Some("Ferris".to_owned())).into_inner().name,
            "Ferris"
        );
    }
}
