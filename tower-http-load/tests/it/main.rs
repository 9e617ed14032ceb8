//! When requests end, and what servers say of their load.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http_body::{Body, Frame};
use tokio::time::advance;
use tokio_test::{assert_ready, assert_ready_ok, task};
use tower_http_load::{CompleteOnBody, Report, ReportLayer, Reported};
use tower_layer::Layer;
use tower_load::pending_requests::PendingRequests;
use tower_load::{Load, TrackCompletion};
use tower_service::Service;
use tower_test::mock;

/// The frames that it is made of, one a poll.
#[derive(Debug, Default)]
struct Scripted {
    frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
    /// Whether it says that its last frame is the last.
    tells: bool,
}

impl Scripted {
    fn new(frames: impl IntoIterator<Item = Result<Frame<Bytes>, &'static str>>) -> Self {
        Self {
            frames: frames.into_iter().collect(),
            tells: false,
        }
    }

    fn telling(mut self) -> Self {
        self.tells = true;
        self
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(self.frames.pop_front())
    }

    fn is_end_stream(&self) -> bool {
        self.tells && self.frames.is_empty()
    }
}

fn data() -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data("data".into()))
}

fn trailers(metrics: Option<&str>) -> Result<Frame<Bytes>, &'static str> {
    let mut trailers = HeaderMap::new();
    if let Some(metrics) = metrics {
        trailers.insert("endpoint-load-metrics-bin", metrics.parse().unwrap());
    }
    Ok(Frame::trailers(trailers))
}

fn next<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    let mut cx = Context::from_waker(Waker::noop());
    assert_ready!(Pin::new(body).poll_frame(&mut cx))
}

/// How many frames can be read before the request is complete.
fn lasts(body: Scripted) -> usize {
    let handle = std::sync::Arc::new(());
    let is_open = || std::sync::Arc::strong_count(&handle) > 1;
    let response = CompleteOnBody::new().track_completion(handle.clone(), Response::new(body));
    let mut body = response.into_body();
    let mut read = 0;
    while is_open() {
        next(&mut body);
        read += 1;
    }
    read
}

#[test]
fn a_request_lasts_until_its_body_ends() {
    assert_eq!(lasts(Scripted::new([data(), data()])), 3);
    // It is known with the last frame, if the body tells.
    assert_eq!(lasts(Scripted::new([data(), data()]).telling()), 2);
    assert_eq!(lasts(Scripted::new([data(), trailers(None)])), 2);
    assert_eq!(lasts(Scripted::new([data(), Err("broken"), data()])), 2);
    assert_eq!(lasts(Scripted::new([]).telling()), 0);
}

#[test]
fn a_body_that_is_dropped_ends_its_request() {
    let handle = std::sync::Arc::new(());
    let response = Response::new(Scripted::new([data(), data()]));
    let response = CompleteOnBody::new().track_completion(handle.clone(), response);
    let mut body = response.into_body();
    next(&mut body);
    assert_eq!(std::sync::Arc::strong_count(&handle), 2);
    drop(body);
    assert_eq!(std::sync::Arc::strong_count(&handle), 1);
}

#[tokio::test]
async fn a_metric_counts_requests_whose_bodies_are_read() {
    let (mock, mut handle) = mock::pair::<(), Response<Scripted>>();
    let mut service = mock::Spawn::new(PendingRequests::new(mock, CompleteOnBody::new()));
    let idle = service.get_ref().load();
    assert_ready_ok!(service.poll_ready());
    let response = service.call(());
    let answer = Response::new(Scripted::new([data()]));
    handle.next_request().await.unwrap().1.send_response(answer);
    let response = response.await.unwrap();
    assert!(service.get_ref().load() > idle);
    drop(response);
    assert_eq!(service.get_ref().load(), idle);
}

type Client = mock::Spawn<Reported<mock::Mock<(), Response<Scripted>>>>;

fn client() -> (Client, mock::Handle<(), Response<Scripted>>) {
    let (mock, handle) = mock::pair();
    (mock::Spawn::new(Reported::new(mock)), handle)
}

#[tokio::test(start_paused = true)]
async fn a_report_in_the_trailers_is_heard() {
    let (mut client, mut server) = client();
    assert_ready_ok!(client.poll_ready());
    let response = client.call(());
    let report = Report::new().with_application_utilization(0.25).to_binary();
    let body = Scripted::new([data(), trailers(Some(&report))]);
    let sent = server.next_request().await.unwrap().1;
    sent.send_response(Response::new(body));
    let mut body = response.await.unwrap().into_body();
    // In flight still, and nothing is known.
    assert_eq!(client.get_ref().load(), 1.0);
    next(&mut body);
    next(&mut body);
    assert_eq!(client.get_ref().load(), 0.25);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_multiplies_and_an_old_report_is_forgotten() {
    let (mut client, mut server) = client();
    assert_ready_ok!(client.poll_ready());
    let response = client.call(());
    let answer = Response::builder().header("endpoint-load-metrics", "TEXT cpu_utilization=0.2");
    let answer = answer.body(Scripted::new([]).telling()).unwrap();
    server.next_request().await.unwrap().1.send_response(answer);
    response.await.unwrap();
    assert_eq!(client.get_ref().load(), 0.2);

    assert_ready_ok!(client.poll_ready());
    let waiting = task::spawn(client.call(()));
    assert_eq!(client.get_ref().load(), 0.4);
    drop(waiting);
    assert_eq!(client.get_ref().load(), 0.2);

    advance(Duration::from_secs(180)).await;
    assert_eq!(client.get_ref().load(), 0.5);
}

#[tokio::test]
async fn what_is_malformed_changes_nothing() {
    let (mut client, mut server) = client();
    assert_ready_ok!(client.poll_ready());
    let response = client.call(());
    let answer = Response::builder().header("endpoint-load-metrics", "TEXT cpu_utilization=-1");
    let answer = answer.body(Scripted::new([]).telling()).unwrap();
    server.next_request().await.unwrap().1.send_response(answer);
    response.await.unwrap();
    assert_eq!(client.get_ref().load(), 0.5);
}

#[tokio::test]
async fn what_a_server_says_a_client_hears() {
    let (mock, mut handle) = mock::pair::<(), Response<Scripted>>();
    let server = ReportLayer::new(|| Report::new().with_cpu_utilization(0.75)).layer(mock);
    let mut client = mock::Spawn::new(Reported::new(server));
    assert_ready_ok!(client.poll_ready());
    let response = client.call(());
    let answer = Response::new(Scripted::new([]).telling());
    handle.next_request().await.unwrap().1.send_response(answer);
    response.await.unwrap();
    assert_eq!(client.get_ref().load(), 0.75);
}

#[tokio::test]
async fn a_response_that_fails_is_no_longer_in_flight() {
    let (mut client, mut server) = client();
    assert_ready_ok!(client.poll_ready());
    let response = client.call(());
    server.next_request().await.unwrap().1.send_error("broken");
    assert!(response.await.is_err());
    assert_eq!(client.get_ref().load(), 0.5);
}

#[derive(Clone)]
struct Always;

impl Service<u32> for Always {
    type Response = Response<Scripted>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Scripted>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        std::future::ready(Ok(Response::new(Scripted::default())))
    }
}

#[test]
fn auto_traits_are_those_of_the_parts() {
    fn both<T: Send + Sync + Clone>(_: T) {}
    both(Reported::new(Always));
    both(ReportLayer::new(Report::new).layer(Always));
}
