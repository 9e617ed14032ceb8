//! hyper-util's servers and clients, whose services and connectors are tower's.

use std::convert::Infallible;
use std::future::Ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma, PendingRequests};
use tower::retry::Policy;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

use super::{AMPLE, SHORT, listen, within};

type Body = Full<Bytes>;

/// Serves `service` for the rest of the test, on HTTP/1 and HTTP/2.
async fn serve<S>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// A server that answers with its number, and counts.
async fn numbered(number: usize, calls: Arc<AtomicUsize>) -> SocketAddr {
    serve(tower::service_fn(move |_| {
        calls.fetch_add(1, Ordering::Relaxed);
        let body = Full::from(number.to_string());
        async move { Ok::<_, Infallible>(Response::new(body)) }
    }))
    .await
}

fn client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn get(address: SocketAddr) -> Request<Body> {
    Request::get(format!("http://{address}/"))
        .body(Body::default())
        .unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// A stack that turns the errors of its layers into responses, as a server should.
fn greeter()
-> impl Service<Request<Incoming>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ 'static {
    ServiceBuilder::new()
        .map_result(|result: Result<Response<Body>, BoxError>| {
            result.or_else(|error| {
                let mut response = Response::new(Full::from(error.to_string()));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                Ok::<_, BoxError>(response)
            })
        })
        .load_shed()
        .concurrency_limit(64)
        .timeout(SHORT)
        .service(tower::service_fn(|request: Request<Incoming>| async move {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            let version = format!("{:?}", request.version());
            Ok::<_, BoxError>(Response::new(Full::from(version)))
        }))
}

#[tokio::test]
async fn a_stack_serves_http_1_and_2() {
    within(async {
        let address = serve(greeter()).await;
        let response = client().oneshot(get(address)).await.unwrap();
        assert_eq!(text(response).await, "HTTP/1.1");

        let http2: Client<_, Body> = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let response = http2.oneshot(get(address)).await.unwrap();
        assert_eq!(text(response).await, "HTTP/2.0");
    })
    .await;
}

#[tokio::test]
async fn a_timeout_bounds_a_server() {
    within(async {
        let address = serve(greeter()).await;
        let mut request = get(address);
        *request.uri_mut() = format!("http://{address}/never").parse().unwrap();
        let response = client().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text(response).await, "request timed out");
    })
    .await;
}

/// Tries again while the server is unavailable.
#[derive(Clone)]
struct WhileUnavailable;

impl<E> Policy<Request<Body>, Response<Incoming>, E> for WhileUnavailable {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<Incoming>, E>,
    ) -> Option<Self::Future> {
        let response = result.as_ref().ok()?;
        (response.status() == StatusCode::SERVICE_UNAVAILABLE).then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn a_client_is_the_service_at_the_bottom_of_a_stack() {
    within(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let address = serve(tower::service_fn(move |_| {
            let mut response = Response::new(Body::default());
            if counted.fetch_add(1, Ordering::Relaxed) < 2 {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            async move { Ok::<_, Infallible>(response) }
        }))
        .await;

        let mut client = ServiceBuilder::new()
            .buffer(8)
            .rate_limit(1000, Duration::from_secs(1))
            .timeout(AMPLE)
            .retry(WhileUnavailable)
            .service(client());
        let response = client
            .ready()
            .await
            .unwrap()
            .call(get(address))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    })
    .await;
}

#[tokio::test]
async fn a_stack_is_a_clients_connector() {
    within(async {
        let address = serve(greeter()).await;
        let connector = ServiceBuilder::new()
            .buffer(4)
            .concurrency_limit(2)
            .timeout(AMPLE)
            .service(HttpConnector::new());
        let client: Client<_, Body> =
            Client::builder(TokioExecutor::new()).build(BoxCloneSyncService::new(connector));

        let response = client.request(get(address)).await.unwrap();
        assert_eq!(text(response).await, "HTTP/1.1");
    })
    .await;
}

#[tokio::test]
async fn a_timeout_bounds_a_connector() {
    within(async {
        let connector = ServiceBuilder::new()
            .timeout(SHORT)
            .service(tower::service_fn(|_: Uri| {
                std::future::pending::<Result<TokioIo<tokio::net::TcpStream>, BoxError>>()
            }));
        let client: Client<_, Body> =
            Client::builder(TokioExecutor::new()).build(BoxCloneSyncService::new(connector));

        let error = client
            .request(get("127.0.0.1:9".parse().unwrap()))
            .await
            .unwrap_err();
        assert!(error.is_connect());
        assert_eq!(innermost(&error), "request timed out");
    })
    .await;
}

fn innermost(error: &legacy::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A client of one server, for a balancer that doesn't care which one it is given.
fn bound_to(
    address: SocketAddr,
) -> impl Service<(), Response = Response<Incoming>, Error = legacy::Error, Future: Send> {
    client().map_request(move |()| get(address))
}

#[tokio::test]
async fn clients_are_balanced_by_pending_requests() {
    within(async {
        let calls: [Arc<AtomicUsize>; 3] = Default::default();
        let mut endpoints = Vec::new();
        for (number, calls) in calls.iter().enumerate() {
            let endpoint = bound_to(numbered(number, calls.clone()).await);
            endpoints.push(PendingRequests::new(
                endpoint,
                CompleteOnResponse::default(),
            ));
        }

        let mut balance = Balance::new(ServiceList::new(endpoints));
        for _ in 0..60 {
            let response = balance.ready().await.unwrap().call(()).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        let calls = calls.map(|calls| calls.load(Ordering::Relaxed));
        assert_eq!(calls.iter().sum::<usize>(), 60);
        // Two of three are drawn at random each time, so each is nearly sure to get a share.
        assert!(calls.iter().all(|&calls| calls > 0), "{calls:?}");
    })
    .await;
}

#[tokio::test]
async fn a_balancer_by_latency_is_shared_through_a_buffer() {
    within(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let mut endpoints = Vec::new();
        for number in 0..2 {
            let endpoint = bound_to(numbered(number, calls.clone()).await);
            let (expected, decay) = (Duration::from_millis(1), Duration::from_secs(1));
            let complete = CompleteOnResponse::default();
            endpoints.push(PeakEwma::new(
                endpoint,
                expected,
                decay.as_nanos() as f64,
                complete,
            ));
        }
        let shared = ServiceBuilder::new()
            .buffer(16)
            .service(Balance::new(ServiceList::new(endpoints)));

        let callers = (0..20).map(|_| tokio::spawn(shared.clone().oneshot(())));
        for caller in callers.collect::<Vec<_>>() {
            assert_eq!(caller.await.unwrap().unwrap().status(), StatusCode::OK);
        }
        assert_eq!(calls.load(Ordering::Relaxed), 20);
    })
    .await;
}
