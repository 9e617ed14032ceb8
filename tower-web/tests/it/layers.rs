//! Layers, and services that aren't ours.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tower_layer::Layer;
use tower_limit::bulkhead::BulkheadLayer;
use tower_service::Service;
use tower_timeout::TimeoutLayer;
use tower_web::prelude::*;
use tower_web::{BoxError, Uri};

/// Writes its name at the end of a header of the response.
#[derive(Clone)]
struct Sign(&'static str);

#[derive(Clone)]
struct Signed<S> {
    inner: S,
    name: &'static str,
}

impl<S> Layer<S> for Sign {
    type Service = Signed<S>;

    fn layer(&self, inner: S) -> Signed<S> {
        Signed {
            inner,
            name: self.0,
        }
    }
}

impl<S, Req> Service<Req> for Signed<S>
where
    S: Service<Req, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let name = self.name;
        let response = self.inner.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            response
                .headers_mut()
                .append("x-signed", name.parse().unwrap());
            Ok(response)
        })
    }
}

fn signatures(response: &tower_web::testing::TestResponse) -> Vec<String> {
    let signed = response.headers().get_all("x-signed");
    signed
        .iter()
        .map(|name| name.to_str().unwrap().to_owned())
        .collect()
}

#[get("/plain")]
async fn plain() -> &'static str {
    "plain"
}

#[get("/signed/{id}")]
#[layer(Sign("outer"))]
#[layer(Sign("inner"))]
async fn signed(id: u8) -> String {
    id.to_string()
}

#[get("/slow")]
async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(10)).await;
    "slow"
}

#[post("/length")]
async fn length(body: String) -> String {
    body.len().to_string()
}

#[get("/panic")]
async fn panics() {
    panic!("as it happens");
}

#[tokio::test]
async fn layers_stand_outermost_first_whatever_the_order_of_routes() {
    for app in [
        App::new().route(plain).layer(Sign("a")).layer(Sign("b")),
        App::new().layer(Sign("a")).layer(Sign("b")).route(plain),
        App::new().layer(Sign("a")).route(plain).layer(Sign("b")),
    ] {
        let client = app.test();
        let response = client.get("/plain").await;
        response.assert_text("plain");
        assert_eq!(signatures(&response), ["b", "a"]);
        // Around what no route answers, too.
        assert_eq!(signatures(&client.get("/nowhere").await), ["b", "a"]);
    }
}

#[tokio::test]
async fn a_route_and_a_resource_have_layers_of_their_own() {
    struct Things;
    #[resource("/things/{thing}")]
    #[layer(Sign("resource"))]
    impl Things {
        #[get("/")]
        #[layer(Sign("route"))]
        async fn show(&self, thing: u8) -> String {
            thing.to_string()
        }
        #[get("/bare")]
        async fn bare(&self, thing: u8) -> String {
            thing.to_string()
        }
    }
    let client = App::new()
        .route(signed)
        .resource(Things)
        .route(plain)
        .layer(Sign("app"))
        .test();
    let response = client.get("/signed/7").await;
    response.assert_text("7");
    assert_eq!(signatures(&response), ["inner", "outer", "app"]);
    let response = client.get("/things/8").await;
    response.assert_text("8");
    assert_eq!(signatures(&response), ["route", "resource", "app"]);
    assert_eq!(
        signatures(&client.get("/things/8/bare").await),
        ["resource", "app"]
    );
    assert_eq!(signatures(&client.get("/plain").await), ["app"]);
}

#[tokio::test]
async fn a_nested_application_keeps_its_layers_to_itself() {
    let inner = App::new().route(signed).layer(Sign("nested"));
    let client = App::new()
        .route(plain)
        .nest("/api", inner)
        .layer(Sign("app"))
        .test();
    let response = client.get("/api/signed/7").await;
    response.assert_text("7");
    assert_eq!(signatures(&response), ["inner", "outer", "nested", "app"]);
    assert_eq!(signatures(&client.get("/plain").await), ["app"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_layer_is_a_problem_to_the_layers_outside_of_it() {
    let client = App::new()
        .route(slow)
        .layer(Sign("app"))
        .layer(TimeoutLayer::new(Duration::from_secs(1)))
        .test();
    let response = client.get("/slow").await;
    response.assert_problem(504);
    assert_eq!(signatures(&response), ["app"]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_one_limit_for_all_connections() {
    let limit = || BulkheadLayer::new(2);
    let slow_three = |client: tower_web::testing::TestClient, path: &'static str| async move {
        // Each handle is what a connection has.
        let (a, b, c) = (client.clone(), client.clone(), client);
        tokio::join!(a.get(path).send(), b.get(path).send(), c.get(path).send())
    };
    for (app, path) in [
        (App::new().route(slow).layer(limit()), "/slow"),
        (
            App::new().nest("/api", App::new().route(slow).layer(limit())),
            "/api/slow",
        ),
    ] {
        let (a, b, c) = slow_three(app.test(), path).await;
        a.assert_status(200);
        b.assert_status(200);
        c.assert_problem(503);
    }
}

#[tokio::test]
async fn a_panic_behind_layers_is_a_response_to_them() {
    let client = App::new().route(panics).layer(Sign("app")).test();
    let response = client.get("/panic").await;
    response.assert_problem(500);
    assert_eq!(signatures(&response), ["app"]);
}

/// Changes the type of the request's body and of the response's.
#[derive(Clone)]
struct Reshape;

#[derive(Clone)]
struct Reshaped<S>(S);

impl<S> Layer<S> for Reshape {
    type Service = Reshaped<S>;

    fn layer(&self, inner: S) -> Reshaped<S> {
        Reshaped(inner)
    }
}

impl<S, B> Service<http::Request<B>> for Reshaped<S>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    S: Service<http::Request<http_body_util::Limited<B>>, Response = Response>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response =
        http::Response<http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        use http_body_util::BodyExt as _;

        let response = self
            .0
            .call(request.map(|body| http_body_util::Limited::new(body, 4)));
        Box::pin(async move {
            let response = response.await.map_err(Into::into)?;
            Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
        })
    }
}

#[tokio::test]
async fn layers_may_change_the_type_of_bodies() {
    let client = App::new().route(length).layer(Reshape).test();
    client.post("/length").body("four").await.assert_text("4");
    client
        .post("/length")
        .body("seven")
        .await
        .assert_problem(413);
}

/// Counts its calls, and isn't ready at once.
#[derive(Clone)]
struct Counter {
    calls: Arc<AtomicUsize>,
    polled: bool,
}

impl Service<Request> for Counter {
    type Response = http::Response<http_body_util::Full<bytes::Bytes>>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.polled {
            return Poll::Ready(Ok(()));
        }
        self.polled = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request) -> Self::Future {
        assert!(
            std::mem::take(&mut self.polled),
            "it is called when it is ready"
        );
        self.calls.fetch_add(1, Ordering::Relaxed);
        if request.uri().path() == "/fail" {
            return ready(Err("on purpose".into()));
        }
        let seen = request.uri().to_string();
        ready(Ok(http::Response::new(seen.into())))
    }
}

#[tokio::test]
async fn any_service_is_mounted_below_a_prefix_that_it_doesnt_see() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Counter {
        calls: Arc::clone(&calls),
        polled: false,
    };
    let client = App::new()
        .route(plain)
        .mount("/", counter.clone())
        .mount("/deep/er/", counter)
        .test();
    client.get("/plain").await.assert_text("plain");
    client.get("/").await.assert_text("/");
    client.get("/x/y?z=1").await.assert_text("/x/y?z=1");
    client.get("/deep/er").await.assert_text("/");
    client.get("/deep/er/?q").await.assert_text("/?q");
    client.post("/deep/er/x").await.assert_text("/x");
    client.get("/deep/x").await.assert_text("/deep/x");
    let response = client.get("/fail").await;
    response.assert_problem(500);
    assert!(!response.text().contains("on purpose"));
    assert_eq!(calls.load(Ordering::Relaxed), 7);
}

#[tokio::test]
async fn two_mounts_of_one_prefix_conflict() {
    let service = tower_util::service_fn(|_: Request| async {
        Ok::<_, BoxError>(http::Response::new(Body::empty()))
    });
    let error = App::new()
        .mount("/a", service)
        .mount("/a/", service)
        .build()
        .unwrap_err();
    assert_eq!(
        error.faults()[0].matches("layers.rs:").count(),
        2,
        "{error}"
    );
}

#[tokio::test]
async fn a_layer_may_change_the_path_before_a_route_is_sought() {
    let rewrite = tower_util::MapRequestLayer::new(|mut request: Request| {
        *request.uri_mut() = Uri::from_static("/plain");
        request
    });
    let client = App::new().route(plain).layer(rewrite).test();
    client.get("/whatever").await.assert_text("plain");
}

#[tokio::test]
async fn layers_that_fail_into_each_other_are_given_as_one() {
    // The outer one sees the error itself, as both are one layer.
    let recover =
        tower_util::MapResultLayer::new(|result: Result<http::Response<Body>, BoxError>| {
            result.or_else(|error| {
                Ok::<_, BoxError>(http::Response::new(Body::from(error.to_string())))
            })
        });
    let fail = tower_util::MapResponseLayer::new(|response: Response| response);
    let refuse =
        tower_filter::FilterLayer::new(|_: Request| Err::<Request, BoxError>("refused".into()));
    let client = App::new()
        .route(plain)
        .layer((recover, (refuse, fail)))
        .test();
    client.get("/plain").await.assert_text("refused");
}
