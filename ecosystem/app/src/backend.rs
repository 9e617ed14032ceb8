//! The gRPC backend, and how the front calls it.
//!
//! It speaks the standard health protocol, whose stubs `tonic-health` publishes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tonic::codegen::tokio_stream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::retry::Policy;
use tower::retry::backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff};
use tower::retry::budget::{Budget, TpsBudget};
use tower::util::{BoxCloneSyncService, rng::HasherRng};
use tower::{BoxError, ServiceBuilder};

/// What `ask` makes: a client that takes the name of a service and answers how it is.
pub type Ask = BoxCloneSyncService<String, ServingStatus, BoxError>;

/// A backend that watches over a `steady` service, one that is `slow` to answer, and a `flaky` one that
/// answers every third time only. It knows no other.
#[derive(Debug, Default)]
pub struct Backend {
    flaky_calls: AtomicU32,
}

#[tonic::async_trait]
impl Health for Backend {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "steady" => Ok(Response::new(answer(ServingStatus::Serving))),
            "slow" => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                Ok(Response::new(answer(ServingStatus::NotServing)))
            }
            "flaky" if self.flaky_calls.fetch_add(1, Ordering::Relaxed) % 3 < 2 => {
                Err(Status::unavailable("try again"))
            }
            "flaky" => Ok(Response::new(answer(ServingStatus::Serving))),
            unknown => Err(Status::not_found(unknown)),
        }
    }

    type WatchStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let statuses = [ServingStatus::NotServing, ServingStatus::Serving];
        let stream = tokio_stream::iter(statuses.map(|status| Ok(answer(status))));
        Ok(Response::new(Box::pin(stream)))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// A client of the backend that bounds each attempt by `deadline` and tries again while the backend is
/// unavailable.
pub fn ask(channel: Channel, deadline: Duration) -> Ask {
    let client = HealthClient::new(channel);
    let check = tower::service_fn(move |service: String| {
        let mut client = client.clone();
        async move {
            let response = client.check(HealthCheckRequest { service }).await?;
            Ok::<_, Status>(response.into_inner().status())
        }
    });
    let stack = ServiceBuilder::new()
        .buffer(64)
        .retry(WhileUnavailable::new())
        .timeout(deadline)
        .service(check);
    BoxCloneSyncService::new(stack)
}

/// Tries again after `UNAVAILABLE`: up to three times, with growing pauses, out of a shared budget.
#[derive(Clone)]
struct WhileUnavailable {
    left: u32,
    pause: ExponentialBackoff,
    budget: Arc<TpsBudget>,
}

impl WhileUnavailable {
    fn new() -> Self {
        let (least, most) = (Duration::from_millis(1), Duration::from_millis(20));
        let mut pauses = ExponentialBackoffMaker::new(least, most, 0.5, HasherRng::default())
            .expect("the bounds are in order");
        Self {
            left: 3,
            pause: pauses.make_backoff(),
            budget: Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2)),
        }
    }
}

impl<Res> Policy<String, Res, BoxError> for WhileUnavailable {
    type Future = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

    fn retry(
        &mut self,
        _: &mut String,
        result: &mut Result<Res, BoxError>,
    ) -> Option<Self::Future> {
        let Err(error) = result else {
            self.budget.deposit();
            return None;
        };
        let status = error.downcast_ref::<Status>()?;
        if status.code() != Code::Unavailable || self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        Some(Box::pin(self.pause.next_backoff()))
    }

    fn clone_request(&mut self, service: &String) -> Option<String> {
        Some(service.clone())
    }
}
