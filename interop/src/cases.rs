//! What a client of the tests checks.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::time::timeout;
use tower_grpc::{GrpcBody, Status};
use tower_service::Service;

use crate::Soak;
use crate::checks::{Checks, LARGE_REQUEST, LARGE_RESPONSE};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The cases' official names.
pub const NAMES: [&str; 21] = [
    "empty_unary",
    "cacheable_unary",
    "large_unary",
    "client_compressed_unary",
    "server_compressed_unary",
    "client_streaming",
    "client_compressed_streaming",
    "server_streaming",
    "server_compressed_streaming",
    "ping_pong",
    "empty_stream",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "custom_metadata",
    "rpc_soak",
    "channel_soak",
];

/// How long a call gets that should end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server has done otherwise than the case wants.
#[derive(Debug)]
pub struct Failure {
    what: String,
    source: Option<Status>,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|status| status as _)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self {
            what: format!("the call failed: {:?}: {}", status.code(), status.message()),
            source: Some(status),
        }
    }
}

/// Runs cases over transports that `connect` makes.
#[derive(Debug)]
pub struct Cases<F> {
    connect: F,
    soak: Soak,
}

impl<F, S, B> Cases<F>
where
    F: AsyncFn() -> Result<S, BoxError>,
    // A transport.
    S: Service<http::Request<GrpcBody>, Response = http::Response<B>> + Clone,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    // Its responses.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Cases whose transports `connect` makes: one, or for `channel_soak` one for each call.
    pub fn new(connect: F) -> Self {
        Self {
            connect,
            soak: Soak::default(),
        }
    }

    /// Says how long the soak tests are.
    #[must_use]
    pub fn with_soak(mut self, soak: Soak) -> Self {
        self.soak = soak;
        self
    }

    /// Runs the case of this name.
    ///
    /// # Errors
    ///
    /// What the server has done otherwise than it should, or that there is no such case.
    pub async fn run(&self, name: &str) -> Result<(), Failure> {
        match name {
            "rpc_soak" => return self.rpc_soak().await,
            "channel_soak" => return self.channel_soak().await,
            _ => {}
        }
        match timeout(PATIENCE, self.run_short(name)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new(format!("not done after {PATIENCE:?}"))),
        }
    }

    async fn run_short(&self, name: &str) -> Result<(), Failure> {
        let checks = Checks::new(self.service().await?);
        match name {
            "empty_unary" => checks.empty_unary().await,
            "cacheable_unary" => checks.cacheable_unary().await,
            "large_unary" => checks.large_unary(LARGE_REQUEST, LARGE_RESPONSE).await,
            "client_compressed_unary" => checks.client_compressed_unary().await,
            "server_compressed_unary" => checks.server_compressed_unary().await,
            "client_streaming" => checks.client_streaming().await,
            "client_compressed_streaming" => checks.client_compressed_streaming().await,
            "server_streaming" => checks.server_streaming().await,
            "server_compressed_streaming" => checks.server_compressed_streaming().await,
            "ping_pong" => checks.ping_pong().await,
            "empty_stream" => checks.empty_stream().await,
            "status_code_and_message" => checks.status_code_and_message().await,
            "special_status_message" => checks.special_status_message().await,
            "unimplemented_method" => checks.unimplemented_method().await,
            "unimplemented_service" => checks.unimplemented_service().await,
            "cancel_after_begin" => checks.cancel_after_begin().await,
            "cancel_after_first_response" => checks.cancel_after_first_response().await,
            "timeout_on_sleeping_server" => checks.timeout_on_sleeping_server().await,
            "custom_metadata" => checks.custom_metadata().await,
            _ => Err(Failure::new(format!(
                "there is no case `{name}`; there are {}",
                NAMES.join(", ")
            ))),
        }
    }

    async fn service(&self) -> Result<S, Failure> {
        (self.connect)()
            .await
            .map_err(|error| Failure::new(format!("no connection: {error}")))
    }

    async fn rpc_soak(&self) -> Result<(), Failure> {
        let checks = Checks::new(self.service().await?);
        self.soak.run(async || self.soak_call(&checks).await).await
    }

    async fn channel_soak(&self) -> Result<(), Failure> {
        self.soak
            .run(async || self.soak_call(&Checks::new(self.service().await?)).await)
            .await
    }

    async fn soak_call(&self, checks: &Checks<S>) -> Result<(), Failure> {
        checks
            .large_unary(self.soak.request_size, self.soak.response_size)
            .await
    }
}
