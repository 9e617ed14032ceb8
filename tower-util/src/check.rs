use tower_service::Service;

/// Checks at compile time that `service` is a service of `Request`s, and returns it.
///
/// Where a method such as [`oneshot`](crate::ServiceExt::oneshot) "exists, but its trait bounds were not
/// satisfied", the compiler doesn't say *which* bound. Put the service through this function, and it names the
/// innermost one: an error that isn't an `Error`, a service that isn't `Clone`, a closure that isn't a service.
///
/// Does nothing at run time. `tower::ServiceBuilder::check_service` does the same inside of a stack.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::convert::Infallible;
/// use tower_util::{ServiceExt, check_service, service_fn};
///
/// let service = service_fn(async |n: u8| Ok::<_, Infallible>(n + 1));
/// let service = check_service::<u8, _>(service);
/// assert_eq!(service.oneshot(1).await, Ok(2));
/// # }
/// ```
#[inline]
pub const fn check_service<Request, S>(service: S) -> S
where
    S: Service<Request>,
{
    service
}
