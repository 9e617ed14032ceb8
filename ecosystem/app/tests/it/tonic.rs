//! tonic's servers and channels, with tower's layers around them and its buffer and balancer inside.

use std::net::SocketAddr;
use std::time::Duration;

use ecosystem_app::backend::Backend;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::service::interceptor::InterceptorLayer;
use tonic::transport::channel::Change;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server, Uri};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{BoxError, ServiceBuilder};
use tower_http::trace::TraceLayer;

use super::{AMPLE, SHORT, backend, endpoint, listen, within};

fn service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: name.to_owned(),
    }
}

async fn check(client: &mut HealthClient<Channel>, name: &str) -> Result<ServingStatus, Code> {
    let response = client.check(service(name)).await;
    response
        .map(|response| response.into_inner().status())
        .map_err(|status| status.code())
}

/// Checks until the answer is `wanted`: for what a channel or a server learns in its own time.
async fn check_until(client: &mut HealthClient<Channel>, wanted: Result<ServingStatus, Code>) {
    while check(client, "steady").await != wanted {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Serves a backend that is limited to one request at once and to `deadline` for each.
async fn limited_backend(deadline: Duration) -> SocketAddr {
    let layers = ServiceBuilder::new()
        .layer(TraceLayer::new_for_grpc())
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .map_err(
            |error: BoxError| match error.is::<tower::timeout::error::Elapsed>() {
                true => BoxError::from(Status::deadline_exceeded("the server's patience ended")),
                false => error,
            },
        )
        .timeout(deadline)
        .into_inner();
    let router = Server::builder()
        .layer(layers)
        .add_service(HealthServer::new(Backend::default()));

    let (listener, address) = listen().await;
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

#[tokio::test]
async fn calls_and_streams_pass_a_channel() {
    within(async {
        let mut client = HealthClient::new(backend().await);
        assert_eq!(
            check(&mut client, "steady").await,
            Ok(ServingStatus::Serving)
        );
        assert_eq!(check(&mut client, "nobody").await, Err(Code::NotFound));

        let stream = client.watch(service("steady")).await.unwrap().into_inner();
        let statuses: Vec<_> = stream.map(|item| item.unwrap().status()).collect().await;
        assert_eq!(
            statuses,
            [ServingStatus::NotServing, ServingStatus::Serving]
        );
    })
    .await;
}

#[tokio::test]
async fn a_timeout_bounds_a_server() {
    within(async {
        let channel = endpoint(limited_backend(SHORT).await).connect_lazy();
        let mut client = HealthClient::new(channel);
        assert_eq!(
            check(&mut client, "slow").await,
            Err(Code::DeadlineExceeded)
        );
        assert_eq!(
            check(&mut client, "steady").await,
            Ok(ServingStatus::Serving)
        );
    })
    .await;
}

/// tonic looks for tower's `Overloaded` to answer RESOURCE_EXHAUSTED: the layer and what tonic knows
/// have to come from one crate.
#[tokio::test]
async fn what_a_server_sheds_is_recognised() {
    within(async {
        let channel = endpoint(limited_backend(AMPLE).await).connect_lazy();
        let mut client = HealthClient::new(channel);
        let mut other = client.clone();
        let held = tokio::spawn(async move { check(&mut other, "slow").await });
        check_until(&mut client, Err(Code::ResourceExhausted)).await;

        // A caller that leaves gives its place back.
        held.abort();
        check_until(&mut client, Ok(ServingStatus::Serving)).await;
    })
    .await;
}

#[tokio::test]
async fn a_servers_own_limits_are_towers() {
    within(async {
        let (listener, address) = listen().await;
        let router = Server::builder()
            .load_shed(true)
            .concurrency_limit_per_connection(1)
            .timeout(AMPLE)
            .add_service(HealthServer::new(Backend::default()));
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));

        let mut client = HealthClient::new(endpoint(address).connect().await.unwrap());
        let mut other = client.clone();
        let held = tokio::spawn(async move { check(&mut other, "slow").await });
        check_until(&mut client, Err(Code::ResourceExhausted)).await;
        held.abort();
        check_until(&mut client, Ok(ServingStatus::Serving)).await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoints_own_limits_are_towers() {
    within(async {
        let address = limited_backend(AMPLE).await;
        let channel = endpoint(address)
            .concurrency_limit(1)
            .rate_limit(1000, Duration::from_secs(1))
            .timeout(SHORT)
            .buffer_size(4)
            .connect()
            .await
            .unwrap();
        let mut client = HealthClient::new(channel);
        for _ in 0..10 {
            assert_eq!(
                check(&mut client, "steady").await,
                Ok(ServingStatus::Serving)
            );
        }
        assert_eq!(check(&mut client, "slow").await, Err(Code::Cancelled));
    })
    .await;
}

#[tokio::test]
async fn layers_stand_around_a_channel() {
    within(async {
        let name_myself = InterceptorLayer::new(|mut request: Request<()>| {
            request
                .metadata_mut()
                .insert("x-me", "client".parse().unwrap());
            Ok(request)
        });
        let stack = ServiceBuilder::new()
            .buffer(8)
            .concurrency_limit(4)
            .layer(name_myself)
            .layer(TraceLayer::new_for_grpc())
            .timeout(SHORT)
            .service(backend().await);
        let mut client = HealthClient::new(stack);

        let response = client.check(service("steady")).await.unwrap();
        assert_eq!(response.into_inner().status(), ServingStatus::Serving);

        let status = client.check(service("slow")).await.unwrap_err();
        let source = std::error::Error::source(&status).unwrap();
        assert_eq!(source.to_string(), "request timed out");
    })
    .await;
}

#[tokio::test]
async fn a_stack_is_a_channels_connector() {
    within(async {
        let address = limited_backend(AMPLE).await;
        let connector = ServiceBuilder::new()
            .buffer(2)
            .timeout(AMPLE)
            .service(tower::service_fn(move |_: Uri| async move {
                TcpStream::connect(address).await.map(TokioIo::new)
            }));
        let channel = endpoint(address).connect_with_connector_lazy(connector);
        let mut client = HealthClient::new(channel);
        assert_eq!(
            check(&mut client, "steady").await,
            Ok(ServingStatus::Serving)
        );
    })
    .await;
}

#[tokio::test]
async fn a_channel_is_balanced_over_servers() {
    within(async {
        let mut endpoints = Vec::new();
        for _ in 0..3 {
            endpoints.push(endpoint(limited_backend(AMPLE).await));
        }
        let mut client = HealthClient::new(Channel::balance_list(endpoints.into_iter()));
        for _ in 0..30 {
            assert_eq!(
                check(&mut client, "steady").await,
                Ok(ServingStatus::Serving)
            );
        }
    })
    .await;
}

#[tokio::test]
async fn servers_of_a_balanced_channel_come_and_go() {
    within(async {
        let stuck = limited_backend(AMPLE).await;
        let free = limited_backend(AMPLE).await;
        let (channel, changes) = Channel::balance_channel(4);
        let mut client = HealthClient::new(channel);

        // With no server yet, the request waits for one.
        let mut early = client.clone();
        let early = tokio::spawn(async move { check(&mut early, "steady").await });
        changes
            .send(Change::Insert("stuck", endpoint(stuck)))
            .await
            .unwrap();
        assert_eq!(early.await.unwrap(), Ok(ServingStatus::Serving));

        // Once its only place is taken, this server sheds.
        let mut other = client.clone();
        let held = tokio::spawn(async move { check(&mut other, "slow").await });
        check_until(&mut client, Err(Code::ResourceExhausted)).await;

        // The other takes over.
        changes
            .send(Change::Insert("free", endpoint(free)))
            .await
            .unwrap();
        changes.send(Change::Remove("stuck")).await.unwrap();
        check_until(&mut client, Ok(ServingStatus::Serving)).await;
        for _ in 0..10 {
            assert_eq!(
                check(&mut client, "steady").await,
                Ok(ServingStatus::Serving)
            );
        }
        held.abort();
    })
    .await;
}
