//! Tests without sockets: a client calls a server in memory.
//!
//! [`in_memory`] makes a client's transport out of a generated server, or a [`Router`](crate::server::Router). All of
//! the protocol but HTTP/2 itself is at work: framing, compression, deadlines, trailers, cancellation.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::Request;
use tower_service::Service;

use crate::GrpcBody;

/// Lets clients call `server` in memory.
///
/// A call runs within the client's future, or its stream; nothing is spawned, so that it also runs on
/// paused time and ends with its caller.
///
/// # Example
///
/// ```
/// # mod example {
/// use tower_grpc::health::{health_reporter, pb};
/// use tower_grpc::test::in_memory;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # pub async fn main() -> Result<(), tower_grpc::Status> {
/// let (_reporter, server) = health_reporter();
/// let mut client = pb::client::HealthClient::new(in_memory(server));
/// let health = client.check(pb::HealthCheckRequest::default()).await?;
/// assert_eq!(health.get_ref().status(), pb::health_check_response::ServingStatus::Serving);
/// # Ok(())
/// # }
/// # }
/// # example::main().unwrap();
/// ```
pub fn in_memory<S>(server: S) -> InMemory<S> {
    InMemory { server }
}

/// A transport to a server in the same process; see [`in_memory`].
#[derive(Clone, Debug)]
pub struct InMemory<S> {
    server: S,
}

impl<S> Service<Request<GrpcBody>> for InMemory<S>
where
    S: Service<Request<GrpcBody>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.server.poll_ready(cx)
    }

    fn call(&mut self, request: Request<GrpcBody>) -> S::Future {
        self.server.call(request)
    }
}
