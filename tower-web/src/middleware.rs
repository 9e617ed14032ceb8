//! A layer that is an asynchronous function: it sees the request, decides whether it goes on, and sees the response.
//!
//! # When not to use it
//!
//! What only looks at the request, to hand something of it to the handler, is an extractor: it is an argument then, and in the
//! document of the API. What shall serve other applications as well is a Tower layer of its own.
//!
//! # Cost
//!
//! That of any layer: a clone of the function, and a boxed future for each request.
//!
//! # Example
//!
//! ```
//! use tower_web::middleware::from_fn;
//! use tower_web::prelude::*;
//! use tower_web::Next;
//!
//! /// Lets nobody in without the key, and says how long it took.
//! async fn guard(request: Request, next: Next) -> Result<Response, Problem> {
//!     if request.headers().get("x-key").is_none_or(|key| key != "sesame") {
//!         return Err(Problem::new(StatusCode::FORBIDDEN).with_detail("the door is closed"));
//!     }
//!     let mut response = next.run(request).await;
//!     response.headers_mut().insert("x-guarded", "yes".parse()?);
//!     Ok(response)
//! }
//!
//! #[get("/cave")]
//! async fn cave() -> &'static str {
//!     "treasure"
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let client = App::new().layer(from_fn(guard)).route(cave).test();
//! client.get("/cave").await.assert_problem(403);
//! let response = client.get("/cave").header("x-key", "sesame").await;
//! response.assert_text("treasure").assert_header("x-guarded", "yes");
//! # }
//! ```

use std::any::type_name;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::extract::Request;
use crate::handler::log_cause;
use crate::layered::Next;
use crate::respond::{IntoResponse, Response};

/// Makes a layer of an asynchronous function of a request and of what is [inside](Next), for an application, a resource or a route.
///
/// It answers with whatever a handler may answer with. What it needs besides the request, a closure captures:
/// `from_fn(move |request, next| check(keys.clone(), request, next))`.
///
/// **Readiness.** Always. What is inside waits for its own when it is run.
///
/// **Cancellation.** Dropping the response's future drops the function's, and what it runs.
///
/// **Errors.** A `Result`'s `Err` is answered with, as a handler's is. The cause of a [`Problem`](struct@crate::Problem) is logged, and never sent.
///
/// **Panics.** A panic in it is a 500 problem.
pub fn from_fn<F, Fut>(function: F) -> FromFn<F>
where
    F: Fn(Request, Next) -> Fut,
    Fut: Future,
    Fut::Output: IntoResponse,
{
    FromFn { function }
}

/// The layer that [`from_fn`] makes.
#[derive(Clone, Copy)]
pub struct FromFn<F> {
    function: F,
}

impl<F: Clone> Layer<Next> for FromFn<F> {
    type Service = FromFnService<F>;

    fn layer(&self, inner: Next) -> FromFnService<F> {
        FromFnService {
            function: self.function.clone(),
            inner,
        }
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FromFn").field(&type_name::<F>()).finish()
    }
}

/// A function around what is inside, as a service.
#[derive(Clone)]
pub struct FromFnService<F> {
    function: F,
    inner: Next,
}

impl<F, Fut> Service<Request> for FromFnService<F>
where
    F: Fn(Request, Next) -> Fut,
    Fut: Future,
    Fut::Output: IntoResponse,
{
    type Response = Response;
    type Error = Infallible;
    type Future = FromFnFuture<Fut>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> FromFnFuture<Fut> {
        FromFnFuture {
            answer: (self.function)(request, self.inner.clone()),
        }
    }
}

impl<F> fmt::Debug for FromFnService<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFnService")
            .field("function", &type_name::<F>())
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of a function around what is inside.
    #[must_use = "futures do nothing unless polled"]
    pub struct FromFnFuture<Fut> {
        #[pin]
        answer: Fut,
    }
}

impl<Fut> Future for FromFnFuture<Fut>
where
    Fut: Future,
    Fut::Output: IntoResponse,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.project().answer.poll(cx)).into_response();
        log_cause(None, &mut response);
        Poll::Ready(Ok(response))
    }
}

impl<Fut> fmt::Debug for FromFnFuture<Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFnFuture").finish_non_exhaustive()
    }
}
