//! The health service, `grpc.health.v1`: tells whether services are well, once or as it changes.
//!
//! Load balancers and Kubernetes ask it. Add the server to a [`Router`](crate::server::Router), and keep the
//! [`HealthReporter`] to say how the services are.
//!
//! # Example
//!
//! ```
//! use tower_grpc::health::{Health, health_reporter};
//!
//! let (reporter, server) = health_reporter();
//! reporter.set("shop.v1.Orders", Health::Serving);
//! // … and when the server is about to go:
//! reporter.shut_down();
//! # let _ = server;
//! ```

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::watch;

use crate::{Request, Response, Status};

/// The generated code of the service: a client of it, above all.
#[allow(missing_docs, reason = "the protocol's own documentation says it")]
#[rustfmt::skip]
pub mod pb {
    include!("pb/grpc.health.v1.rs");
}

use pb::health_check_response::ServingStatus;
use pb::server::HealthServer;
use pb::{HealthCheckRequest, HealthCheckResponse};

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It isn't known how it is.
    Unknown,
    /// It answers calls.
    Serving,
    /// It shouldn't be called.
    NotServing,
}

impl Health {
    fn status(self) -> ServingStatus {
        match self {
            Self::Unknown => ServingStatus::Unknown,
            Self::Serving => ServingStatus::Serving,
            Self::NotServing => ServingStatus::NotServing,
        }
    }
}

/// Makes the health service, and what tells it how the services are.
///
/// The server as a whole, whose name is empty, serves from the start; services are known once they are
/// [set](HealthReporter::set).
pub fn health_reporter() -> (HealthReporter, HealthServer<HealthService>) {
    let reporter = HealthReporter {
        services: Arc::new(Mutex::new(Services::default())),
    };
    reporter.set("", Health::Serving);
    let service = HealthService {
        services: Arc::clone(&reporter.services),
    };
    (reporter, HealthServer::new(service))
}

/// Tells the health service how the services are. Its clones tell the same.
#[derive(Clone)]
pub struct HealthReporter {
    services: Arc<Mutex<Services>>,
}

/// Answers the calls of the health service; see [`health_reporter`].
pub struct HealthService {
    services: Arc<Mutex<Services>>,
}

/// Every service that was ever named, with those who watch it.
#[derive(Default)]
struct Services {
    known: HashMap<String, watch::Sender<ServingStatus>>,
    /// Nothing serves any more, whatever is set.
    shut_down: bool,
}

/// How many services that aren't known may be watched. Their names come from clients, and each is kept.
const MAX_UNKNOWN: usize = 1000;

impl HealthReporter {
    /// Says how a service is: its full name, or the empty name for the server as a whole.
    ///
    /// After [`shut_down`](Self::shut_down) it changes nothing.
    pub fn set(&self, service: &str, health: Health) {
        let mut services = lock(&self.services);
        if !services.shut_down {
            services.put(service, health.status());
        }
    }

    /// Forgets a service. Who watches it is told that it isn't known.
    pub fn clear(&self, service: &str) {
        lock(&self.services).forget(service);
    }

    /// Says of all services that they shouldn't be called, for good.
    ///
    /// Call it before the server is shut down, so that clients go elsewhere in time.
    pub fn shut_down(&self) {
        let mut services = lock(&self.services);
        services.shut_down = true;
        for status in services.known.values() {
            if *status.borrow() != ServingStatus::ServiceUnknown {
                status.send_replace(ServingStatus::NotServing);
            }
        }
    }
}

impl Services {
    fn put(&mut self, service: &str, status: ServingStatus) {
        match self.known.get(service) {
            Some(sender) => {
                sender.send_if_modified(|now| std::mem::replace(now, status) != status);
            }
            None => {
                let sender = watch::Sender::new(status);
                self.known.insert(service.to_owned(), sender);
            }
        }
    }

    fn forget(&mut self, service: &str) {
        let Some(sender) = self.known.get(service) else {
            return;
        };
        if sender.receiver_count() == 0 {
            self.known.remove(service);
        } else {
            sender.send_replace(ServingStatus::ServiceUnknown);
        }
    }

    fn watch(&mut self, service: &str) -> Result<watch::Receiver<ServingStatus>, Status> {
        if let Some(sender) = self.known.get(service) {
            return Ok(sender.subscribe());
        }
        if self.known.len() >= MAX_UNKNOWN {
            // Nobody waits for these any more.
            self.known.retain(|_, sender| {
                sender.receiver_count() > 0 || *sender.borrow() != ServingStatus::ServiceUnknown
            });
        }
        let is_unknown =
            |sender: &&watch::Sender<_>| *sender.borrow() == ServingStatus::ServiceUnknown;
        if self.known.values().filter(is_unknown).count() >= MAX_UNKNOWN {
            return Err(Status::resource_exhausted(
                "too many services that aren't known are watched",
            ));
        }
        let sender = watch::Sender::new(ServingStatus::ServiceUnknown);
        let receiver = sender.subscribe();
        self.known.insert(service.to_owned(), sender);
        Ok(receiver)
    }
}

fn lock(services: &Mutex<Services>) -> MutexGuard<'_, Services> {
    services.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

impl pb::server::Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let services = lock(&self.services);
        let status = services.known.get(&request.get_ref().service);
        match status.map(|status| *status.borrow()) {
            None | Some(ServingStatus::ServiceUnknown) => {
                Err(Status::not_found("the service isn't known"))
            }
            Some(status) => Ok(Response::new(answer(status))),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<
        Response<impl Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>,
        Status,
    > {
        let receiver = lock(&self.services).watch(&request.get_ref().service)?;
        Ok(Response::new(Changes::new(receiver)))
    }
}

/// A status, and each that comes after.
struct Changes {
    /// Waits for the next, and gives the receiver back.
    next: Pin<Box<dyn Future<Output = Option<Changed>> + Send>>,
}

type Changed = (ServingStatus, watch::Receiver<ServingStatus>);

impl Changes {
    fn new(mut receiver: watch::Receiver<ServingStatus>) -> Self {
        receiver.mark_changed();
        Self {
            next: Box::pin(Self::next(receiver)),
        }
    }

    async fn next(mut receiver: watch::Receiver<ServingStatus>) -> Option<Changed> {
        receiver.changed().await.ok()?;
        let status = *receiver.borrow_and_update();
        Some((status, receiver))
    }
}

impl Stream for Changes {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.next.as_mut().poll(cx).map(|changed| {
            let (status, receiver) = changed?;
            self.next = Box::pin(Self::next(receiver));
            Some(Ok(answer(status)))
        })
    }
}

impl fmt::Debug for HealthReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthReporter").finish_non_exhaustive()
    }
}

impl fmt::Debug for HealthService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthService").finish_non_exhaustive()
    }
}
