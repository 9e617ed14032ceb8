//! A web application and a gRPC service on one port.
//!
//! ```sh
//! cargo run --example one-port
//! curl http://127.0.0.1:8081/
//! ```
//!
//! The routes of the application win; what they don't have goes to gRPC. Whether a connection speaks HTTP/1 or HTTP/2 is
//! seen from its first bytes.

use examples_grpc::helloworld::server::{Greeter, GreeterServer};
use examples_grpc::helloworld::{HelloReply, HelloRequest};
use tower_grpc::{Response, Status};
use tower_web::prelude::{App, get};

#[get("/")]
async fn home() -> String {
    "Call helloworld.Greeter/SayHello here, too.\n".to_owned()
}

struct Greet;

impl Greeter for Greet {
    async fn say_hello(
        &self,
        request: tower_grpc::Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let message = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { message }))
    }
}

fn app() -> App {
    App::new().route(home).mount("", GreeterServer::new(Greet))
}

#[tower_web::main]
async fn main() -> tower_web::Result {
    println!("try: curl http://127.0.0.1:8081/");
    app().serve("127.0.0.1:8081").await
}

#[cfg(test)]
mod tests {
    use examples_grpc::helloworld::client::GreeterClient;
    use tower_grpc::Code;
    use tower_grpc::health::pb::HealthCheckRequest;
    use tower_grpc::health::pb::client::HealthClient;
    use tower_grpc::test::in_memory;

    use super::*;

    #[tokio::test]
    async fn pages_and_calls_are_answered_by_one_service() {
        let page = app().test().get("/").await;
        page.assert_text("Call helloworld.Greeter/SayHello here, too.\n");

        let mut client = GreeterClient::new(in_memory(app().build().unwrap()));
        let name = "Ferris".to_owned();
        let reply = client.say_hello(HelloRequest { name }).await.unwrap();
        assert_eq!(reply.get_ref().message, "Hello, Ferris!");
    }

    #[tokio::test]
    async fn a_call_that_neither_has_is_unimplemented() {
        let service = in_memory(app().build().unwrap());
        let mut health = HealthClient::new(service);
        let status = health
            .check(HealthCheckRequest::default())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
}
