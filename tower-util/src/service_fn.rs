//! A function as a service.

use std::fmt;
use std::future::Future;
use std::task::{Context, Poll};

use tower_service::Service;

/// A service made of an asynchronous function. [`service_fn`] makes it.
///
/// **Readiness.** Always ready. Where the function needs something that runs out, put a limit over it.
#[derive(Clone, Copy)]
pub struct ServiceFn<T> {
    f: T,
}

/// Makes a service of a function from a request to a future of a `Result`.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use tower_util::{ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// async fn greet(name: &str) -> Result<String, Infallible> {
///     Ok(format!("hello, {name}"))
/// }
///
/// assert_eq!(service_fn(greet).oneshot("Ada").await.unwrap(), "hello, Ada");
/// # }
/// ```
pub fn service_fn<T>(f: T) -> ServiceFn<T> {
    ServiceFn { f }
}

impl<T, F, Request, R, E> Service<Request> for ServiceFn<T>
where
    T: FnMut(Request) -> F,
    F: Future<Output = Result<R, E>>,
{
    type Response = R;
    type Error = E;
    type Future = F;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, req: Request) -> F {
        (self.f)(req)
    }
}

impl<T> fmt::Debug for ServiceFn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceFn")
            .field("f", &format_args!("{}", std::any::type_name::<T>()))
            .finish()
    }
}
