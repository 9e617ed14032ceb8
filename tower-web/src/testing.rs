//! Tests of an application without sockets.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde_core::Serialize;
use serde_core::de::DeserializeOwned;
use tower_service::Service as _;

use crate::app::{App, AppService};
use crate::body::{Body, BodyError};
use crate::extract::Request;
use crate::problem::{MEDIA_TYPE, REQUEST_ID};
use crate::respond::Response;

impl App {
    /// A client of the application, in memory, for tests.
    ///
    /// The application runs in the task of the test, layers and limits included: `tokio`'s paused time works as for any other code.
    ///
    /// # Panics
    ///
    /// Panics with the [`BuildError`](crate::BuildError) where the application can't be built.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_web::prelude::*;
    ///
    /// #[post("/double")]
    /// async fn double(number: Json<u32>) -> Json<u32> {
    ///     Json(*number * 2)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let client = App::new().route(double).test();
    /// client.post("/double").json(&21).await.assert_status(200).assert_json(&42);
    /// client.post("/double").json(&"two").await.assert_status(422);
    /// # }
    /// ```
    #[track_caller]
    pub fn test(self) -> TestClient {
        match self.build() {
            Ok(service) => TestClient::new(service),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A client of an application, in memory. [`App::test`] makes one.
#[derive(Debug, Clone)]
pub struct TestClient {
    service: AppService,
    headers: HeaderMap,
}

impl TestClient {
    /// A client of this application.
    pub fn new(service: AppService) -> Self {
        Self {
            service,
            headers: HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]),
        }
    }

    /// The same client, which sends this header with every request.
    ///
    /// # Panics
    ///
    /// Panics where that isn't a header.
    #[track_caller]
    #[must_use]
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let (name, value) = header(name.as_ref(), value.as_ref());
        self.headers.append(name, value);
        self
    }

    /// The application, to start its [shutdown](AppService::begin_shutdown) in a test.
    pub fn service(&self) -> &AppService {
        &self.service
    }

    /// A `GET` of this path and query.
    #[track_caller]
    pub fn get(&self, path: &str) -> TestRequest {
        self.request(Method::GET, path)
    }

    /// A `HEAD` of this path and query.
    #[track_caller]
    pub fn head(&self, path: &str) -> TestRequest {
        self.request(Method::HEAD, path)
    }

    /// A `POST` to this path and query.
    #[track_caller]
    pub fn post(&self, path: &str) -> TestRequest {
        self.request(Method::POST, path)
    }

    /// A `PUT` to this path and query.
    #[track_caller]
    pub fn put(&self, path: &str) -> TestRequest {
        self.request(Method::PUT, path)
    }

    /// A `PATCH` to this path and query.
    #[track_caller]
    pub fn patch(&self, path: &str) -> TestRequest {
        self.request(Method::PATCH, path)
    }

    /// A `DELETE` of this path and query.
    #[track_caller]
    pub fn delete(&self, path: &str) -> TestRequest {
        self.request(Method::DELETE, path)
    }

    /// An `OPTIONS` of this path.
    #[track_caller]
    pub fn options(&self, path: &str) -> TestRequest {
        self.request(Method::OPTIONS, path)
    }

    /// A request with any method.
    ///
    /// # Panics
    ///
    /// Panics where the path isn't one.
    #[track_caller]
    pub fn request(&self, method: Method, path: &str) -> TestRequest {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = match path.parse() {
            Ok(uri) => uri,
            Err(error) => panic!("`{path}` isn't a path: {error}"),
        };
        *request.headers_mut() = self.headers.clone();
        TestRequest {
            service: self.service.clone(),
            request,
        }
    }
}

/// A request that a test is about to send: awaiting it sends it.
#[derive(Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct TestRequest {
    service: AppService,
    request: Request,
}

impl TestRequest {
    /// With a header, in the place of those of this name.
    ///
    /// # Panics
    ///
    /// Panics where that isn't a header.
    #[track_caller]
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let (name, value) = header(name.as_ref(), value.as_ref());
        self.request.headers_mut().insert(name, value);
        self
    }

    /// With an extension, as a server or a layer would insert it.
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.request.extensions_mut().insert(value);
        self
    }

    /// With a JSON body.
    ///
    /// # Panics
    ///
    /// Panics where the value can't be written as JSON.
    #[track_caller]
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => self.header(CONTENT_TYPE, "application/json").body(json),
            Err(error) => panic!("the value isn't JSON: {error}"),
        }
    }

    /// With a body, of no type unless a header tells one.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    /// Changes what the other methods don't reach.
    pub fn map(mut self, change: impl FnOnce(&mut Request)) -> Self {
        change(&mut self.request);
        self
    }

    /// Sends it, and reads the response to its end. So does awaiting the request itself.
    ///
    /// # Panics
    ///
    /// Panics where the application doesn't start, or the response breaks off.
    pub async fn send(self) -> TestResponse {
        let (parts, body) = self.stream().await.into_parts();
        match body.bytes().await {
            Ok(bytes) => TestResponse {
                response: Response::from_parts(parts, bytes),
            },
            Err(error) => panic!("the response broke off: {}", chain(&error)),
        }
    }

    /// Sends it, and gives the response as soon as its head is there: for one that has no end.
    ///
    /// # Panics
    ///
    /// Panics where the application doesn't start.
    pub async fn stream(mut self) -> Response {
        if let Err(error) = self.service.start().await {
            panic!("the application doesn't start: {error}");
        }
        match self.service.call(self.request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl IntoFuture for TestRequest {
    type Output = TestResponse;
    type IntoFuture = Pin<Box<dyn Future<Output = TestResponse> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A response, read to its end. The assertions panic with the whole of it.
#[derive(Clone)]
pub struct TestResponse {
    response: http::Response<Bytes>,
}

impl TestResponse {
    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The first header of this name, if it is text.
    pub fn header(&self, name: impl AsRef<str>) -> Option<&str> {
        self.headers().get(name.as_ref())?.to_str().ok()
    }

    /// Its body.
    pub fn bytes(&self) -> &Bytes {
        self.response.body()
    }

    /// Its body as text. What isn't UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// Its body, read as JSON.
    ///
    /// # Panics
    ///
    /// Panics where it isn't JSON, or doesn't fit `T`.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(self.bytes()) {
            Ok(value) => value,
            Err(error) => panic!("the body doesn't fit: {error}\n{self:?}"),
        }
    }

    /// Asserts its status: a number, or a [`StatusCode`].
    ///
    /// # Panics
    ///
    /// Panics where it is another.
    #[track_caller]
    pub fn assert_status<S>(&self, status: S) -> &Self
    where
        S: TryInto<StatusCode>,
        S::Error: fmt::Debug,
    {
        match status.try_into() {
            Ok(status) => assert!(
                self.status() == status,
                "the status isn't {status}\n{self:?}"
            ),
            Err(error) => panic!("not a status: {error:?}"),
        }
        self
    }

    /// Asserts that a header has this value.
    ///
    /// # Panics
    ///
    /// Panics where it has another, or isn't there.
    #[track_caller]
    pub fn assert_header(&self, name: impl AsRef<str>, value: impl AsRef<str>) -> &Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        let values = self.headers().get_all(name);
        assert!(
            values.iter().any(|own| own == value),
            "`{name}` isn't `{value}`\n{self:?}"
        );
        self
    }

    /// Asserts that the body is this text.
    ///
    /// # Panics
    ///
    /// Panics where it is another.
    #[track_caller]
    pub fn assert_text(&self, text: impl AsRef<str>) -> &Self {
        let text = text.as_ref();
        assert!(
            self.bytes() == text.as_bytes(),
            "the body isn't `{text}`\n{self:?}"
        );
        self
    }

    /// Asserts that the body is JSON, and equal to this value as JSON.
    ///
    /// A [problem](struct@crate::Problem) has the request's id, which differs each time: it is left out of the comparison unless the
    /// value has one.
    ///
    /// # Panics
    ///
    /// Panics where it isn't.
    #[track_caller]
    pub fn assert_json<T: Serialize + ?Sized>(&self, value: &T) -> &Self {
        let mut own: serde_json::Value = self.json();
        match serde_json::to_value(value) {
            Ok(value) => {
                let is_problem = self.header(CONTENT_TYPE) == Some(MEDIA_TYPE);
                if let (true, None) = (is_problem, value.get(REQUEST_ID)) {
                    if let Some(members) = own.as_object_mut() {
                        members.remove(REQUEST_ID);
                    }
                }
                assert!(own == value, "the body isn't {value}\n{self:?}");
            }
            Err(error) => panic!("the value isn't JSON: {error}"),
        }
        self
    }

    /// Asserts that it is a [problem](struct@crate::Problem) with this status, and gives its members.
    ///
    /// # Panics
    ///
    /// Panics where it isn't.
    #[track_caller]
    pub fn assert_problem(&self, status: u16) -> serde_json::Value {
        self.assert_status(status)
            .assert_header(CONTENT_TYPE, "application/problem+json");
        let problem: serde_json::Value = self.json();
        assert!(
            problem["status"] == status,
            "the member `status` differs\n{self:?}"
        );
        problem
    }
}

impl fmt::Debug for TestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} {}", self.response.version(), self.status())?;
        for (name, value) in self.headers() {
            writeln!(f, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        write!(f, "\n{}", self.text())
    }
}

#[track_caller]
fn header(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    match (name.parse(), value.parse()) {
        (Ok(name), Ok(value)) => (name, value),
        _ => panic!("`{name}: {value}` isn't a header"),
    }
}

fn chain(error: &BodyError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
