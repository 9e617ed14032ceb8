//! Mocks and checks for testing services and middleware.
//!
//! - [`contract`] checks a middleware against the contract of `Service`, rule by rule.
//! - [`mock`] is a service that a test answers by hand, request by request, through a handle.
//! - [`assert_request_eq!`] takes the next request from that handle and checks it.
//!
//! It is meant for `[dev-dependencies]`: the mock panics on purpose where a caller breaks the
//! contract of [`Service`](tower_service::Service).

pub mod contract;
pub mod mock;

/// Asserts that the next request that a [`mock::Handle`] sees equals the one given, and gives the
/// [`mock::SendResponse`] to answer it with.
///
/// It awaits the request, so it needs an `async` context. Further arguments are a message, as in
/// [`assert_eq!`].
///
/// # Panics
///
/// If the request differs, or if every mock is gone and no request can come.
///
/// # Example
///
/// ```
/// use tower_service::Service;
/// use tower_test::{assert_request_eq, mock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (mut service, mut handle) = mock::spawn();
/// assert!(service.poll_ready().is_ready());
///
/// let response = service.call("hello");
/// assert_request_eq!(handle, "hello").send_response("world");
///
/// assert_eq!(response.await.unwrap(), "world");
/// # }
/// ```
#[macro_export]
macro_rules! assert_request_eq {
    ($handle:expr, $expected:expr $(,)?) => {
        $crate::assert_request_eq!($handle, $expected, "unexpected request")
    };
    ($handle:expr, $expected:expr, $($message:tt)+) => {{
        let (request, send_response) = match $handle.next_request().await {
            ::core::option::Option::Some(next) => next,
            ::core::option::Option::None => {
                ::core::panic!("expected a request, but every mock service was dropped")
            }
        };
        ::core::assert_eq!(request, $expected, $($message)+);
        send_response
    }};
}
