//! A service that is still being made.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Context, Poll};

use tower_service::Service;

/// A service that is still being made: by a future, of itself.
///
/// For services whose making is asynchronous, a connection say, where a service is wanted at once.
///
/// **Readiness.** Waits for the future, then for the service that it gave.
///
/// **Errors.** The future's, out of `poll_ready`, and then the service's. After an error of the future
/// there is no service, nor will there be: drop it.
///
/// # Panics
///
/// [`call`](Service::call) panics before `poll_ready` was ready once: there is no service to answer, and
/// the response future would be that service's.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use tower_util::{ServiceExt, future_service, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let connect = Box::pin(async {
///     tokio::task::yield_now().await; // shakes hands
///     Ok::<_, Infallible>(service_fn(|n: u32| async move { Ok(n + 1) }))
/// });
///
/// let service = future_service(connect);
/// assert_eq!(service.oneshot(1).await.unwrap(), 2);
/// # }
/// ```
#[derive(Clone)]
pub struct FutureService<F, S> {
    state: State<F, S>,
}

#[derive(Clone)]
enum State<F, S> {
    Future(F),
    Service(S),
}

/// Makes a service of a future of a service. See [`FutureService`].
pub fn future_service<F, S, R, E>(future: F) -> FutureService<F, S>
where
    F: Future<Output = Result<S, E>> + Unpin,
    S: Service<R, Error = E>,
{
    FutureService::new(future)
}

impl<F, S> FutureService<F, S> {
    /// Makes a service of a future of a service.
    pub const fn new(future: F) -> Self {
        Self {
            state: State::Future(future),
        }
    }
}

impl<F, S, R, E> Service<R> for FutureService<F, S>
where
    F: Future<Output = Result<S, E>> + Unpin,
    S: Service<R, Error = E>,
{
    type Response = S::Response;
    type Error = E;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        loop {
            match &mut self.state {
                // -> Service, when the future gives it.
                State::Future(future) => {
                    let service = task::ready!(Pin::new(future).poll(cx))?;
                    self.state = State::Service(service);
                }
                State::Service(service) => return service.poll_ready(cx),
            }
        }
    }

    fn call(&mut self, req: R) -> S::Future {
        match &mut self.state {
            State::Service(service) => service.call(req),
            State::Future(_) => {
                panic!("FutureService::call was called before FutureService::poll_ready")
            }
        }
    }
}

impl<F, S> fmt::Debug for FutureService<F, S>
where
    S: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FutureService")
            .field("state", &self.state)
            .finish()
    }
}

impl<F, S> fmt::Debug for State<F, S>
where
    S: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Future(_) => f
                .debug_tuple("State::Future")
                .field(&format_args!("<{}>", std::any::type_name::<F>()))
                .finish(),
            Self::Service(service) => f.debug_tuple("State::Service").field(service).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_the_type_of_its_future_and_then_its_service() {
        let mut service: FutureService<std::future::Ready<u8>, u8> =
            FutureService::new(std::future::ready(1));
        assert_eq!(
            format!("{service:?}"),
            "FutureService { state: State::Future(<core::future::ready::Ready<u8>>) }"
        );
        service.state = State::Service(7);
        assert_eq!(
            format!("{service:?}"),
            "FutureService { state: State::Service(7) }"
        );
    }
}
