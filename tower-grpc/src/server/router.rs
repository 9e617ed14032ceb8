//! Several services in one.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body;
use tower_service::Service;

use super::{ResponseFuture, failure, unimplemented};
use crate::{BoxError, GrpcBody, Status};

/// A service of a `.proto` file: what generated servers are.
pub trait GrpcService<B> {
    /// Its full name: `helloworld.Greeter`.
    const NAME: &'static str;

    /// Answers a call.
    fn handle(&self, request: http::Request<B>) -> ResponseFuture;
}

/// Several gRPC services in one, told apart by their names.
///
/// It is a `Service` of HTTP requests whose body is `B`: that of the server it is mounted on. Calls of services that
/// it hasn't are answered with `UNIMPLEMENTED`. Its clones share the services.
///
/// **Readiness.** It is always ready. A service that isn't is waited for by each call's future.
///
/// # Example
///
/// ```
/// use tower_grpc::health::health_reporter;
/// use tower_grpc::server::Router;
/// # use http_body_util::Full;
/// # use bytes::Bytes;
///
/// let (_reporter, health) = health_reporter();
/// let router: Router<Full<Bytes>> = Router::new().add_service(health);
/// assert_eq!(router.names().collect::<Vec<_>>(), ["grpc.health.v1.Health"]);
/// ```
pub struct Router<B> {
    /// In the order in which they were added.
    services: Arc<[Entry<B>]>,
}

type Entry<B> = (&'static str, Arc<dyn Route<B>>);

trait Route<B>: Send + Sync {
    fn route(&self, request: http::Request<B>) -> ResponseFuture;
}

/// A generated server as it is.
struct Generated<S>(S);

/// Any other service, of which each call has a clone.
struct Cloned<S>(S);

impl<B> Router<B> {
    /// A router of no services.
    pub fn new() -> Self {
        Self {
            services: Arc::new([]),
        }
    }

    /// Adds a generated server, in the place of one that has its name.
    #[must_use]
    pub fn add_service<S>(self, service: S) -> Self
    where
        S: GrpcService<B> + Send + Sync + 'static,
    {
        self.add(S::NAME, Arc::new(Generated(service)))
    }

    /// Adds a service under the full name of the service in the `.proto` file: a generated server in layers, for
    /// one.
    ///
    /// An error of it becomes a status by [`Status::from_error`].
    #[must_use]
    pub fn add_layered<S, ResBody>(self, name: &'static str, service: S) -> Self
    where
        // The service.
        S: Service<http::Request<B>, Response = http::Response<ResBody>>,
        S: Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        // The bodies.
        B: Send + 'static,
        ResBody: Body<Data = Bytes> + Send + 'static,
        ResBody::Error: Into<BoxError>,
    {
        self.add(name, Arc::new(Cloned(service)))
    }

    /// The names of the services.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.services.iter().map(|(name, _)| *name)
    }

    fn add(mut self, name: &'static str, service: Arc<dyn Route<B>>) -> Self {
        let others = self.services.iter().filter(|(known, _)| *known != name);
        let mut services: Vec<Entry<B>> = others.cloned().collect();
        services.push((name, service));
        self.services = services.into();
        self
    }

    /// The service that a path begins with.
    ///
    /// There are a handful, and nearly all others end elsewhere: looking at one byte for each costs less than finding out
    /// where the name ends.
    fn get(&self, path: &str) -> Option<&dyn Route<B>> {
        let path = path.strip_prefix('/')?.as_bytes();
        let found = self.services.iter().find(|(name, _)| {
            path.get(name.len()) == Some(&b'/') && path.starts_with(name.as_bytes())
        });
        found.map(|(_, service)| &**service)
    }
}

impl<B> Default for Router<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Clone for Router<B> {
    fn clone(&self) -> Self {
        Self {
            services: Arc::clone(&self.services),
        }
    }
}

impl<B> fmt::Debug for Router<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl<B> Service<http::Request<B>> for Router<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<GrpcBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        match self.get(request.uri().path()) {
            Some(service) => service.route(request),
            None => unimplemented(request),
        }
    }
}

impl<B, S> Route<B> for Generated<S>
where
    S: GrpcService<B> + Send + Sync,
{
    fn route(&self, request: http::Request<B>) -> ResponseFuture {
        self.0.handle(request)
    }
}

impl<B, S, ResBody> Route<B> for Cloned<S>
where
    // The service.
    S: Service<http::Request<B>, Response = http::Response<ResBody>>,
    S: Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    // The bodies.
    B: Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    fn route(&self, request: http::Request<B>) -> ResponseFuture {
        let mut service = self.0.clone();
        ResponseFuture::new(None, async move {
            let called = async {
                poll_fn(|cx| service.poll_ready(cx)).await?;
                service.call(request).await
            };
            match called.await {
                Ok(response) => response.map(GrpcBody::new),
                Err(error) => failure(Status::from_error(error)),
            }
        })
    }
}
